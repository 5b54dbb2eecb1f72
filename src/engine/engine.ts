import type { Message, Sampling, ToolUse } from '../request.ts'
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
  readonly tools?: ToolUse
  /** Answered through this adapter; absent: by the model as it is. */
  readonly lora?: Lora
  /** Nobody reads the answer as it comes: it may come in one part. */
  readonly whole?: boolean
}

/** A GGUF LoRA file, and how strongly it is applied. */
export interface Lora {
  readonly id: string
  readonly path: string
  /** Of the file, hex. */
  readonly sha256: string
  readonly bytes: number
  /** 0: not at all. */
  readonly scale: number
}

/** Adapters over a model. They are loaded when first asked for. */
export interface LoraEngine {
  /** Reads a file's header; throws `adapter_mismatch`, saying what was expected and what came, where it is not for this model. */
  check(path: string): Promise<{ readonly architecture: string; readonly rank: number; readonly bytes: number }>
  /** sha256 of the model file, hex. */
  baseSha256(): Promise<string>
  /** The model file; absent where there is none to be read. */
  readonly basePath?: string
  load(lora: Lora): Promise<void>
  /** Frees it once the answers that use it have ended. */
  unload(lora: Pick<Lora, 'sha256'>): Promise<void>
  loaded(lora: Pick<Lora, 'sha256'>): boolean
}

/** Text to be gone on with as it stands, without a chat format. */
export interface TextPrompt {
  /** Written before the client's own text and, like an edit, tokenized plainly; it is never echoed. */
  readonly before: string
  /** The client's text, in which control words are control tokens, or its token ids. */
  readonly text: string | readonly number[]
  /** The answer begins with the client's text, and its tokens where `logprobs` are wanted. */
  readonly echo: boolean
  readonly lora?: Lora
}

/** A part of an answer. Texts of all parts concatenate to its text, `arguments` of one call to that call's arguments. */
export interface Piece {
  readonly text: string
  /** Parts of tool calls; the first of each call carries its name. */
  readonly calls?: readonly CallPiece[]
  /** Where the request wants log probabilities: the tokens that this part completes. */
  readonly tokens?: readonly TokenLogprob[]
}

export interface CallPiece {
  /** Place of the call among the calls of this answer. */
  readonly index: number
  readonly name?: string
  /** Beside the name, where the engine knows one. */
  readonly id?: string
  readonly arguments: string
}

/** A token, and its natural log probability before temperature, penalties, biases and any grammar. */
export interface Ranked {
  /** Half a character is U+FFFD here, and exact in `bytes`. */
  readonly text: string
  readonly bytes: readonly number[] | null
  readonly logprob: number
}

export interface TokenLogprob extends Omit<Ranked, 'logprob'> {
  /** null for a first token, which nothing comes before. */
  readonly logprob: number | null
  /** The likeliest in its place, best first. */
  readonly top: readonly Ranked[]
}

export interface Finish {
  readonly reason: 'stop' | 'length' | 'tool_calls'
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

/** What stands behind an engine that does not evaluate in this process: a server of ours, or others'. */
export interface Backend {
  /** Host and port, or "llama-server". */
  readonly name: string
  readonly state: 'starting' | 'up' | 'restarting' | 'closed' | 'paused' | 'open' | 'half-open'
  readonly busy: number
  /** In a row, or in all for a server that we start ourselves. */
  readonly faults: number
  readonly lastFault: string | null
  readonly weight?: number
}

export interface Engine {
  readonly model: ModelInfo
  /**
   * Yields the answer in parts: never half a character, never any part of a stop string. Returns how it ended.
   * Throws `unsupported_field` or `invalid_value` naming the field for a schema or a bias that it cannot honour; `queue_full` (with
   * retryAfterSeconds) before the first piece when the queue is full, `context_length_exceeded` when prompt
   * and at least one token do not fit; throws `signal.reason` within one token, or one prefill piece, of an abort, in the queue too.
   * Writes queue, prefill and decode milliseconds, promptTokens and tokensCached to the trace.
   */
  generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish>
  inspect(prompt: Prompt): Inspection
  countTokens(prompt: Prompt): number
  load(): Load
  /** Absent, or none, where the model is in this process. */
  backends?(): readonly Backend[]
  /** Completion of plain text; absent where it can't be had. */
  readonly text?: TextEngine
  /** Absent where the model is a server's, or takes no adapters. */
  readonly loras?: LoraEngine
  /** A scorer over this model, or through an adapter; absent where probabilities can't be seen. Close it before the engine. */
  openScorer?(lora?: Lora): Promise<Scorer>
  /** Stops taking requests, lets the running ones end for at most `graceMs`, frees the model. */
  close(graceMs: number): Promise<void>
}

/** An engine over a model file of this machine. */
export type OwnEngine = Engine & Required<Pick<Engine, 'text' | 'loras' | 'openScorer'>>

export interface TextEngine {
  /** As `generate`. With `echo`, `maxTokens` may be 0. */
  complete(prompt: TextPrompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish>
  /** Throws `invalid_value` where an id is no token. */
  detokenize(tokens: readonly number[]): string
  /** Token ids of a text as `complete` reads it: control words are control tokens, and what a vocabulary puts before every text is left out. */
  tokenize(text: string): readonly number[]
  /** The vocabulary's marks, as text; `opens`: the first of them stands before every text. */
  readonly marks: { readonly bos: string | null; readonly eos: string | null; readonly opens: boolean }
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

/** Reads (the end of a conversation, an edit) and says whether the edit is needed: natural log-odds, one for each pair, in order. */
export interface PairReader {
  readonly name: string
  read(pairs: readonly TextPair[], priority: 'query' | 'import', signal?: AbortSignal): Promise<Float32Array>
  close(): Promise<void>
}

export type TextPair = readonly [text: string, edit: string]
