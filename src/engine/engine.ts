import type { Message, Sampling } from '../request.ts'
import type { Trace } from '../trace.ts'

/** Families whose chat format we write token by token; `upstream` leaves it to the server behind. */
export type Family = 'llama2' | 'chatml' | 'upstream' | 'scripted'

export interface ModelInfo {
  /** The name on the wire. */
  readonly name: string
  readonly family: Family
  readonly contextTokens: number
  /** "cpu", "cuda", "metal", "vulkan" or "remote". */
  readonly device: string
  readonly threads: number
  /** sha256 of the model file, hex; null where there is no file. */
  readonly sha256: string | null
}

/** A conversation ready for the model: edits are already rendered into its user turns. */
export interface Prompt {
  readonly messages: readonly Message[]
}

export interface Finish {
  readonly reason: 'stop' | 'length'
  readonly promptTokens: number
  readonly completionTokens: number
  /** Prompt tokens taken from a slot's cache instead of being evaluated. */
  readonly cachedTokens: number
}

/** The exact prompt: its text with special tokens written out, and its token ids (empty for an upstream). */
export interface Inspection {
  readonly text: string
  readonly tokens: readonly number[]
}

export interface Load {
  readonly slots: number
  readonly busy: number
  readonly queued: number
  readonly queueLimit: number
}

export interface Engine {
  readonly model: ModelInfo
  /**
   * Yields text in pieces that concatenate to the answer: never half a character, never any part of a stop string. Returns how it ended.
   * Throws `queue_full` (with retryAfterSeconds) before the first piece when the queue is full, `context_length_exceeded` when prompt
   * and at least one token do not fit; throws `signal.reason` within one token, or one prefill piece, of an abort, in the queue too.
   * Writes queue, prefill and decode milliseconds, promptTokens and tokensCached to the trace.
   */
  generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<string, Finish>
  inspect(prompt: Prompt): Inspection
  countTokens(prompt: Prompt): number
  load(): Load
  /** A scorer over this model; absent where probabilities can't be seen. Close it before the engine. */
  openScorer?(): Promise<Scorer>
  /** Stops taking requests, lets the running ones end for at most `graceMs`, frees the model. */
  close(graceMs: number): Promise<void>
}

/** How one token of a given continuation fared. */
export interface TokenScore {
  /** Natural logarithm of its probability, given all before it. */
  readonly logProbability: number
  /** The token the model would have put here: the argmax. */
  readonly best: number
  /** Whether that is the token itself. */
  readonly hit: boolean
}

/**
 * Teacher forcing on raw text: no chat template, no sampling. The same (prompt, continuation) gives the same numbers, whatever was
 * scored before it. One call at a time.
 */
export interface Scorer {
  /**
   * Scores of each continuation's tokens after `prompt`, which is evaluated once. A continuation brings its own leading space. Its tokens
   * are those that "prompt + continuation" has beyond what it shares with "prompt" alone.
   * Throws `context_length_exceeded`.
   */
  score(prompt: string, continuations: readonly string[]): Promise<readonly (readonly TokenScore[])[]>
  close(): Promise<void>
}

/** Texts to unit vectors (Float32Array of `dimensions`), in order. `priority` 'query' overtakes 'import'. */
export interface Embedder {
  readonly name: string
  readonly dimensions: number
  readonly maxTokens: number
  /** Tokens of a text, special ones included; of one that is far too long, some number above `maxTokens`. Absent where nobody is told how many there are. */
  countTokens?(text: string): Promise<number>
  embed(texts: readonly string[], priority: 'query' | 'import', signal?: AbortSignal): Promise<Float32Array[]>
  close(): Promise<void>
}
