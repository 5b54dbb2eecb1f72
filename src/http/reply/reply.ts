import { createHash, randomBytes, randomUUID } from 'node:crypto'
import type { Response } from 'express'
import type { Finish, Piece } from '../../engine/engine.ts'
import type { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import type { Sampling } from '../../request.ts'
import type { ReplyOptions } from '../../wire/openai/chat.ts'
import type { Heading } from '../../wire/openai/completion.ts'
import { presentable } from '../../wire/openai/error.ts'
import { exchangeOf } from '../request/request-context.ts'
import { provenanceHeaders, serverTiming } from './provenance.ts'
import { EventStream } from './sse.ts'

/** Runs a generation to its end, one part at a time; closes it if `take` fails or the client leaves. */
export async function drive(
  pieces: AsyncGenerator<Piece, Finish>,
  signal: AbortSignal,
  take: (piece: Piece) => void | Promise<void>,
): Promise<Finish> {
  try {
    for (;;) {
      const { done, value } = await pieces.next()
      if (done) return value
      await take(value)
      signal.throwIfAborted()
    }
  } finally {
    await pieces.return(undefined as never)
  }
}

/** With a seed, the answers of one request differ but each is reproducible. */
export function choice<Request extends { readonly sampling: Sampling }>(request: Request, index: number): Request {
  const { seed } = request.sampling
  if (seed === undefined || index === 0) return request
  const next = (BigInt(seed) + BigInt(index)) % 2n ** 64n
  return { ...request, sampling: { ...request.sampling, seed: next > Number.MAX_SAFE_INTEGER ? next : Number(next) } }
}

export function headingOf(prefix: string, { model, tier }: Pick<ReplyOptions, 'model' | 'tier'>, gateway: Gateway): Heading {
  return {
    id: `${prefix}-${randomUUID().replaceAll('-', '')}`,
    created: Math.floor(gateway.now() / 1000),
    model,
    system_fingerprint: fingerprint(gateway, model.replace(/@[^@]*$/, '')),
    ...(tier && { service_tier: 'default' }),
  }
}

/** Of each gateway, by the names of its models. */
const fingerprints = new WeakMap<Gateway, Map<string, string>>()

/** `name`: of a model that is served, so that there are few. */
function fingerprint(gateway: Gateway, name: string): string {
  const known = fingerprints.get(gateway) ?? new Map<string, string>()
  fingerprints.set(gateway, known)
  const made = known.get(name) ?? newFingerprint(gateway, name)
  known.set(name, made)
  return made
}

function newFingerprint({ engine, version }: Gateway, name: string): string {
  const { sha256, device } = engine.model
  const hash = createHash('sha256').update(JSON.stringify([name, sha256, device, version]))
  return `fp_${hash.digest('hex').slice(0, 10)}`
}

/** Which edits made the first answer; `Server-Timing` is added to every response. */
export function replyHeaders(res: Response, { limits }: Gateway): Record<string, string> {
  const [first] = exchangeOf(res).traces
  return first ? provenanceHeaders(first, limits.headerEdits) : {}
}

/** A stream whose headers carry the provenance as it is known at its first event, and whose trailer has the times of all stages. */
export function openEvents(res: Response, gateway: Gateway): EventStream {
  const { traces, startedMs } = exchangeOf(res)
  const { heartbeatMs, stalledMs } = gateway.limits
  return new EventStream(res, {
    heartbeatMs,
    stalledMs,
    headers: () => replyHeaders(res, gateway),
    trailers: () => serverTiming(traces, gateway.now() - startedMs),
  })
}

/** What ends a stream early, noted in the log and in the exchange. */
export function failure(thrown: unknown, res: Response, { log }: Gateway): PalimpsestError {
  const error = presentable(thrown)
  const exchange = exchangeOf(res)
  exchange.error = error.code
  log.error({ request: exchange.id, code: error.code, err: thrown }, 'stream failed')
  return error
}

/** Streams what `write` sends, and `[DONE]`; or, where it fails after the first event, an error event. */
export async function streaming(
  res: Response,
  gateway: Gateway,
  signal: AbortSignal,
  write: (events: EventStream) => Promise<void>,
): Promise<void> {
  const events = openEvents(res, gateway)
  try {
    await write(events)
    await events.done()
  } catch (thrown) {
    events.stop()
    if (!events.opened || signal.aborted) throw thrown
    await events.fail(failure(thrown, res, gateway))
  }
}
export function randomText(chars: number): string {
  return randomBytes(chars).toString('base64url').slice(0, chars)
}
