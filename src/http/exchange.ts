import { randomUUID } from 'node:crypto'
import type { Request, RequestHandler, Response } from 'express'
import { PalimpsestError } from '../errors.ts'
import type { Gateway } from '../gateway.ts'
import type { Trace } from '../trace.ts'

/** What is known of a request while it is under way; read by its log line. */
export interface Exchange {
  readonly id: string
  readonly startedMs: number
  /** One for each answer begun. */
  readonly traces: Trace[]
}

const exchanges = new WeakMap<Response, Exchange>()

export function exchangeOf(res: Response): Exchange {
  const exchange = exchanges.get(res)
  if (exchange === undefined) throw new Error('beginExchange must run before every route')
  return exchange
}

/** Gives the request its id (the client's `x-request-id` where it is sane), and writes one log line when it is over. */
export function beginExchange({ limits, now, log }: Gateway): RequestHandler {
  const sane = new RegExp(`^[A-Za-z0-9._:-]{1,${limits.requestIdChars}}$`)
  return (req, res, next) => {
    const sent = req.get('x-request-id') ?? ''
    const exchange = { id: sane.test(sent) ? sent : `req_${randomUUID().replaceAll('-', '')}`, startedMs: now(), traces: [] }
    exchanges.set(res, exchange)
    res.set('x-request-id', exchange.id)
    res.once('close', () => log.info(summary(req, res, exchange, now()), 'request'))
    next()
  }
}

/** Ids, counts and times; never text, queries or headers. */
function summary(req: Request, res: Response, { id, startedMs, traces }: Exchange, nowMs: number): object {
  const [trace] = traces
  return {
    request: id,
    method: req.method,
    route: typeof req.route?.path === 'string' ? req.route.path : 'none',
    status: res.writableFinished ? res.statusCode : 499,
    ms: Math.round((nowMs - startedMs) * 10) / 10,
    ...(trace && {
      arm: trace.arm,
      edits: trace.applied.map((applied) => applied.id),
      promptTokens: trace.promptTokens,
      stagesMs: trace.stagesMs,
    }),
  }
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

export function tenantHeader(req: Request): string | undefined {
  return req.get('palimpsest-tenant')
}
