import { z } from 'zod'
import { PalimpsestError } from '../../../errors.ts'
import type { Limits } from '../../../gateway.ts'
import { text } from '../../palimpsest/selection.ts'
import { sent } from '../../sent.ts'
import { fault } from '../refusal.ts'

/** Items that a conversation is made of (openai-openapi 2.3.0, InputItem), as far as they are possible here. */
export type InputItem = z.output<typeof itemField>

/** An item, and where it stood in the request. */
export interface Located {
  readonly item: InputItem
  readonly param: string
}

/** A message as a chat carries it. */
export interface LocatedMessage {
  readonly message: Readonly<Record<string, unknown>>
  readonly param: string
}

const TEXT_PARTS: readonly string[] = ['input_text', 'output_text', 'text']

const partField = z
  .looseObject({ type: z.string() })
  .superRefine(({ type }, context) => {
    if (TEXT_PARTS.includes(type)) return
    const message = `Parts of type '${type.slice(0, 64)}' are not supported: the model reads text only.`
    context.addIssue({ ...fault('unsupported_field', message, ['type']), continue: false })
  })
  .pipe(
    z
      .strictObject({ type: z.string(), text, annotations: z.unknown(), logprobs: z.unknown() })
      .partial({ annotations: true, logprobs: true }),
  )
  .transform((part) => part.text)
  .register(sent, { as: z.object({ type: z.enum(TEXT_PARTS), text }) })

const contentField = z
  .preprocess(
    (content) => (typeof content === 'string' ? [{ type: 'input_text', text: content }] : content),
    z.array(partField, { error: 'a string or an array of text parts' }).min(1),
  )
  .register(sent, { as: z.union([text, z.array(partField).min(1)]) })

/** What an item of ours carries besides: sent back as it came, it changes nothing. */
const ownFields = { id: z.string().nullish(), status: z.string().nullish() }
const callFields = { ...ownFields, caller: z.null().optional(), namespace: z.null().optional() }

const messageItem = z.strictObject({
  type: z.literal('message'),
  role: z.enum(['user', 'assistant', 'system', 'developer']),
  content: contentField,
  ...ownFields,
  phase: z.string().nullish(),
})
const callItem = z.strictObject({
  type: z.literal('function_call'),
  call_id: text.min(1),
  name: text.min(1),
  arguments: text,
  ...callFields,
})
const outputItem = z.strictObject({
  type: z.literal('function_call_output'),
  call_id: text.min(1),
  output: contentField,
  name: z.string().nullish(),
  ...callFields,
})
/** Another model's thoughts, which are closed to this one. */
const reasoningItem = z.looseObject({ type: z.literal('reasoning') })
const referenceItem = z.strictObject({ type: z.literal('item_reference'), id: text.min(1) })

const KNOWN = ['message', 'function_call', 'function_call_output', 'reasoning', 'item_reference']

const itemField = z
  .preprocess(
    (item) =>
      typeof item === 'object' && item !== null && !('type' in item) && 'role' in item ? { ...item, type: 'message' } : item,
    z
      .looseObject({ type: z.string() })
      .superRefine(({ type }, context) => {
        if (KNOWN.includes(type)) return
        const message = `Items of type '${type.slice(0, 64)}' are not supported. Possible: ${KNOWN.join(', ')}.`
        context.addIssue({ ...fault('unsupported_field', message, ['type']), continue: false })
      })
      .pipe(z.discriminatedUnion('type', [messageItem, callItem, outputItem, reasoningItem, referenceItem])),
  )
  .register(sent, {
    as: z.union([messageItem.partial({ type: true }), callItem, outputItem, reasoningItem, referenceItem]),
  })

/** `input`: a text, which is a message of the user's, or items. */
export function inputField(limits: Limits) {
  return z
    .preprocess(
      (input) => (typeof input === 'string' ? [{ type: 'message', role: 'user', content: input }] : input),
      z.array(itemField, { error: 'a text, or an array of items' }).min(1).max(limits.messages),
    )
    .register(sent, { as: z.union([text, z.array(itemField).min(1).max(limits.messages)]) })
}

type Find = (id: string) => Promise<InputItem | undefined>

/** Items one after another as messages: calls join the assistant's message before them, thoughts are left out. */
export async function toMessages(items: readonly Located[], find: Find): Promise<LocatedMessage[]> {
  const messages: LocatedMessage[] = []
  for (const { item, param } of items) {
    const message = toMessage(await resolved(item, param, find))
    if (message === null) continue
    const last = messages.at(-1)?.message
    if (item.type === 'function_call' && last?.role === 'assistant')
      messages[messages.length - 1] = {
        message: {
          ...last,
          tool_calls: [...((last.tool_calls as object[] | undefined) ?? []), ...(message.tool_calls as object[])],
        },
        param: messages.at(-1)?.param ?? param,
      }
    else messages.push({ message, param })
  }
  return messages
}

async function resolved(item: InputItem, param: string, find: Find): Promise<InputItem> {
  if (item.type !== 'item_reference') return item
  const found = await find(item.id)
  if (found !== undefined) return found
  throw new PalimpsestError(
    'invalid_value',
    `The item '${item.id.slice(0, 64)}' is not kept here, or not any more: send the item itself (many clients do with \`store: false\`).`,
    { param: `${param}.id` },
  )
}

function toMessage(item: InputItem): Record<string, unknown> | null {
  switch (item.type) {
    case 'message':
      return { role: item.role, content: item.content.join('\n') }
    case 'function_call':
      return {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: item.call_id, type: 'function', function: { name: item.name, arguments: item.arguments } }],
      }
    case 'function_call_output':
      return { role: 'tool', tool_call_id: item.call_id, content: item.output.join('\n') }
    case 'reasoning':
    case 'item_reference':
      return null
    default:
      return item satisfies never
  }
}
