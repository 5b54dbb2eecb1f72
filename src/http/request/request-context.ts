import { randomUUID } from 'node:crypto'
import type { Request, RequestHandler, Response } from 'express'
import { z } from 'zod'
import { type Key, withoutKeyShapes } from '../../access/key.ts'
import { type ErrorCode, PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import type { ChatRequest, TextRequest } from '../../request.ts'
import { Trace } from '../../trace.ts'
import { otherTenant, type Tenancy } from '../../wire/palimpsest/selection.ts'
import { serverTiming } from '../reply/provenance.ts'

/** What a model is asked in a request, once that has been read. */
export interface Call {
  /** OpenTelemetry's name for it. */
  readonly operation: 'chat' | 'text_completion' | 'embeddings'
  /** Id of the response; null where it has none. */
  readonly id: string | null
  /** As served, without its arm. */
  readonly model: string
  readonly stream: boolean
  /** Answers asked for. */
  readonly n: number
  /** Absent for embeddings; the first of several texts. */
  readonly request?: ChatRequest | TextRequest
}

/** What is known of a request while it is under way; its observers read it when it is over. */
export interface Exchange {
  readonly id: string
  readonly startedMs: number
  /** One for each answer begun. */
  readonly traces: Trace[]
  call?: Call
  /** Who asks; absent where no key is needed. */
  key?: Key
  /** The key's count of requests does not hold this one yet. */
  uncounted?: boolean
  /** Code of the error that ended it. */
  error?: ErrorCode
}

/** A request that is over. */
export interface Completed extends Exchange {
  readonly method: string
  /** The route's pattern; `none` where nothing is served. */
  readonly route: string
  /** 499: the client left before its response was complete. */
  readonly status: number
  readonly ms: number
  readonly headers: Request['headers']
}

export type Observer = (completed: Completed) => void

/** A listener that throws ends the process, since nobody stands above it to catch. What this one throws goes to the log, or nowhere. */
export function guarded<Args extends unknown[]>({ log }: Pick<Gateway, 'log'>, doing: string, work: (...args: Args) => void) {
  return (...args: Args): void => {
    try {
      work(...args)
    } catch (err) {
      try {
        log.error({ err }, `${doing} failed`)
      } catch {
        // The log itself is what fails.
      }
    }
  }
}

// On the response itself: what a WeakMap holds outlives every minor collection of garbage, and the whole request with it.
const EXCHANGE = Symbol('exchange')
type Exchanging = Response & { [EXCHANGE]?: Exchange }

export function exchangeOf(res: Response): Exchange {
  const exchange = (res as Exchanging)[EXCHANGE]
  if (exchange === undefined) throw new Error('beginExchange must run before every route')
  return exchange
}

/** Gives the request its id (the client's `x-request-id` where it is sane) and its response the times it took; tells the observers of its end. */
export function beginExchange(gateway: Gateway, observers: readonly Observer[]): RequestHandler {
  const { limits, now } = gateway
  const watching = observers.map((observe) => guarded(gateway, 'an observer of requests', observe))
  const sane = new RegExp(`^[A-Za-z0-9._:-]{1,${limits.requestIdChars}}$`)
  return (req, res, next) => {
    const sent = req.get('x-request-id') ?? ''
    const startedMs = now()
    // The id goes into the log, to spans and into the response: a key that a client sends as one must not.
    const isTaken = sane.test(sent) && withoutKeyShapes(sent) === sent
    const exchange: Exchange = { id: isTaken ? sent : `req_${randomUUID().replaceAll('-', '')}`, startedMs, traces: [] }
    ;(res as Exchanging)[EXCHANGE] = exchange
    res.set('x-request-id', exchange.id)
    timeBeforeHeaders(res, exchange, now)
    const end = () => {
      const completed = over(req, res, exchange, now() - startedMs)
      for (const observe of watching) observe(completed)
    }
    res.once('close', guarded(gateway, 'the end of a request', end))
    next()
  }
}

/** `Server-Timing` of what has run until the headers go out, which for a stream is until its first piece. */
function timeBeforeHeaders(res: Response, { traces, startedMs }: Exchange, now: () => number): void {
  const writeHead = res.writeHead.bind(res) as (...rest: unknown[]) => Response
  res.writeHead = ((...rest: unknown[]) => {
    res.set(serverTiming(traces, now() - startedMs))
    return writeHead(...rest)
  }) as typeof res.writeHead
}

function over(req: Request, res: Response, exchange: Exchange, ms: number): Completed {
  return {
    ...exchange,
    method: req.method,
    route: typeof req.route?.path === 'string' ? req.route.path : 'none',
    status: res.writableFinished ? res.statusCode : 499,
    ms,
    headers: req.headers,
  }
}

/** The trace of one more answer to this request. */
export function beginTrace(res: Response, { now, logPrompts = false }: Pick<Gateway, 'now' | 'logPrompts'>): Trace {
  const { id, traces } = exchangeOf(res)
  const trace = new Trace(id, now)
  if (logPrompts) trace.text = []
  traces.push(trace)
  return trace
}

/** Aborted when the client goes away before its response is complete. (`req` closes as soon as its body is read, so `res` is watched.) */
export function goneSignal(res: Response): AbortSignal {
  const controller = new AbortController()
  const leave = () => {
    if (!res.writableFinished) controller.abort(new PalimpsestError('cancelled', 'The client closed the connection.'))
  }
  if (res.closed) leave()
  else res.once('close', leave)
  return controller.signal
}

/** The body of changes that need none. */
export const nothing = z.strictObject({}).optional()

export function refuseWhenClosing({ closing }: Gateway): RequestHandler {
  return (_req, _res, next) => {
    if (closing?.aborted)
      throw new PalimpsestError(
        'shutting_down',
        'The gateway is shutting down: send the request again in a moment, or to another node.',
        { retryAfterSeconds: 5 },
      )
    next()
  }
}

/** The tenant that the request's header or its key names. Throws `insufficient_permissions` where the two differ. */
export function tenantHeader(req: Request): Tenancy | undefined {
  const named = req.get('palimpsest-tenant')
  const tenant = keyOf(req)?.tenant ?? null
  if (tenant === null) return named === undefined ? undefined : { name: named, fixed: false }
  if (named !== undefined && named !== tenant) throw otherTenant(named, 'tenant')
  return { name: tenant, fixed: true }
}

/** The key that the request was let in with. */
export function keyOf({ res }: Request): Key | undefined {
  return res && (res as Exchanging)[EXCHANGE]?.key
}
