import { createServer, IncomingMessage, type RequestListener, type Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Express } from 'express'
import { PalimpsestError } from '../errors.ts'

/** Longer than the idle time of the usual load balancers (60 s), so that they close a connection before we do. */
const KEEP_ALIVE_MS = 65_000
/** Above the keep-alive time, lest a request on a kept connection be cut off. */
const HEADERS_MS = 70_000
/** Batches may come slowly; no bound on the whole request but this. */
const REQUEST_MS = 15 * 60_000
const STARTING_SECONDS = 5

/** A port that is ours from now on. */
export interface Listener {
  /** As a client on this machine writes it, without a trailing slash. */
  readonly url: string
  /** Requests go here from now on; until then they are answered 503. */
  serve(app: Express): void
  /** Takes no more connections, and waits at most `graceMs` for requests under way. */
  close(graceMs: number): Promise<void>
}

/** Throws a sentence when the address is taken or not this machine's. */
export async function listen(host: string, port: number): Promise<Listener> {
  let handler: RequestListener = starting
  class Incoming extends IncomingMessage {}
  class Outgoing extends ServerResponse {}
  const classes = { IncomingMessage: Incoming, ServerResponse: Outgoing }
  const server = createServer(classes, (req, res) => handler(req, res))
  server.keepAliveTimeout = KEEP_ALIVE_MS
  server.headersTimeout = HEADERS_MS
  server.requestTimeout = REQUEST_MS
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenFailed(error, host, port)))
    server.listen(port, host, resolve)
  })
  const { port: bound } = server.address() as AddressInfo
  return {
    url: `http://${reachable(host)}:${bound}`,
    serve: (app) => {
      // Express changes the prototypes of every request and response to its own. Done to an object that lives, this costs more than all else in
      // Express, and keeps the object from being freed by a minor collection; so they are born with the prototypes that it wants.
      app.request = Object.setPrototypeOf(Incoming.prototype, app.request)
      app.response = Object.setPrototypeOf(Outgoing.prototype, app.response)
      handler = app
    },
    close: (graceMs) => closed(server, graceMs),
  }
}

const STARTING = 'The gateway is starting: its model is not loaded yet.'
const STARTING_PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Palimpsest is starting</title>
<p>${STARTING} This page asks again every ${STARTING_SECONDS} seconds.</p></html>`

const starting: RequestListener = (req, res) => {
  if (req.url === '/livez') {
    res.writeHead(200, { 'Content-Type': 'application/json' }).end('{"status":"ok"}')
    return
  }
  // A browser that opens the console too early waits for it, in place of reading an error.
  if (req.headers.accept?.includes('text/html')) {
    const headers = { 'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': "default-src 'none'" }
    res
      .writeHead(503, { ...headers, 'Retry-After': String(STARTING_SECONDS), Refresh: String(STARTING_SECONDS) })
      .end(STARTING_PAGE)
    return
  }
  const error = {
    message: STARTING,
    type: 'server_error',
    param: null,
    code: 'starting',
  }
  res
    .writeHead(503, { 'Content-Type': 'application/json', 'Retry-After': String(STARTING_SECONDS) })
    .end(JSON.stringify({ error }))
}

/** A gateway that listens everywhere is reached at the loopback address. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  if (host === '::') return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}

function listenFailed(error: NodeJS.ErrnoException, host: string, port: number): PalimpsestError {
  const detail = { cause: error }
  switch (error.code) {
    case 'EADDRINUSE':
      return new PalimpsestError(
        'network',
        `Port ${port} on ${host} is in use. Stop what listens there, or choose another with --port.`,
        detail,
      )
    case 'EACCES':
      return new PalimpsestError(
        'network',
        `Port ${port} may not be used by this account. Choose one above 1023 with --port.`,
        detail,
      )
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new PalimpsestError('network', `${host} is no address of this machine. Choose another with --host.`, detail)
    default:
      return new PalimpsestError('network', `Can't listen on ${host}:${port}: ${error.message}.`, detail)
  }
}

async function closed(server: Server, graceMs: number): Promise<void> {
  const done = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), graceMs)
  // Kept-alive connections turn idle as their last requests end.
  const sweep = setInterval(() => server.closeIdleConnections(), 50)
  await done.finally(() => {
    clearTimeout(timer)
    clearInterval(sweep)
  })
}
