import type { Finish } from '../engine/engine.ts'
import type { Considered, Trace } from '../trace.ts'

/** What is the same in every chunk, and in the whole answer, of one request. */
export interface Heading {
  readonly id: string
  /** Seconds since the epoch. */
  readonly created: number
  /** As the client wrote it. */
  readonly model: string
  /** Changes with the weights, the device or the gateway's version: with it, a seed reproduces. */
  readonly system_fingerprint: string
}

export interface Answer {
  readonly text: string
  readonly finish: Finish
}

/** openai-openapi 2.3.0, CreateChatCompletionResponse, with our provenance beside it. */
export function completion(heading: Heading, answers: readonly Answer[], trace: Trace, explain: boolean) {
  return {
    ...heading,
    object: 'chat.completion',
    choices: answers.map(({ text, finish }, index) => ({
      index,
      message: { role: 'assistant', content: text, refusal: null },
      logprobs: null,
      finish_reason: finish.reason,
    })),
    usage: usage(answers.map(({ finish }) => finish)),
    palimpsest: provenance(trace, explain),
  }
}

export interface Delta {
  readonly role?: 'assistant'
  readonly content?: string
  readonly refusal?: null
}

/** openai-openapi 2.3.0, CreateChatCompletionStreamResponse. With `include_usage` every chunk but the last carries `usage: null`. */
export function chunk(
  heading: Heading,
  includeUsage: boolean,
  index: number,
  delta: Delta,
  reason: Finish['reason'] | null = null,
) {
  return {
    ...heading,
    object: 'chat.completion.chunk',
    choices: [{ index, delta, logprobs: null, finish_reason: reason }],
    ...(includeUsage && { usage: null }),
  }
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
  return { ...chunk(heading, includeUsage, index, {}, finish.reason), palimpsest: provenance(trace, explain) }
}

/** Sent last and only on request, with no choices. */
export function usageChunk(heading: Heading, finishes: readonly Finish[]) {
  return { ...heading, object: 'chat.completion.chunk', choices: [], usage: usage(finishes) }
}

/** The prompt is counted once however many answers it got, as OpenAI does. */
function usage(finishes: readonly Finish[]) {
  const prompt = finishes[0]?.promptTokens ?? 0
  const completion = finishes.reduce((sum, finish) => sum + finish.completionTokens, 0)
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: finishes[0]?.cachedTokens ?? 0 },
  }
}

/** Which edits made the answer. */
function provenance(trace: Trace, explain: boolean) {
  return {
    arm: trace.arm,
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
  return turns.map(({ turn, cached, asked, considered }) => ({
    turn,
    cached,
    asked: asked ?? null,
    considered: considered.map(wireConsidered),
  }))
}

function wireConsidered({ id, subject, statement, score, similarity, reason, outdatedBy, evidence, hop, via }: Considered) {
  return {
    ...{ id, subject, statement, score, similarity, reason },
    ...(outdatedBy !== undefined && { outdated_by: outdatedBy }),
    ...{ hop: hop ?? 1, via: via ?? null, evidence },
  }
}
