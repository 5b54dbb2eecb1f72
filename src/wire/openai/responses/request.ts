import { z } from 'zod'
import { PalimpsestError } from '../../../errors.ts'
import type { Limits } from '../../../gateway.ts'
import { oneTenant, type Tenancy, text } from '../../palimpsest/selection.ts'
import { checkedLater, sent } from '../../sent.ts'
import { type ChatCall, type ChatReader, chatBody, modelField, type Served } from '../chat.ts'
import { type Decision, RESPONSE_FIELDS, strip } from '../fields.ts'
import { isObject } from '../messages.ts'
import { check } from '../refusal.ts'
import { type InputItem, inputField, type Located, type LocatedMessage, toMessages } from './items.ts'

/** A request for a response, as read: what the model is asked is a chat; the rest is repeated in the response, or kept. */
export interface ResponseCall {
  readonly chat: ChatCall
  /** Fields of the Response object that repeat the request. */
  readonly echo: Readonly<Record<string, unknown>>
  /** This request's own items, without those of earlier responses. */
  readonly input: readonly InputItem[]
  readonly store: boolean
  readonly previous: string | null
  /** Types of tools that were offered and that this model can't call. */
  readonly leftOut: readonly string[]
}

/** What earlier responses left behind. What is not kept is undefined. */
export interface Earlier {
  /** Every item of the conversation that ended with this response, oldest first. */
  conversation(tenant: string, responseId: string): Promise<readonly InputItem[] | undefined>
  item(tenant: string, itemId: string): Promise<InputItem | undefined>
}

export type ResponseReader = (
  body: unknown,
  tenantHeader: Tenancy | undefined,
  served: Served,
  earlier: Earlier,
) => Promise<ResponseCall>

type Decisions = Readonly<Record<string, Decision>>

/** `reasoning` is what this model can't be made to do: a summary of none is none. */
const REASONING_FIELDS: Decisions = {
  effort: { only: ['none'] },
  mode: { only: ['standard'] },
  context: { only: ['auto', 'current_turn', 'all_turns'] },
  summary: { only: ['auto', 'concise', 'detailed'] },
  generate_summary: { only: ['auto', 'concise', 'detailed'] },
}
const TOOL_FIELDS: Decisions = {
  output_schema: { only: [] },
  defer_loading: { only: [false] },
  allowed_callers: { only: [['direct']] },
}

/** What may be asked to be included. All but the log-probabilities belong to tools and parts that are refused, so there is none of them. */
const INCLUDES = [
  'file_search_call.results',
  'web_search_call.results',
  'web_search_call.action.sources',
  'message.input_image.image_url',
  'computer_call_output.output.image_url',
  'code_interpreter_call.outputs',
  'reasoning.encrypted_content',
  'message.output_text.logprobs',
] as const

/** Reads the body of `POST /v1/responses`. Throws a PalimpsestError that names the first faulty field in `param`. */
export function responseReader(limits: Limits, readChat: ChatReader): ResponseReader {
  const schema = responseBody(limits)
  return async (body, tenantHeader, served, earlier) => {
    const { functions, places, leftOut } = offered(body)
    const fields = renaming(
      (param) => inPlace(param, places),
      () => check(schema, tidy(functions)),
    )
    const named = (fields.palimpsest as { tenant?: unknown } | undefined)?.tenant
    const tenant = oneTenant(typeof named === 'string' ? named : undefined, tenantHeader, 'palimpsest.tenant')
    const previous = fields.previous_response_id ?? null
    const before = previous === null ? [] : await earlierItems(tenant, previous, earlier)
    const items = [...before, ...located(fields.input, body)]
    const messages = [...instructions(fields), ...(await toMessages(items, (id) => earlier.item(tenant, id)))]
    const chat = renaming(
      (param) => inPlace(ourName(param, messages), places),
      () => readChat(asChat(fields, messages), tenantHeader, served),
    )
    return { chat, echo: echo(fields, chat), input: fields.input, store: fields.store ?? true, previous, leftOut }
  }
}

type Fields = z.output<ReturnType<typeof responseBody>>

/** What a chat has a field for is checked there: sampling, tools and formats are `unknown` here. */
export function responseBody(limits: Limits) {
  const label = z.string().max(limits.searchChars)
  const chat = chatBody(limits).shape
  const schema = z.strictObject({
    model: modelField,
    input: inputField(limits),
    instructions: text.optional(),
    previous_response_id: label.optional(),
    store: z.boolean().optional(),
    stream: z.boolean().optional(),
    stream_options: z.strictObject({ include_obfuscation: z.boolean().optional() }).register(sent, { decided: {} }).optional(),
    include: z.array(z.enum(INCLUDES)).optional(),
    text: z
      .strictObject({ format: z.looseObject({ type: z.string() }).optional(), verbosity: checkedLater(z.literal('medium')) })
      .register(sent, { decided: {} })
      .optional(),
    tools: z.array(toolField).optional(),
    tool_choice: z.union([z.string(), z.looseObject({ type: z.string() })], { error: 'a string or an object' }).optional(),
    // There are no built-in tools, so no number of calls to them is ever passed.
    max_tool_calls: z.int().min(1).optional(),
    temperature: checkedLater(chat.temperature),
    top_p: checkedLater(chat.top_p),
    // Open Responses has them beside OpenAI's fields.
    frequency_penalty: checkedLater(chat.frequency_penalty),
    presence_penalty: checkedLater(chat.presence_penalty),
    top_logprobs: checkedLater(chat.top_logprobs),
    max_output_tokens: checkedLater(chat.max_completion_tokens),
    parallel_tool_calls: checkedLater(chat.parallel_tool_calls),
    metadata: checkedLater(chat.metadata),
    palimpsest: checkedLater(chat.palimpsest),
    reasoning: z.strictObject({}).register(sent, { decided: REASONING_FIELDS }).optional(),
    // Labels, which change no answer at OpenAI either. Caches here are found by the prompt itself.
    user: label.optional(),
    // Codex's own, of the program that asks.
    client_metadata: z.looseObject({}).optional(),
    safety_identifier: label.optional(),
    prompt_cache_key: label.optional(),
    prompt_cache_options: z.looseObject({}).optional(),
    prompt_cache_retention: label.optional(),
  })
  return schema.register(sent, { decided: RESPONSE_FIELDS }).meta({ id: 'ResponseRequest' })
}

const toolField = z
  .strictObject({
    type: z.literal('function'),
    name: z.string(),
    description: z.string().optional(),
    parameters: z.record(z.string(), z.unknown()).optional(),
    strict: z.boolean().optional(),
  })
  .register(sent, { decided: TOOL_FIELDS })

interface Offered {
  /** The body, its tools functions only. */
  readonly functions: unknown
  /** Where each function stood. */
  readonly places: readonly number[]
  readonly leftOut: readonly string[]
}

/** Some clients offer tools that OpenAI's own servers run, or that have a format of their own. They are left out, and `Palimpsest-Warning` says so. */
function offered(body: unknown): Offered {
  if (!isObject(body) || !('tools' in body) || !Array.isArray(body.tools)) return { functions: body, places: [], leftOut: [] }
  const typeOf = (tool: unknown) => (isObject(tool) && 'type' in tool && typeof tool.type === 'string' ? tool.type : 'function')
  const tools: readonly unknown[] = body.tools
  const places = [...tools.keys()].filter((place) => typeOf(tools[place]) === 'function')
  return {
    functions: { ...body, tools: places.map((place) => tools[place]) },
    places,
    leftOut: tools.map(typeOf).filter((type) => type !== 'function'),
  }
}

/** Where a field of a function stood among all the tools. */
function inPlace(param: string, places: readonly number[]): string {
  return param.replace(/^tools\[(\d+)\]/, (_, index: string) => `tools[${places[Number(index)] ?? index}]`)
}

/** Nulls dropped, as OpenAI lets null stand for absent, and fields that ask for nothing dropped. */
function tidy(body: unknown): unknown {
  if (!isObject(body)) return body
  const fields = strip(body, RESPONSE_FIELDS)
  const within = (name: string, decisions: Decisions) =>
    isObject(fields[name]) ? { [name]: strip(fields[name] as object, decisions, [name]) } : {}
  return {
    ...fields,
    ...within('reasoning', REASONING_FIELDS),
    ...within('text', {}),
    ...within('stream_options', {}),
    ...(Array.isArray(fields.tools) && {
      tools: fields.tools.map((tool, i) =>
        isObject(tool) && 'type' in tool && tool.type === 'function' ? strip(tool, TOOL_FIELDS, ['tools', i]) : tool,
      ),
    }),
  }
}

function located(items: readonly InputItem[], body: unknown): Located[] {
  const isText = isObject(body) && 'input' in body && typeof body.input === 'string'
  return items.map((item, index) => ({ item, param: isText ? 'input' : `input[${index}]` }))
}

function instructions({ instructions: content }: Fields): LocatedMessage[] {
  return content === undefined ? [] : [{ message: { role: 'system', content }, param: 'instructions' }]
}

async function earlierItems(tenant: string, id: string, earlier: Earlier): Promise<Located[]> {
  const items = await earlier.conversation(tenant, id)
  if (items !== undefined) return items.map((item) => ({ item, param: 'previous_response_id' }))
  throw new PalimpsestError(
    'invalid_value',
    `The response '${id.slice(0, 64)}' is not kept, or not any more: only the latest are, and only those not asked for with \`store: false\`. Send the conversation in \`input\`.`,
    { param: 'previous_response_id' },
  )
}

/** The same request as a body of `POST /v1/chat/completions`. */
function asChat(fields: Fields, messages: readonly LocatedMessage[]): object {
  const { tools, tool_choice: choice, text: form, include, top_logprobs: top } = fields
  const logprobs = top !== undefined || include?.includes('message.output_text.logprobs') === true
  return withoutUndefined({
    model: fields.model,
    messages: messages.map(({ message }) => message),
    temperature: fields.temperature,
    top_p: fields.top_p,
    frequency_penalty: fields.frequency_penalty,
    presence_penalty: fields.presence_penalty,
    max_completion_tokens: fields.max_output_tokens,
    parallel_tool_calls: fields.parallel_tool_calls,
    metadata: fields.metadata,
    stream: fields.stream,
    stream_options: fields.stream_options,
    palimpsest: fields.palimpsest,
    user: fields.user,
    verbosity: form?.verbosity,
    ...(logprobs && { logprobs: true, top_logprobs: top ?? 0 }),
    ...(form?.format !== undefined && { response_format: chatFormat(form.format) }),
    ...(tools !== undefined &&
      tools.length > 0 && { tools: tools.map(({ type, ...definition }) => ({ type, function: definition })) }),
    // Without tools there is nothing to choose.
    ...(choice !== undefined &&
      (tools?.length || (choice !== 'auto' && choice !== 'none')) && { tool_choice: chatChoice(choice) }),
  })
}

function withoutUndefined(fields: object): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

function chatFormat({ type, ...schema }: { type: string }): object {
  return type === 'json_schema' ? { type, json_schema: schema } : { type, ...schema }
}

function chatChoice(choice: NonNullable<Fields['tool_choice']>): unknown {
  if (typeof choice === 'string') return choice
  const { type, ...rest } = choice
  if (type === 'function') return { type, function: rest }
  if (type !== 'allowed_tools') return choice
  const { tools, ...allowed } = rest as { tools?: unknown }
  const inChat = (tool: unknown) =>
    isObject(tool) && 'name' in tool ? { type: 'function', function: { name: tool.name } } : tool
  return { type, allowed_tools: { ...allowed, tools: Array.isArray(tools) ? tools.map(inChat) : tools } }
}

/** Names of a chat's fields, and what they are called here. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^max_completion_tokens\b/, 'max_output_tokens'],
  [/^response_format\.json_schema\b/, 'text.format'],
  [/^response_format\b/, 'text.format'],
  [/^verbosity\b/, 'text.verbosity'],
  [/^logprobs\b/, 'top_logprobs'],
  [/^(tools\[\d+\]|tool_choice)\.function\b/, '$1'],
]

/** Runs `read`; the field that its error names goes by `rename`. */
function renaming<Result>(rename: (param: string) => string, read: () => Result): Result {
  try {
    return read()
  } catch (error) {
    throw renamed(error, rename)
  }
}

/** An error that names a chat's field, naming that of a request for a response; any other as it is. */
export function inResponseNames(error: unknown): unknown {
  return renamed(error, (param) => ourName(param, []))
}

function renamed(error: unknown, rename: (param: string) => string): unknown {
  if (!(error instanceof PalimpsestError) || error.param === null) return error
  const { code, cause, problems, retryAfterSeconds } = error
  const param = rename(error.param)
  const message = error.message.replaceAll(`\`${error.param}\``, `\`${param}\``)
  return new PalimpsestError(code, message, {
    param,
    cause,
    problems,
    ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
  })
}

function ourName(param: string, messages: readonly LocatedMessage[]): string {
  const [, index, rest] = /^messages\[(\d+)\](.*)$/.exec(param) ?? []
  const item = messages[Number(index)]?.param
  // Texts that stand for a whole message have no fields of their own.
  if (item !== undefined) return item.endsWith(']') ? `${item}${rest?.replace('tool_call_id', 'call_id')}` : item
  if (param === 'messages') return 'input'
  const [pattern, name] = NAMES.find(([known]) => known.test(param)) ?? []
  return pattern === undefined ? param : param.replace(pattern, name ?? '')
}

function echo(fields: Fields, { request }: ChatCall): Record<string, unknown> {
  return {
    instructions: fields.instructions ?? null,
    max_output_tokens: request.sampling.maxTokens ?? null,
    max_tool_calls: fields.max_tool_calls ?? null,
    metadata: fields.metadata ?? {},
    model: fields.model,
    parallel_tool_calls: fields.parallel_tool_calls ?? true,
    previous_response_id: fields.previous_response_id ?? null,
    prompt_cache_key: fields.prompt_cache_key ?? null,
    reasoning: { effort: null, summary: null },
    safety_identifier: fields.safety_identifier ?? null,
    service_tier: 'default',
    store: fields.store ?? true,
    temperature: request.sampling.temperature,
    text: { format: fields.text?.format ?? { type: 'text' }, verbosity: 'medium' },
    tool_choice: fields.tool_choice ?? 'auto',
    tools: (fields.tools ?? []).map((tool) => ({ ...tool, parameters: tool.parameters ?? null, strict: tool.strict ?? false })),
    top_logprobs: fields.top_logprobs ?? 0,
    top_p: request.sampling.topP,
    frequency_penalty: request.sampling.frequencyPenalty ?? 0,
    presence_penalty: request.sampling.presencePenalty ?? 0,
    truncation: 'disabled',
    background: false,
    ...(fields.user !== undefined && { user: fields.user }),
  }
}
