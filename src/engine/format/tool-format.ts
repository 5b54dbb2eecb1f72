import type { Message, Tool, ToolCall, ToolUse } from '../../request.ts'

/**
 * Tools, calls and results as text in a conversation. The form is the one that Qwen2.5 was trained on (its chat template, in the model's
 * own file): signatures in <tools> in the system message, calls as JSON in <tool_call>, results in <tool_response>, as a user turn. LLaMA-2
 * was trained on none, so it is told of the same in words of our own.
 */
export const CALL = '<tool_call>'
export const CALL_END = '</tool_call>'

/** What a model is told of the tools, to follow its system message. */
export function toolsText(family: 'llama2' | 'chatml', { tools }: ToolUse): string {
  const signatures = tools.map(signature).join('\n')
  const form = `${CALL}\n{"name": <function-name>, "arguments": <args-json-object>}\n${CALL_END}`
  switch (family) {
    case 'chatml':
      return [
        '# Tools\n',
        'You may call one or more functions to assist with the user query.\n',
        'You are provided with function signatures within <tools></tools> XML tags:',
        `<tools>\n${signatures}\n</tools>\n`,
        `For each function call, return a json object with function name and arguments within ${CALL}${CALL_END} XML tags:\n${form}`,
      ].join('\n')
    case 'llama2':
      return [
        'Functions that you can call when they help to answer, one a line, as JSON:',
        `<tools>\n${signatures}\n</tools>`,
        `To call one, answer with nothing but this form, once for each call:\n${form}`,
        'The results come back within <tool_response> tags. Where no function helps, answer in words.',
      ].join('\n')
    default:
      return family satisfies never
  }
}

function signature({ name, description, parameters = { type: 'object', properties: {} } }: Tool): string {
  return inert(spaced({ type: 'function', function: { name, ...(description !== undefined && { description }), parameters } }))
}

/** JSON with a blank after each comma and colon, as Python writes it and the model has read it. */
function spaced(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spaced).join(', ')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  const pairs = Object.entries(value).filter(([, one]) => one !== undefined)
  return `{${pairs.map(([key, one]) => `${JSON.stringify(key)}: ${spaced(one)}`).join(', ')}}`
}

function callText({ name, arguments: given }: ToolCall): string {
  const text = given.trim() === '' ? '{}' : given
  return `${CALL}\n{"name": ${JSON.stringify(name)}, "arguments": ${inert(text)}}\n${CALL_END}`
}

/** The same conversation in system, user and assistant messages of plain text; the very same messages where there is nothing to write out. */
export function withoutTools(
  family: 'llama2' | 'chatml',
  messages: readonly Message[],
  tools: ToolUse | undefined,
  defaultSystem: string | null,
): readonly Message[] {
  const special = tools !== undefined || messages.some((m) => m.role === 'tool' || m.toolCalls !== undefined)
  if (!special) return messages.some((m) => m.name !== undefined) ? messages.map(named) : messages
  const out: { role: Message['role']; content: string }[] = []
  for (const [i, message] of messages.entries()) {
    const { role, content } = message
    if (role !== 'tool') out.push({ role, content: spoken(message) })
    else {
      const result = `<tool_response>\n${inert(content)}\n</tool_response>`
      const turn = messages[i - 1]?.role === 'tool' ? out.at(-1) : undefined
      if (turn === undefined) out.push({ role: 'user', content: result })
      else turn.content += `\n${result}`
    }
  }
  return tools === undefined ? out : withTools(out, toolsText(family, tools), defaultSystem)
}

function withTools(messages: readonly Message[], text: string, defaultSystem: string | null): Message[] {
  const [first, ...rest] = messages
  const system = first?.role === 'system' ? first.content : defaultSystem
  const content = system === null || system === '' ? text : `${system}\n\n${text}`
  return [{ role: 'system', content }, ...(first?.role === 'system' ? rest : messages)]
}

function spoken(message: Message): string {
  const said = inert(named(message).content)
  const calls = message.toolCalls?.map(callText) ?? []
  return [...(said === '' && calls.length > 0 ? [] : [said]), ...calls].join('\n')
}

/** Who of several speakers in a role speaks is written before what they say; these formats have no other place for it. */
function named(message: Message): Message {
  return message.name === undefined ? message : { ...message, content: `${message.name}: ${message.content}` }
}

const TAG = /<(\/?)(?=(?:tools|tool_call|tool_response)>)/g

const ZERO_WIDTH_JOINER = '\u200d'

/** Tags in what people, tools and edits wrote are broken up, invisibly: in some vocabularies they are tokens even in plain text. */
function inert(text: string): string {
  return text.replace(TAG, `<$1${ZERO_WIDTH_JOINER}`)
}
