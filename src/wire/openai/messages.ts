import { z } from 'zod'
import type { Limits } from '../../gateway.ts'
import type { Message, Role, ToolCall } from '../../request.ts'
import { text } from '../palimpsest/selection.ts'
import { sent } from '../sent.ts'
import { MESSAGE_FIELDS, strip } from './fields.ts'
import { fault } from './refusal.ts'

const ROLES: Readonly<Record<string, Role>> = {
  system: 'system',
  developer: 'system',
  user: 'user',
  assistant: 'assistant',
  tool: 'tool',
}

/** `messages`, as a chat request and an explain request carry it. Whoever spoke last, the assistant answers with a message of its own. */
export function messagesField(limits: Limits) {
  return z
    .array(messageField(limits).register(sent, { decided: MESSAGE_FIELDS }).meta({ id: 'Message' }))
    .min(1)
    .max(limits.messages)
    .superRefine(everyResultHasItsCall)
}

type WireMessage = z.output<ReturnType<typeof messageField>>

function messageField(limits: Limits) {
  return z
    .strictObject({
      role: roleField,
      content: contentField.optional(),
      name: text.min(1).max(NAME_CHARS).optional(),
      refusal: text.optional(),
      tool_calls: z.array(callField).max(limits.tools).optional(),
      tool_call_id: z.string().max(ID_CHARS).optional(),
    })
    .superRefine((message, context) => {
      const { role, content, refusal, tool_calls: calls, tool_call_id: id } = message
      const spoken = content !== undefined || (role === 'assistant' && (refusal !== undefined || (calls?.length ?? 0) > 0))
      const issue = (code: 'missing_field' | 'invalid_value', field: string, what: string) =>
        context.addIssue(fault(code, what, [field]))
      if (!spoken)
        issue('missing_field', 'content', 'Missing required field `content`: expected a string or an array of text parts.')
      else if (role === 'tool' && id === undefined)
        issue(
          'missing_field',
          'tool_call_id',
          'Missing required field `tool_call_id`: expected the id of the call that this message answers.',
        )
      for (const field of ['tool_calls', 'refusal'] as const)
        if (message[field] !== undefined && role !== 'assistant')
          issue('invalid_value', field, `\`${field}\` is only allowed in messages with the role 'assistant'.`)
      if (id !== undefined && role !== 'tool')
        issue('invalid_value', 'tool_call_id', "`tool_call_id` is only allowed in messages with the role 'tool'.")
    })
}

const NAME_CHARS = 64
const ID_CHARS = 256

const roleField = z
  .string()
  .superRefine((role, context) => {
    if (role === 'function')
      context.addIssue(fault('unsupported_field', "The role 'function' is not supported: send the role 'tool' instead."))
    else if (!Object.hasOwn(ROLES, role))
      context.addIssue(
        fault('invalid_value', `Expected the role to be one of ${Object.keys(ROLES).join(', ')}, got '${role.slice(0, 64)}'.`),
      )
  })
  .register(sent, { as: z.enum(Object.keys(ROLES)) })

const OTHER_PARTS = new Set(['image_url', 'input_audio', 'file'])

const partField = z
  .looseObject({ type: z.string() })
  .superRefine(({ type }, context) => {
    if (OTHER_PARTS.has(type))
      context.addIssue({
        ...fault('unsupported_field', `Parts of type '${type}' are not supported: the model reads text only.`, ['type']),
        continue: false,
      })
  })
  .transform((part) => (part.type === 'refusal' ? { type: 'text', text: part.refusal } : part))
  .pipe(z.strictObject({ type: z.literal('text'), text, ...cacheMark() }))
  .register(sent, {
    as: z.union([
      z.strictObject({ type: z.literal('text'), text, ...cacheMark() }),
      z.object({ type: z.literal('refusal'), refusal: text }),
    ]),
  })

/** Marks of other providers' caches that their clients leave on parts; they ask nothing of the answer. */
function cacheMark() {
  return { prompt_cache_breakpoint: z.unknown().optional(), cache_control: z.unknown().optional() }
}

const contentField = z
  .preprocess(
    (content) => (typeof content === 'string' ? [{ type: 'text', text: content }] : content),
    z.array(partField, { error: 'a string or a non-empty array of text parts' }).min(1),
  )
  .register(sent, { as: z.union([text, z.array(partField).min(1)]) })

const callField = z.strictObject({
  id: z.string().min(1).max(ID_CHARS),
  type: z.literal('function').default('function'),
  function: z.strictObject({ name: z.string().min(1).max(NAME_CHARS), arguments: text }),
  /** Streams number their calls, and some clients send the number back. */
  index: z.int().optional(),
})

function everyResultHasItsCall(messages: readonly WireMessage[], context: z.RefinementCtx): void {
  const calls = new Set<string>()
  for (const [i, { role, tool_calls: called = [], tool_call_id: id }] of messages.entries()) {
    for (const call of called) calls.add(call.id)
    if (role !== 'tool' || id === undefined || calls.has(id)) continue
    const message = `Messages with the role 'tool' must answer a call in an earlier message's \`tool_calls\`; none there has the id '${id.slice(0, 64)}'.`
    context.addIssue(fault('invalid_value', message, [i, 'tool_call_id']))
  }
}

/** Nulls dropped where OpenAI lets null stand for absent, and fields at their neutral values dropped. */
export function tidyMessages(messages: unknown): unknown {
  if (!Array.isArray(messages)) return messages
  return messages.map((message, index) =>
    isObject(message)
      ? strip(isSilence(message) ? { ...message, content: '' } : message, MESSAGE_FIELDS, ['messages', index])
      : message,
  )
}

/** An assistant that said nothing: SDKs send its message back with `content: null`. */
function isSilence(message: object): boolean {
  const { role, content, tool_calls: calls } = message as { role?: unknown; content?: unknown; tool_calls?: unknown }
  return role === 'assistant' && content === null && (calls == null || (Array.isArray(calls) && calls.length === 0))
}

export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Text parts are joined by a line break, as llama-server and vLLM do; what an assistant refused with is what it said. */
export function toMessages(messages: readonly WireMessage[]): Message[] {
  return messages.map(({ role, content = [], refusal, name, tool_calls: calls = [], tool_call_id: id }) => ({
    role: ROLES[role] ?? 'user',
    content: [...content.map((part) => part.text), ...(refusal === undefined ? [] : [refusal])].join('\n'),
    ...(name !== undefined && { name }),
    ...(calls.length > 0 && { toolCalls: calls.map(toCall) }),
    ...(id !== undefined && { toolCallId: id }),
  }))
}

function toCall({ id, function: { name, arguments: given } }: z.output<typeof callField>): ToolCall {
  return { id, name, arguments: given }
}
