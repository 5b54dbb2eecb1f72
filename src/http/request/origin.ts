import { isIP } from 'node:net'
import type { Request, RequestHandler } from 'express'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'

/**
 * Keeps web pages of other sites off a gateway on the user's machine. Three faults are refused with 403:
 * a request that a page of another origin makes (its `Origin` is not the `Host` it asks); one without `Origin`, as images, scripts and forms
 * send it, of which the browser says that another site makes it, unless it leads the user here; and, on a loopback connection, a `Host` that
 * is a name of somebody else's (DNS rebinding: a page's own name made to resolve to 127.0.0.1).
 */
export function refuseForeignPages({ hosts = [] }: Pick<Gateway, 'hosts'>): RequestHandler {
  return (req, _res, next) => {
    const { origin, host = '' } = req.headers
    if (origin !== undefined && hostOf(origin) !== host.toLowerCase()) {
      throw new PalimpsestError(
        'origin_refused',
        'Web pages of other origins may not use this gateway. Call it from a server, or from a page that it serves itself.',
      )
    }
    if (origin === undefined && isOfAnotherSite(req)) {
      throw new PalimpsestError(
        'origin_refused',
        'Web pages of other sites may not load anything of this gateway. Open it by its own address.',
      )
    }
    if (onLoopback(req) && !isLocalName(nameOf(host)) && !hosts.includes(nameOf(host))) {
      throw new PalimpsestError(
        'origin_refused',
        'The Host header names neither an address nor localhost. Behind a reverse proxy, have it send Host: localhost, or add its name to the allowed hosts.',
      )
    }
    next()
  }
}

/** By Fetch Metadata, which pages cannot set and other clients do not send. A link to a page of ours is followed. */
function isOfAnotherSite({ method, headers }: Request): boolean {
  const { 'sec-fetch-site': site, 'sec-fetch-mode': mode, 'sec-fetch-dest': dest } = headers
  if (site !== 'cross-site' && site !== 'same-site') return false
  return method !== 'GET' || mode !== 'navigate' || dest !== 'document'
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined
}

function onLoopback(req: Request): boolean {
  const address = req.socket.localAddress ?? ''
  return address === '::1' || /^(::ffff:)?127\./.test(address)
}

/** The host without its port and brackets. */
function nameOf(host: string): string {
  return host
    .toLowerCase()
    .replace(/:\d*$/, '')
    .replace(/^\[|\]$/g, '')
}

function isLocalName(name: string): boolean {
  return name === '' || isIP(name) !== 0 || name === 'localhost' || name.endsWith('.localhost')
}
