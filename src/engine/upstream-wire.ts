import { PalimpsestError } from '../errors.ts'
import type { CallPiece, Finish, Ranked, TokenLogprob } from './engine.ts'

/** What an OpenAI-compatible server sends, read leniently: a field of another type counts as absent. Pure. */

/** One chunk of a streamed answer; null for a chunk that says nothing of interest. */
export interface Chunk {
  readonly text: string
  readonly calls: readonly CallPiece[]
  readonly tokens: readonly TokenLogprob[]
  readonly reason: Finish['reason'] | null
  readonly usage: { readonly prompt: number; readonly completion: number; readonly cached: number } | null
}

/** Throws `upstream_failed` for text that is not JSON, and for an error object sent in mid-stream. */
export function chunkOf(data: string, base: string): Chunk | null {
  const chunk = parse(data)
  if (chunk === undefined) {
    throw new PalimpsestError(
      'upstream_failed',
      `${base} sent a piece that is not JSON ("${data.slice(0, 80)}"); is it an OpenAI-compatible server?`,
    )
  }
  const error = field(chunk, 'error')
  if (error !== undefined && error !== null) {
    throw new PalimpsestError('upstream_failed', `${base} failed in the middle of its answer: ${errorText(error)}`)
  }
  const choice = field(field(chunk, 'choices'), 0)
  const text = field(field(choice, 'delta'), 'content')
  const finish = field(choice, 'finish_reason')
  const usage = usageOf(field(chunk, 'usage'))
  const reason = typeof finish !== 'string' ? null : finish === 'length' || finish === 'tool_calls' ? finish : 'stop'
  const calls = list(field(field(choice, 'delta'), 'tool_calls')).map(callOf)
  const tokens = list(field(field(choice, 'logprobs'), 'content')).map(tokenOf)
  if (typeof text !== 'string' && reason === null && usage === null && calls.length === 0 && tokens.length === 0) return null
  return { text: typeof text === 'string' ? text : '', calls, tokens, reason, usage }
}

/** Servers that forget the index of a call send one call at a time. */
function callOf(call: unknown): CallPiece {
  const [index, id, name] = [field(call, 'index'), field(call, 'id'), field(field(call, 'function'), 'name')]
  const given = field(field(call, 'function'), 'arguments')
  return {
    index: typeof index === 'number' ? index : 0,
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
  if (typeof id !== 'string')
    throw new PalimpsestError('upstream_failed', `Expected ${base}/models to list a model, but it lists none; name the model.`)
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
  if (status === 401 || status === 403) {
    return new PalimpsestError('upstream_failed', `${base} did not accept the API key: ${said}; set the upstream's key.`)
  }
  if (status === 400 || status === 413 || status === 422) {
    const param = field(error, 'param')
    const code = field(error, 'code') === 'context_length_exceeded' ? 'context_length_exceeded' : 'invalid_value'
    return new PalimpsestError(code, said, { param: typeof param === 'string' ? param : null })
  }
  return new PalimpsestError('upstream_failed', `${base} answered with status ${status}: ${said}`, detail)
}

/** No connection, or one that broke. */
export function unreachable(base: string, cause: unknown): PalimpsestError {
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
  const code = field(inner, 'code')
  const why = typeof code === 'string' ? code : inner instanceof Error ? inner.message : String(inner)
  return new PalimpsestError(
    'upstream_failed',
    `The connection to ${base} failed (${why}); check that the server runs and the URL is right.`,
    { cause },
  )
}

/** RFC 9110, section 10.2.3: a number of seconds, or a date; null for nothing of the kind. */
function retryAfterSeconds(header: string | null, epochMs: number): number | null {
  if (header === null) return null
  if (/^\d+$/.test(header.trim())) return Math.max(1, Number(header))
  const date = Date.parse(header)
  return Number.isNaN(date) ? null : Math.max(1, Math.ceil((date - epochMs) / 1000))
}

const ERROR_CHARS = 500

function errorText(error: unknown): string {
  const text = typeof error === 'string' ? error : (field(error, 'message') ?? JSON.stringify(error))
  return String(text).trim().slice(0, ERROR_CHARS)
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
