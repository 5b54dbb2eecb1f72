import { PalimpsestError } from '../../errors.ts'
import type { Sampling } from '../../request.ts'
import { CALL, CALL_END } from '../format/tool-format.ts'

/** What llama-server's `/completion` is sent and sends (llama.cpp, tools/server/README.md). Pure. */

export interface ServerShape {
  readonly modelPath: string
  readonly slots: number
  /** Per slot. */
  readonly contextTokens: number
  readonly threads: number
  readonly gpu: boolean
  /** Paths of adapters, which no request uses unless it says so. */
  readonly loras?: readonly string[]
}

/** Tokens of a prompt evaluated at a time: for so long do the other slots' answers stand still. */
const BATCH_TOKENS = 256

/** llama-server's arguments, all but the address. */
export function serverArgs({ modelPath, slots, contextTokens, threads, gpu, loras = [] }: ServerShape): string[] {
  const values = {
    '--model': modelPath,
    '--ctx-size': slots * contextTokens,
    '--parallel': slots,
    '--threads': threads,
    '--threads-batch': threads,
    '--batch-size': BATCH_TOKENS,
    '--ubatch-size': BATCH_TOKENS,
    '--cache-ram': 0, // it would keep up to 8 GiB of former conversations
    '--fit': 'off', // memory was looked at before
    '--verbosity': 1,
    ...(gpu ? {} : { '--n-gpu-layers': 0 }),
    ...(loras.length === 0 ? {} : { '--lora': loras.map(csvField).join(',') }),
  }
  // Slots that share no cells: what one computes does not depend on how full the others are.
  const switches = [
    ...['--no-kv-unified', '--no-context-shift', '--no-ui'],
    ...(loras.length === 0 ? [] : ['--lora-init-without-apply']),
  ]
  return [...Object.entries(values).flatMap(([name, value]) => [name, String(value)]), ...switches]
}

/** llama.cpp reads a list of paths as a row of comma-separated values. */
function csvField(path: string): string {
  return /[",]/.test(path) ? `"${path.replaceAll('"', '""')}"` : path
}

/** An adapter of those the server was started with, by its position there. */
export interface LoraScale {
  readonly id: number
  readonly scale: number
}

export interface CompletionAsked {
  readonly tokens: readonly number[]
  readonly slot: number
  readonly limit: number
  readonly seed: number
  readonly sampling: Sampling
  readonly grammar: string | null
  readonly loras: readonly LoraScale[] | null
  /** What the slot cached may be reused; it must not where that was computed under another adapter. */
  readonly reuse: boolean
}

/** The fields of the last event that are read; the others repeat the whole prompt and every setting. */
const LAST_FIELDS = ['stop', 'stop_type', 'tokens_predicted', 'timings/cache_n']

/**
 * The prompt goes as token ids, so that nothing in it can turn into a special token. A request with a seed takes nothing from the cache:
 * then its batches have the same shapes every time.
 */
export function completionBody({ tokens, slot, limit, seed, sampling, grammar, loras, reuse }: CompletionAsked): object {
  return {
    prompt: tokens,
    id_slot: slot,
    cache_prompt: reuse && sampling.seed === undefined,
    n_predict: limit,
    stream: true,
    // A sign of life, and of being read, after each piece of a long prompt.
    return_progress: true,
    response_fields: LAST_FIELDS,
    seed,
    ...samplers(sampling),
    ...(grammar !== null && { grammar }),
    preserved_tokens: TAGS,
    ...(sampling.logitBias === undefined ? {} : { logit_bias: [...sampling.logitBias] }),
    ...(loras === null ? {} : { lora: loras }),
  }
}

/** The embedded engine's order. Greedy: the best one alone, without a softmax over the whole vocabulary. */
function samplers({ temperature, topK, topP, minP }: Sampling): object {
  if (temperature === 0) return { samplers: ['top_k'], top_k: 1 }
  return {
    samplers: [...(topK === undefined ? [] : ['top_k']), 'top_p', ...(minP === undefined ? [] : ['min_p']), 'temperature'],
    ...(topK !== undefined && { top_k: topK }),
    ...(minP !== undefined && { min_p: minP }),
    top_p: topP,
    temperature,
  }
}

/** Shown where the vocabulary has them as control tokens. */
const TAGS = [CALL, CALL_END]

/** One event of the answer. */
export type CompletionEvent =
  | { readonly kind: 'progress'; readonly cached: number }
  | { readonly kind: 'text'; readonly text: string; readonly tokens: number }
  | { readonly kind: 'end'; readonly reason: 'stop' | 'length'; readonly tokens: number }

interface Wire {
  readonly content?: string
  readonly stop?: boolean
  readonly stop_type?: string
  readonly tokens_predicted?: number
  readonly prompt_progress?: { readonly cache?: number }
  readonly error?: unknown
}

/** `tokens` counts those generated so far, without the one that ends the answer. Throws `engine_failed` for what is no such event. */
export function completionEvent(data: string): CompletionEvent {
  const event = parsed(data)
  if (event === null || event.error !== undefined) throw serverFailed(data)
  if (event.prompt_progress !== undefined) return { kind: 'progress', cached: event.prompt_progress.cache ?? 0 }
  const tokens = event.tokens_predicted ?? 0
  if (event.stop !== true) return { kind: 'text', text: event.content ?? '', tokens }
  const ended = event.stop_type === 'eos'
  return { kind: 'end', reason: ended || event.stop_type === 'word' ? 'stop' : 'length', tokens: ended ? tokens - 1 : tokens }
}

const SHOWN_CHARS = 300

export function serverFailed(said: string, cause?: unknown): PalimpsestError {
  const error = parsed(said)?.error
  const message = typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : said
  return new PalimpsestError(
    'engine_failed',
    `The model failed while evaluating the prompt or answer (${message.slice(0, SHOWN_CHARS)}); try the request again.`,
    { cause },
  )
}

function parsed(data: string): Wire | null {
  try {
    const value: unknown = JSON.parse(data)
    return typeof value === 'object' && value !== null ? value : null
  } catch {
    return null
  }
}
