/** Our own form of a chat request. `src/wire/openai/chat.ts` makes it from the wire, once; nothing after that sees a wire name. */

export type Role = 'system' | 'user' | 'assistant' | 'tool'

export interface Message {
  readonly role: Role
  readonly content: string
  /** Which of several speakers in this role. */
  readonly name?: string
  /** What the assistant called for, in order. */
  readonly toolCalls?: readonly ToolCall[]
  /** The call that this tool message answers. */
  readonly toolCallId?: string
}

export interface ToolCall {
  readonly id: string
  readonly name: string
  /** JSON text, as the model wrote it. */
  readonly arguments: string
}

/** A function that the client offers to run. */
export interface Tool {
  readonly name: string
  readonly description?: string
  /** JSON Schema of the arguments; absent: an empty object. */
  readonly parameters?: object
  readonly strict?: boolean
  /** Where it stands in the request ("tools[0]"), for error messages. */
  readonly param: string
}

/** Tools of a request, and what an answer may do with them. Absent: there are none, or none may be called. */
export interface ToolUse {
  readonly tools: readonly Tool[]
  /** Names of those that may be called; all are shown. */
  readonly allowed: readonly string[]
  /** An answer must be a call. */
  readonly required: boolean
  /** An answer may hold several calls. */
  readonly parallel: boolean
}

/** What an answer must be: a JSON object, or JSON that is valid under `schema`. */
export type AnswerFormat =
  | { readonly kind: 'json' }
  | {
      readonly kind: 'schema'
      readonly name: string
      readonly schema: object
      readonly strict: boolean
      readonly description?: string
      /** Where the schema stands in the request, for error messages. */
      readonly param: string
    }

/** What the model name asks for: the untouched model, the one with the tenant's edits, or one adapter and the edits that it does not hold. */
export type Arm = 'base' | 'edited' | 'adapter'

/** Which of the memory's edits may be selected: those the gate finds, none, or these ids (the gate is then not asked). */
export type EditsChoice =
  | { readonly kind: 'on' }
  | { readonly kind: 'off' }
  | { readonly kind: 'only'; readonly ids: readonly string[] }

/**
 * How a question is followed that describes what it asks about ("the capital of the country where X was born"): not at all; from edit to
 * edit; or also by asking the served model for what no edit states.
 */
export const MULTI_HOP = ['off', 'chain', 'model'] as const
export type MultiHop = (typeof MULTI_HOP)[number]

export interface Sampling {
  /** 0 is greedy. */
  readonly temperature: number
  /** Nucleus mass in (0, 1]. */
  readonly topP: number
  /** Fixes sampling, and makes the engine reuse cached tokens only where that cannot change a logit. Beyond 2^53 a bigint, up to 64 bits. */
  readonly seed?: number | bigint
  /** Upper bound on generated tokens; absent: what the context still holds. */
  readonly maxTokens?: number
  readonly stop: readonly string[]
  /** Subtracted from a token's logit once per time, and once if ever, that the answer holds it already. Absent: 0. */
  readonly frequencyPenalty?: number
  readonly presencePenalty?: number
  /** Divides (a positive) or multiplies (a negative) logit of what the answer holds already. Absent: 1. */
  readonly repeatPenalty?: number
  /** Only the likeliest so many tokens; absent: all. */
  readonly topK?: number
  /** Only tokens at least this likely beside the likeliest; absent: all. */
  readonly minP?: number
  /** Added to the logits of these token ids. */
  readonly logitBias?: ReadonlyMap<number, number>
  /** Report each token's log probability, and this many of the likeliest in its place; absent: not wanted. */
  readonly logprobs?: number
  /** Absent: text. */
  readonly format?: AnswerFormat
}

/** Who asks, as far as experiments need to know; made at the rim. */
export interface Caller {
  /** Id of the answer, for the feedback on it. */
  readonly completion: string
  /** The model's name was asked for with an arm (`NAME@edited`). */
  readonly armChosen: boolean
  readonly user?: string
  /** Hash of the API key's id; made when asked for. */
  readonly keyHash?: () => string
  header(name: string): string | undefined
}

export interface ChatRequest {
  /** Served model name without the arm suffix. */
  readonly model: string
  readonly messages: readonly Message[]
  readonly arm: Arm
  /** Which one, where the arm is `adapter`. */
  readonly adapter?: string
  readonly tenant: string
  readonly edits: EditsChoice
  /** Template by name; absent: the default of the model's family. */
  readonly template?: string
  /** Only edits that carry at least one of these tags; empty: all. */
  readonly tags: readonly string[]
  /** Answer with what was held true then (milliseconds since the epoch); absent: now. */
  readonly asOf?: number
  /** Absent: as the gateway is configured. */
  readonly multiHop?: MultiHop
  /** The gate's operating point; absent: as calibrated. */
  readonly threshold?: number
  /** Batches answered as though they had never landed. */
  readonly withoutBatches?: readonly string[]
  /** Absent: asked by the gateway itself; such a request takes part in no experiment. */
  readonly caller?: Caller
  /** Put the whole trace in the response. */
  readonly explain: boolean
  readonly sampling: Sampling
  readonly tools?: ToolUse
  /** Nobody reads the answer as it comes, or counts what came of one that is broken off. */
  readonly whole?: boolean
}

/** A request to go on with a text as it stands; edits are put in front of it. */
export interface TextRequest extends Omit<ChatRequest, 'messages' | 'tools'> {
  /** The text, or its token ids. */
  readonly prompt: string | readonly number[]
  /** The answer begins with the prompt. */
  readonly echo: boolean
}

/** What a question selects edits by, cut from a ChatRequest; `POST /v1/edits/explain` makes one directly. */
export type SelectionQuery = Pick<ChatRequest, 'model' | 'messages' | 'tenant' | 'edits' | 'tags' | 'asOf'>
