import { isDeepStrictEqual } from 'node:util'
import { PalimpsestError } from '../../errors.ts'
import { paramOf } from './refusal.ts'

/**
 * What is done with a field of a request: it is `honoured`; or it is `accepted`, since it asks nothing of the answer; or it cannot be
 * honoured, and is refused unless it has a value of `only`, under which honouring it means doing nothing. An ignored field would be a wrong
 * answer that looks right. `null` always counts as absent.
 */
export type Decision = 'honoured' | 'accepted' | { readonly only: readonly unknown[] }

/** All 37 fields of CreateChatCompletionRequest (openai-openapi 2.3.0). */
export const CHAT_FIELDS: Readonly<Record<string, Decision>> = {
  audio: { only: [] },
  frequency_penalty: 'honoured',
  function_call: { only: ['none'] },
  functions: { only: [[]] },
  logit_bias: 'honoured',
  logprobs: 'honoured',
  max_completion_tokens: 'honoured',
  max_tokens: 'honoured',
  messages: 'honoured',
  metadata: 'accepted',
  modalities: { only: [['text']] },
  model: 'honoured',
  moderation: { only: [] },
  n: 'honoured',
  parallel_tool_calls: 'honoured',
  prediction: 'accepted', // a guess at the answer that may make it come sooner
  presence_penalty: 'honoured',
  prompt_cache_key: 'accepted', // prefixes are cached as long as there is room, whoever asks
  prompt_cache_options: 'accepted',
  prompt_cache_retention: 'accepted',
  reasoning_effort: { only: ['none'] },
  response_format: 'honoured',
  safety_identifier: 'accepted',
  seed: 'honoured',
  service_tier: { only: ['auto', 'default'] },
  stop: 'honoured',
  store: { only: [false] },
  stream: 'honoured',
  stream_options: 'honoured',
  temperature: 'honoured',
  tool_choice: 'honoured',
  tools: 'honoured',
  top_logprobs: 'honoured',
  top_p: 'honoured',
  user: 'accepted',
  verbosity: { only: ['medium'] },
  web_search_options: { only: [] },
}

/** All 18 fields of CreateCompletionRequest. */
export const COMPLETION_FIELDS: Readonly<Record<string, Decision>> = {
  best_of: 'honoured',
  echo: 'honoured',
  frequency_penalty: 'honoured',
  logit_bias: 'honoured',
  logprobs: 'honoured',
  max_tokens: 'honoured',
  model: 'honoured',
  n: 'honoured',
  presence_penalty: 'honoured',
  prompt: 'honoured',
  seed: 'honoured',
  stop: 'honoured',
  stream: 'honoured',
  stream_options: 'honoured',
  suffix: { only: [''] },
  temperature: 'honoured',
  top_p: 'honoured',
  user: 'accepted',
}

/** All 5 fields of CreateEmbeddingRequest. */
export const EMBEDDING_FIELDS: Readonly<Record<string, Decision>> = {
  dimensions: 'honoured', // the embedder's own number; any other is refused
  encoding_format: 'honoured',
  input: 'honoured',
  model: 'honoured',
  user: 'accepted',
}

/** All 31 fields of CreateResponse. */
export const RESPONSE_FIELDS: Readonly<Record<string, Decision>> = {
  background: { only: [false] },
  context_management: { only: [[]] },
  conversation: { only: [] },
  include: 'honoured',
  input: 'honoured',
  instructions: 'honoured',
  max_output_tokens: 'honoured',
  max_tool_calls: 'accepted', // bounds calls to built-in tools, of which there are none
  metadata: 'accepted',
  model: 'honoured',
  moderation: { only: [] },
  parallel_tool_calls: 'honoured',
  previous_response_id: 'honoured',
  prompt: { only: [] },
  prompt_cache_key: 'accepted',
  prompt_cache_options: 'accepted',
  prompt_cache_retention: 'accepted',
  reasoning: 'honoured', // as far as it asks for none
  safety_identifier: 'accepted',
  service_tier: { only: ['auto', 'default'] },
  store: 'honoured',
  stream: 'honoured',
  stream_options: 'honoured',
  temperature: 'honoured',
  text: 'honoured',
  tool_choice: 'honoured',
  tools: 'honoured',
  top_logprobs: 'honoured',
  top_p: 'honoured',
  truncation: { only: ['disabled'] }, // `auto` would drop the beginning of a conversation unseen
  user: 'accepted',
}

/** Fields of a message that cannot be honoured. An answer of ours or of OpenAI's, sent back as part of the conversation, carries them empty. */
export const MESSAGE_FIELDS: Readonly<Record<string, Decision>> = {
  annotations: { only: [[]] },
  audio: { only: [] },
  function_call: { only: [] },
}

/**
 * `body` without nulls and without fields set to a neutral value; prototype keys stay ordinary, unknown keys.
 * Throws `unsupported_field` naming the first one that asks for more.
 */
export function strip(
  body: object,
  decisions: Readonly<Record<string, Decision>>,
  path: readonly PropertyKey[] = [],
): Record<string, unknown> {
  const kept = Object.entries(body).filter(([field, value]) => {
    if (value === null) return false
    const decision = Object.hasOwn(decisions, field) ? decisions[field] : undefined
    if (typeof decision !== 'object') return true
    const allowed = decision.only
    if (allowed.some((one) => isDeepStrictEqual(one, value))) return false
    throw unsupported([...path, field], allowed)
  })
  return Object.fromEntries(kept)
}

function unsupported(path: readonly PropertyKey[], allowed: readonly unknown[]): PalimpsestError {
  const param = paramOf(path)
  const remedy =
    allowed.length === 0
      ? 'Leave it out'
      : `Leave it out, or set it to ${allowed.map((value) => JSON.stringify(value)).join(' or ')}`
  return new PalimpsestError(
    'unsupported_field',
    `\`${param}\` is not supported by this gateway, which would otherwise have to ignore it. ${remedy}.`,
    { param },
  )
}
