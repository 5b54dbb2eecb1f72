import { z } from 'zod'
import { PalimpsestError } from '../errors.ts'
import type { Limits } from '../gateway.ts'
import type { ChatRequest, Message, Role, Sampling } from '../request.ts'
import { NEUTRAL, NEUTRAL_IN_MESSAGE, strip } from './fields.ts'
import { modelAsked } from './models.ts'
import { check, fault } from './refusal.ts'
import { selectionFields, text, toSelection } from './selection.ts'

/** A chat request as read from the wire: ours, and what only the reply needs. */
export interface ChatCall {
  readonly request: ChatRequest
  /** The model name as the client wrote it, to be echoed. */
  readonly model: string
  /** Answers asked for. */
  readonly n: number
  readonly stream: boolean
  readonly includeUsage: boolean
  /** The request's `user`, as experiments may keep it in one arm. */
  readonly user?: string
}

/** What the gateway serves at the moment of a request. */
export interface Served {
  readonly model: string
  readonly templates: readonly string[]
}

export type ChatReader = (body: unknown, tenantHeader: string | undefined, served: Served) => ChatCall

/**
 * Reads the body of `POST /v1/chat/completions` (openai-openapi 2.3.0, CreateChatCompletionRequest) and our `palimpsest` extension.
 * Throws a PalimpsestError that names the first faulty field in `param`.
 */
export function chatReader(limits: Limits): ChatReader {
  const schema = chatBody(limits)
  return (body, tenantHeader, served) => {
    const fields = check(schema, tidy(body))
    const { palimpsest = {}, stream = false } = fields
    if (fields.stream_options !== undefined && !stream) {
      throw new PalimpsestError('invalid_value', '`stream_options` is only allowed when `stream` is true.', {
        param: 'stream_options',
      })
    }
    const { name, arm } = modelAsked(fields.model, served.model)
    const request: ChatRequest = {
      ...toSelection(palimpsest, tenantHeader, served.templates, 'palimpsest.'),
      model: name,
      arm,
      messages: toMessages(fields.messages),
      explain: palimpsest.explain ?? false,
      sampling: toSampling(fields, limits),
    }
    const includeUsage = fields.stream_options?.include_usage ?? false
    const { model, n = 1, user } = fields
    return { request, model, n, stream, includeUsage, ...(user !== undefined && { user }) }
  }
}

type Fields = z.output<ReturnType<typeof chatBody>>
type Messages = Fields['messages']

function chatBody(limits: Limits) {
  const stop = text.min(1).max(limits.stopChars)
  const stops = {
    error: `a non-empty string or an array of up to ${limits.stops} of them, each at most ${limits.stopChars} characters long`,
  }
  return z.strictObject({
    model: z.string(),
    messages: messagesField(limits),
    temperature: z.number().min(0).max(2).optional(),
    top_p: z.number().gt(0).max(1).optional(),
    seed: z.int().optional(),
    max_tokens: z.int().min(1).optional(),
    max_completion_tokens: z.int().min(1).optional(),
    stop: z.union([stop, z.array(stop).max(limits.stops)], stops).optional(),
    n: z.int().min(1).max(limits.choices).optional(),
    stream: z.boolean().optional(),
    stream_options: z.strictObject({ include_usage: z.boolean().optional() }).optional(),
    // These ask nothing of the answer: labels for a provider's own records, and a switch for tools, of which there are none.
    user: z.string().optional(),
    metadata: z.record(z.string().max(64), z.string().max(512)).optional(),
    parallel_tool_calls: z.boolean().optional(),
    palimpsest: z.strictObject({ ...selectionFields(limits), explain: z.boolean().optional() }).optional(),
  })
}

const ROLES: Readonly<Record<string, Role>> = { system: 'system', developer: 'system', user: 'user', assistant: 'assistant' }

/** `messages`, as a chat request and an explain request carry it. The last one must be the user's: that is what gets answered. */
export function messagesField(limits: Limits) {
  return z
    .array(z.strictObject({ role: roleField, content: contentField }))
    .min(1)
    .max(limits.messages)
    .superRefine((messages, context) => {
      const last = messages.length - 1
      if (messages[last]?.role === 'user') return
      const message = `The last message must have the role 'user', got '${messages[last]?.role}': continuing a message of the assistant is not supported.`
      context.addIssue(fault('invalid_value', message, [last, 'role']))
    })
}

const roleField = z.string().superRefine((role, context) => {
  if (role === 'tool' || role === 'function')
    context.addIssue(fault('unsupported_field', `The role '${role}' is not supported: this gateway has no tools.`))
  else if (!Object.hasOwn(ROLES, role))
    context.addIssue(
      fault('invalid_value', `Expected the role to be one of ${Object.keys(ROLES).join(', ')}, got '${role.slice(0, 64)}'.`),
    )
})

const OTHER_PARTS = new Set(['image_url', 'input_audio', 'file', 'refusal'])

const partField = z
  .looseObject({ type: z.string() })
  .superRefine(({ type }, context) => {
    if (OTHER_PARTS.has(type))
      context.addIssue({
        ...fault('unsupported_field', `Parts of type '${type}' are not supported: the model reads text only.`, ['type']),
        continue: false,
      })
  })
  .pipe(z.strictObject({ type: z.literal('text'), text }))

const contentField = z.preprocess(
  (content) => (typeof content === 'string' ? [{ type: 'text', text: content }] : content),
  z.array(partField, { error: 'a string or a non-empty array of text parts' }).min(1),
)

/** Nulls dropped where OpenAI lets null stand for absent, and fields at their neutral values dropped. */
function tidy(body: unknown): unknown {
  if (!isObject(body)) return body
  const { messages, stream_options: streamOptions, palimpsest, ...fields } = strip(body, NEUTRAL)
  return {
    ...fields,
    ...(messages !== undefined && { messages: tidyMessages(messages) }),
    ...(streamOptions !== undefined && {
      stream_options: isObject(streamOptions)
        ? strip(streamOptions, { include_obfuscation: [false] }, ['stream_options'])
        : streamOptions,
    }),
    ...(palimpsest !== undefined && { palimpsest: isObject(palimpsest) ? strip(palimpsest, {}) : palimpsest }),
  }
}

export function tidyMessages(messages: unknown): unknown {
  if (!Array.isArray(messages)) return messages
  return messages.map((message, index) => (isObject(message) ? strip(message, NEUTRAL_IN_MESSAGE, ['messages', index]) : message))
}

export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Text parts are joined by a line break, as llama-server and vLLM do. */
export function toMessages(messages: Messages): Message[] {
  return messages.map(({ role, content }) => ({
    role: ROLES[role] ?? 'user',
    content: content.map((part) => part.text).join('\n'),
  }))
}

function toSampling(fields: Fields, limits: Limits): Sampling {
  const { max_tokens: old, max_completion_tokens: current, seed } = fields
  if (old !== undefined && current !== undefined && old !== current) {
    throw new PalimpsestError(
      'invalid_value',
      `\`max_tokens\` is ${old} and \`max_completion_tokens\` is ${current}: they mean the same, send one.`,
      { param: 'max_tokens' },
    )
  }
  const maxTokens = current ?? old
  return {
    temperature: fields.temperature ?? limits.defaultTemperature,
    topP: fields.top_p ?? 1,
    stop: typeof fields.stop === 'string' ? [fields.stop] : (fields.stop ?? []),
    ...(seed !== undefined && { seed }),
    ...(maxTokens !== undefined && { maxTokens }),
  }
}
