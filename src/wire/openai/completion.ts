import { createHash } from 'node:crypto'
import type { CallPiece, Finish, Piece, Ranked, TokenLogprob } from '../../engine/engine.ts'
import type { ToolCall } from '../../request.ts'
import type { Considered, Trace } from '../../trace.ts'

/** What is the same in every chunk, and in the whole answer, of one request. */
export interface Heading {
  readonly id: string
  /** Seconds since the epoch. */
  readonly created: number
  /** As the client wrote it. */
  readonly model: string
  /** Changes with the weights, the device or the gateway's version: with it, a seed reproduces. */
  readonly system_fingerprint: string
  /** Only where the client asked for one. */
  readonly service_tier?: 'default'
}

export interface Answer {
  readonly text: string
  readonly calls: readonly ToolCall[]
  /** null where no log probabilities were asked for. */
  readonly tokens: readonly TokenLogprob[] | null
  readonly finish: Finish
}

/** Puts the parts of one answer together. `id` tells this answer's calls from those of others. */
export class Gathering {
  readonly #id: string
  readonly #calls: { id: string; name: string; arguments: string }[] = []
  readonly #tokens: TokenLogprob[] = []
  #text = ''

  constructor(id: string) {
    this.#id = id
  }

  add({ text, calls = [], tokens = [] }: Piece): void {
    this.#text += text
    this.#tokens.push(...tokens)
    for (const { index, id, name, arguments: given } of calls) {
      const call = this.#calls[index] ?? { id: id ?? callId(this.#id, index), name: name ?? '', arguments: '' }
      this.#calls[index] = { ...call, arguments: call.arguments + given }
    }
  }

  answer(finish: Finish, logprobs: boolean): Answer {
    return { text: this.#text, calls: this.#calls, tokens: logprobs ? this.#tokens : null, finish }
  }
}

/** Where the engine gives calls no ids: the same for the same answer, whole or streamed. */
export function callId(answer: string, index: number): string {
  return `call_${createHash('sha256').update(`${answer}/${index}`).digest('hex').slice(0, 24)}`
}

/** openai-openapi 2.3.0, CreateChatCompletionResponse, with our provenance beside it. */
export function completion(heading: Heading, answers: readonly Answer[], trace: Trace, explain: boolean) {
  return {
    ...heading,
    object: 'chat.completion',
    choices: answers.map(({ text, calls, tokens, finish }, index) => ({
      index,
      message: {
        role: 'assistant',
        content: text === '' && calls.length > 0 ? null : text,
        refusal: null,
        ...(calls.length > 0 && {
          tool_calls: calls.map(({ id, name, arguments: given }) => ({
            id,
            type: 'function',
            function: { name, arguments: given },
          })),
        }),
      },
      logprobs: tokens === null ? null : wireLogprobs(tokens),
      finish_reason: finish.reason,
    })),
    usage: usage(answers.map(({ finish }) => finish)),
    palimpsest: provenance(trace, explain),
  }
}

/** OpenAI's stand-in for "very unlikely": JSON knows no infinity. */
const LEAST_LOGPROB = -9999

export function finite(logprob: number): number {
  return Number.isFinite(logprob) ? logprob : LEAST_LOGPROB
}

function wireLogprobs(tokens: readonly TokenLogprob[]) {
  return { content: wireTokens(tokens), refusal: null }
}

export function wireTokens(tokens: readonly TokenLogprob[]) {
  const token = ({ text, bytes, logprob }: Ranked) => ({ token: text, logprob: finite(logprob), bytes })
  return tokens.map(({ top, logprob, ...rest }) => ({
    ...token({ ...rest, logprob: logprob ?? 0 }),
    top_logprobs: top.map(token),
  }))
}

export interface Delta {
  readonly role?: 'assistant'
  readonly content?: string | null
  readonly refusal?: null
  readonly tool_calls?: readonly object[]
}

/** What a part of an answer adds to a choice. `id` is the answer's. */
export function deltaOf({ text, calls = [], tokens = [] }: Piece, id: string): Delta {
  return {
    ...((text !== '' || tokens.length > 0) && { content: text }),
    ...(calls.length > 0 && { tool_calls: calls.map((call) => wireCall(call, id)) }),
  }
}

function wireCall({ index, id, name, arguments: given }: CallPiece, answer: string) {
  if (name === undefined) return { index, function: { arguments: given } }
  return { index, id: id ?? callId(answer, index), type: 'function', function: { name, arguments: given } }
}

/** openai-openapi 2.3.0, CreateChatCompletionStreamResponse. With `include_usage` every chunk but the last carries `usage: null`. */
export function chunk(
  heading: Heading,
  includeUsage: boolean,
  index: number,
  delta: Delta,
  tokens: readonly TokenLogprob[] | undefined = undefined,
  reason: Finish['reason'] | null = null,
) {
  return {
    ...heading,
    object: 'chat.completion.chunk',
    choices: [{ index, delta, logprobs: tokens === undefined ? null : wireLogprobs(tokens), finish_reason: reason }],
    ...(includeUsage && { usage: null }),
  }
}

/** Sizes of chunks are rounded up to this. */
const OBFUSCATED_CHARS = 256

/** Padded with as many of `random` as it takes, so that its size does not tell how long a word is in it. */
export function obfuscated<Chunk extends object>(
  chunk: Chunk,
  random: (chars: number) => string,
): Chunk & { obfuscation: string } {
  const chars = JSON.stringify(chunk).length
  return { ...chunk, obfuscation: random(OBFUSCATED_CHARS - (chars % OBFUSCATED_CHARS)) }
}

/** The chunk that ends a choice: it carries the provenance. */
export function finishChunk(
  heading: Heading,
  includeUsage: boolean,
  index: number,
  finish: Finish,
  trace: Trace,
  explain: boolean,
) {
  return { ...chunk(heading, includeUsage, index, {}, undefined, finish.reason), palimpsest: provenance(trace, explain) }
}

/** Sent last and only on request, with no choices. */
export function usageChunk(heading: Heading, finishes: readonly Finish[]) {
  return { ...heading, object: 'chat.completion.chunk', choices: [], usage: usage(finishes) }
}

/** The prompt is counted once however many answers it got, as OpenAI does. */
export function usage(finishes: readonly Finish[]) {
  const prompt = finishes[0]?.promptTokens ?? 0
  const completion = finishes.reduce((sum, finish) => sum + finish.completionTokens, 0)
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: finishes[0]?.cachedTokens ?? 0, audio_tokens: 0 },
    completion_tokens_details: {
      reasoning_tokens: 0,
      audio_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  }
}

/** Which edits made the answer. */
export function provenance(trace: Trace, explain: boolean) {
  return {
    arm: trace.arm,
    ...(trace.adapter !== null && { adapter: trace.adapter }),
    ...(trace.experiment !== null && { experiment: trace.experiment }),
    edits: trace.applied.map(({ id, subject, score, turn }) => ({ id, subject, score, turn })),
    template: trace.template?.name ?? null,
    memory_version: trace.memoryVersion,
    tokens_added: trace.tokensAdded,
    ...(explain && { trace: wireTrace(trace) }),
  }
}

function wireTrace(trace: Trace) {
  return {
    id: trace.id,
    turns: wireTurns(trace.turns),
    template: trace.template,
    prompt_tokens: trace.promptTokens,
    cached_tokens: trace.tokensCached,
    stages_ms: trace.stagesMs,
    route: trace.route,
    decomposition: wireDecomposition(trace.decomposition),
  }
}

export function wireDecomposition({ calls, promptTokens, completionTokens }: Trace['decomposition']) {
  return { calls, prompt_tokens: promptTokens, completion_tokens: completionTokens }
}

export function wireTurns(turns: Trace['turns']) {
  return turns.map(({ turn, cached, considered }) => ({
    turn,
    cached,
    considered: considered.map(wireConsidered),
  }))
}

function wireConsidered({ id, subject, statement, score, similarity, key, reason, outdatedBy, evidence, hop, via }: Considered) {
  return {
    id,
    subject,
    statement,
    score,
    similarity,
    key,
    reason,
    ...(outdatedBy !== undefined && { outdated_by: outdatedBy }),
    hop: hop ?? 1,
    via: via ?? null,
    evidence,
  }
}
