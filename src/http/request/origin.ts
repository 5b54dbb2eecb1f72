import { isIP } from 'node:net'
import type { Request, RequestHandler, Response } from 'express'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'

/** What a page of another origin may read of an answer, beside its body (Fetch, section 3.3.4). */
export const EXPOSED_HEADERS = [
  ...['x-request-id', 'Server-Timing', 'Retry-After', 'x-should-retry', 'WWW-Authenticate', 'Allow'],
  ...['Arm', 'Edits', 'Template', 'Adapter', 'Experiment', 'Memory-Version', 'Warning'].map((name) => `Palimpsest-${name}`),
  ...['requests', 'tokens'].flatMap((of) => ['limit', 'remaining', 'reset'].map((what) => `x-ratelimit-${what}-${of}`)),
].join(', ')

const METHODS = 'GET, HEAD, POST, PATCH, DELETE'
const PREFLIGHT_SECONDS = '600'
const HEADER_NAMES = /^[\w-]{1,64}(?: *, *[\w-]{1,64}){0,63}$/

/**
 * Keeps web pages of other sites off a gateway on the user's machine, but those of `--allow-origin`. Three faults are refused with 403:
 * a request that a page of another origin makes (its `Origin` is not the `Host` it asks); one without `Origin`, as images, scripts and forms
 * send it, of which the browser says that another site makes it, unless it leads the user here; and, on a loopback connection, a `Host` that
 * is a name of somebody else's (DNS rebinding: a page's own name made to resolve to 127.0.0.1).
 */
export function refuseForeignPages(gateway: Pick<Gateway, 'hosts' | 'origins' | 'access'>): RequestHandler {
  const { hosts = [], origins = [] } = gateway
  return (req, res, next) => {
    const { origin, host = '' } = req.headers
    const foreign = origin !== undefined && hostOf(origin) !== host.toLowerCase()
    const allowed = foreign ? allowedBy(origin, gateway) : null
    const fault = faultOf(req, { foreign, allowed, hosts, origins })
    if (fault !== null) throw new PalimpsestError('origin_refused', fault)
    if (origins.length > 0) res.vary('Origin')
    if (allowed === null) return next()
    res.set({ 'Access-Control-Allow-Origin': allowed, 'Access-Control-Expose-Headers': EXPOSED_HEADERS })
    // What a browser adds by itself (cookies of a proxy before this gateway) is for pages that were named.
    if (allowed !== ANY) res.set('Access-Control-Allow-Credentials', 'true')
    if (req.method !== 'OPTIONS' || req.headers['access-control-request-method'] === undefined) return next()
    preflight(req, res)
  }
}

interface Page {
  readonly foreign: boolean
  readonly allowed: string | null
  readonly hosts: readonly string[]
  readonly origins: readonly string[]
}

/** Which of the three faults a request has, and what to do; null for none. */
function faultOf(req: Request, { foreign, allowed, hosts, origins }: Page): string | null {
  if (foreign && allowed === null)
    return origins.includes(ANY)
      ? 'Any origin is allowed only while the gateway asks for keys, and it asks for none. Make a key with `palimpsest keys create`, or name the origin with `--allow-origin`.'
      : 'Web pages of other origins may not use this gateway. Call it from a server, or from a page that it serves itself, or allow the origin with `--allow-origin`.'
  if (req.headers.origin === undefined && isOfAnotherSite(req))
    return 'Web pages of other sites may not load anything of this gateway. Open it by its own address.'
  const name = nameOf(req.headers.host ?? '')
  if (onLoopback(req) && !isLocalName(name) && !hosts.includes(name))
    return 'The Host header names neither an address nor localhost. Behind a reverse proxy, have it send Host: localhost, or add its name to the allowed hosts.'
  return null
}

const ANY = '*'

/** The value of `Access-Control-Allow-Origin`; null where the origin may not use the gateway. Any origin may only where it needs a key. */
function allowedBy(origin: string, { origins = [], access }: Pick<Gateway, 'origins' | 'access'>): string | null {
  if (origins.includes(origin.toLowerCase())) return origin
  return origins.includes(ANY) && access?.required() ? ANY : null
}

/** Asked by browsers before a request, without its key. */
function preflight(req: Request, res: Response): void {
  const asked = req.get('access-control-request-headers') ?? ''
  res.set({
    'Access-Control-Allow-Methods': METHODS,
    'Access-Control-Max-Age': PREFLIGHT_SECONDS,
    ...(HEADER_NAMES.test(asked) && { 'Access-Control-Allow-Headers': asked }),
    ...(req.get('access-control-request-private-network') === 'true' && { 'Access-Control-Allow-Private-Network': 'true' }),
  })
  res.vary('Access-Control-Request-Headers').status(204).end()
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
