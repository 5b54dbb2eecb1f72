import { isDeepStrictEqual } from 'node:util'
import { PalimpsestError } from '../errors.ts'
import { paramOf } from './refusal.ts'

/**
 * OpenAI's fields that this gateway cannot honour, each with the values under which honouring it means doing nothing. With any other
 * value the request is refused: an ignored field would be a wrong answer that looks right. `null` always counts as absent.
 */
export type Neutral = Readonly<Record<string, readonly unknown[]>>

/** Of the 37 fields of CreateChatCompletionRequest (openai-openapi 2.3.0); `chatBody` in chat.ts reads the others. */
export const NEUTRAL: Neutral = {
  audio: [],
  frequency_penalty: [0],
  function_call: ['none'],
  functions: [[]],
  logit_bias: [{}],
  logprobs: [false],
  modalities: [['text']],
  moderation: [],
  prediction: [],
  presence_penalty: [0],
  prompt_cache_key: [],
  prompt_cache_options: [],
  prompt_cache_retention: ['in_memory'],
  reasoning_effort: ['none'],
  response_format: [{ type: 'text' }],
  safety_identifier: [],
  service_tier: ['auto', 'default'],
  store: [false],
  tool_choice: ['none'],
  tools: [[]],
  top_logprobs: [0],
  verbosity: ['medium'],
  web_search_options: [],
}

/** Fields of a message. An answer of ours or of OpenAI's, sent back as part of the conversation, carries these empty. */
export const NEUTRAL_IN_MESSAGE: Neutral = {
  annotations: [[]],
  audio: [],
  function_call: [],
  name: [],
  refusal: [],
  tool_call_id: [],
  tool_calls: [[]],
}

/**
 * `body` without nulls and without fields set to a neutral value; prototype keys stay ordinary, unknown keys.
 * Throws `unsupported_field` naming the first one that asks for more.
 */
export function strip(body: object, neutral: Neutral, path: readonly PropertyKey[] = []): Record<string, unknown> {
  const kept = Object.entries(body).filter(([field, value]) => {
    if (value === null) return false
    const allowed = Object.hasOwn(neutral, field) ? neutral[field] : undefined
    if (allowed === undefined) return true
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
