import { type ErrorDetail, PalimpsestError } from '../../errors.ts'
import type { CallPiece, Finish, Ranked, TokenLogprob } from '../engine.ts'

/** What an OpenAI-compatible server sends, read leniently: a field of another type counts as absent. Pure. */

/** What one server may cost us. */
const CALLS = 128
const RETRY_AFTER_SECONDS = 600
const ERROR_CHARS = 500
const PARAM_CHARS = 200

/** A part of a call as the server counts calls; null where it does not. */
type CountedCall = Omit<CallPiece, 'index'> & { readonly index: number | null }

/**
 * A fault of a server's. The message is for whoever asked, and may quote the server; `state` says what happened in our words alone, for
 * everybody else: what a server says may quote somebody's prompt.
 */
export class UpstreamFault extends PalimpsestError {
  readonly state: string

  constructor(base: string, state: string, said = '', detail: ErrorDetail = {}) {
    super('upstream_failed', said === '' ? `${base} ${state}.` : `${base} ${state}: ${said}`, detail)
    this.state = state
  }
}

/** No answer came, or none in time; of all other faults an answer is the cause, which one conversation alone may have brought about. */
export class UpstreamSilence extends UpstreamFault {}

/** One chunk of a streamed answer; null for a chunk that says nothing of interest. */
export interface Chunk {
  readonly text: string
  readonly calls: readonly CountedCall[]
  readonly tokens: readonly TokenLogprob[]
  readonly reason: Finish['reason'] | null
  readonly usage: { readonly prompt: number; readonly completion: number; readonly cached: number } | null
}

/** Throws `upstream_failed` for text that is not JSON, and for an error object sent in mid-stream. */
export function chunkOf(data: string, base: string): Chunk | null {
  const chunk = parse(data)
  if (chunk === undefined)
    throw new UpstreamFault(base, 'sent a piece that is not JSON', `"${data.slice(0, 80)}"; is it an OpenAI-compatible server?`)
  const error = errorIn(chunk)
  if (error !== undefined) throw new UpstreamFault(base, 'failed in the middle of its answer', errorText(error))
  return partOf(chunk, 'delta')
}

/** A whole answer, as one part. Throws `upstream_failed` for text that is not JSON, and for an error object. */
export function answerOf(body: string, base: string): Chunk | null {
  const answer = parse(body)
  if (answer === undefined)
    throw new UpstreamFault(base, 'sent an answer that is not JSON', `"${body.slice(0, 80)}"; is it an OpenAI-compatible server?`)
  const error = errorIn(answer)
  if (error !== undefined) throw new UpstreamFault(base, 'answered with an error', errorText(error))
  return partOf(answer, 'message')
}

function partOf(chunk: unknown, key: 'delta' | 'message'): Chunk | null {
  const choice = field(field(chunk, 'choices'), 0)
  const said = field(choice, key)
  const text = field(said, 'content')
  const finish = field(choice, 'finish_reason')
  const usage = usageOf(field(chunk, 'usage'))
  const reason = typeof finish !== 'string' ? null : finish === 'length' || finish === 'tool_calls' ? finish : 'stop'
  const calls = list(field(said, 'tool_calls')).map(callOf)
  const tokens = list(field(field(choice, 'logprobs'), 'content')).map(tokenOf)
  if (typeof text !== 'string' && reason === null && usage === null && calls.length === 0 && tokens.length === 0) return null
  return { text: typeof text === 'string' ? text : '', calls, tokens, reason, usage }
}

/** OpenAI's error, or vLLM's of old, in what came with a good status. */
function errorIn(value: unknown): unknown {
  return field(value, 'object') === 'error' ? value : (field(value, 'error') ?? undefined)
}

/** What a server says that was asked for a stream, and answers well with a whole document: an error, mostly. */
export function unstreamed(body: string, base: string): UpstreamFault {
  const error = errorIn(parse(body))
  return error === undefined
    ? new UpstreamFault(base, 'did not stream its answer')
    : new UpstreamFault(base, 'answered with an error', errorText(error))
}

/**
 * Places of the calls of one answer, from 0 on without a gap, whatever the server counts them by. A piece with another id and a name begins
 * a call; where there is no index, so does a name that comes without an id, since such servers send one call at a time.
 */
export class CallPlaces {
  readonly #base: string
  readonly #begun: (string | undefined)[] = []
  readonly #at = new Map<number, number>()

  constructor(base: string) {
    this.#base = base
  }

  /** Throws `upstream_failed` where there are too many. */
  place({ index, ...piece }: CountedCall): CallPiece {
    const held = index === null ? this.#begun.length - 1 : (this.#at.get(index) ?? -1)
    const { id, name } = piece
    const other = name !== undefined && (id === undefined ? index === null : id !== this.#begun[held])
    const at = held === -1 || other ? this.#begun.length : held
    if (at >= CALLS) throw new UpstreamFault(this.#base, `sent more than ${CALLS} calls`)
    if (at === this.#begun.length) this.#begun.push(id)
    if (index !== null) this.#at.set(index, at)
    return { index: at, ...piece }
  }
}

function callOf(call: unknown): CountedCall {
  const [index, id, name] = [field(call, 'index'), field(call, 'id'), field(field(call, 'function'), 'name')]
  const given = field(field(call, 'function'), 'arguments')
  return {
    index: count(index),
    ...(typeof name === 'string' && { name }),
    ...(typeof id === 'string' && id !== '' && { id }),
    arguments: typeof given === 'string' ? given : '',
  }
}

function tokenOf(token: unknown): TokenLogprob {
  return { ...rankedOf(token), top: list(field(token, 'top_logprobs')).map(rankedOf) }
}

function rankedOf(token: unknown): Ranked {
  const [text, logprob, bytes] = [field(token, 'token'), field(token, 'logprob'), field(token, 'bytes')]
  return {
    text: typeof text === 'string' ? text : '',
    logprob: typeof logprob === 'number' ? logprob : Number.NEGATIVE_INFINITY,
    bytes: Array.isArray(bytes) && bytes.every((byte) => typeof byte === 'number') ? bytes : null,
  }
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

/** Budgets and metrics count with what is said here: whole numbers from 0 on, as far as they are exact; else nothing was said. */
function count(value: unknown): number | null {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : null
}

function usageOf(usage: unknown): Chunk['usage'] {
  const [prompt, completion] = [count(field(usage, 'prompt_tokens')), count(field(usage, 'completion_tokens'))]
  if (prompt === null || completion === null) return null
  return { prompt, completion, cached: count(field(field(usage, 'prompt_tokens_details'), 'cached_tokens')) ?? 0 }
}

/** The first of `/models`, and vLLM's context length where it says one. */
export function firstModel(list: unknown, base: string): { readonly id: string; readonly contextTokens: number | null } {
  const entry = field(field(list, 'data'), 0)
  const id = field(entry, 'id')
  if (typeof id !== 'string') throw new UpstreamFault(base, 'lists no model under /models; name the model')
  return { id, contextTokens: count(field(entry, 'max_model_len')) || null }
}

/** The server's refusal as an error of ours. `epochMs`: now. */
export function refusal(status: number, retryAfter: string | null, body: string, base: string, epochMs: number): PalimpsestError {
  const error = field(parse(body), 'error')
  const said = errorText(error ?? body) || `status ${status}`
  const seconds = retryAfterSeconds(retryAfter, epochMs)
  const detail = seconds === null ? {} : { retryAfterSeconds: seconds }
  if (status === 429)
    return new PalimpsestError('queue_full', `${base} is too busy: ${said}`, { retryAfterSeconds: seconds ?? 1 })
  // What is said of a key may hold the key.
  if (status === 401 || status === 403)
    return new UpstreamFault(base, `did not accept the API key (status ${status}); set the upstream's key`)
  if (status === 400 || status === 413 || status === 422) {
    const param = field(error, 'param')
    const code = field(error, 'code') === 'context_length_exceeded' ? 'context_length_exceeded' : 'invalid_value'
    return new PalimpsestError(code, said, { param: typeof param === 'string' ? param.slice(0, PARAM_CHARS) : null })
  }
  return new UpstreamFault(base, `answered with status ${status}`, said, detail)
}

/** No connection, or one that broke. */
export function unreachable(base: string, cause: unknown): PalimpsestError {
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
  const code = field(inner, 'code')
  const isKnown = typeof code === 'string' && !code.startsWith('UND_ERR')
  const why = isKnown ? code : inner instanceof Error ? inner.message : String(inner)
  const state = `could not be asked, since the connection failed (${why}); check that the server runs and the URL is right`
  return new UpstreamSilence(base, state, '', { cause })
}

/** RFC 9110, section 10.2.3: a number of seconds, or a date; null for nothing of the kind. No server is left alone for longer than ours. */
function retryAfterSeconds(header: string | null, epochMs: number): number | null {
  if (header === null) return null
  const seconds = /^\d+$/.test(header.trim()) ? Number(header) : Math.ceil((Date.parse(header) - epochMs) / 1000)
  return Number.isNaN(seconds) ? null : Math.min(RETRY_AFTER_SECONDS, Math.max(1, seconds))
}

function errorText(error: unknown): string {
  const said = typeof error === 'string' ? error : (field(error, 'message') ?? error)
  const text = typeof said === 'string' ? said : (JSON.stringify(said) ?? '')
  return text.trim().slice(0, ERROR_CHARS)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function field(value: unknown, key: string | number): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string | number, unknown>)[key] : undefined
}
