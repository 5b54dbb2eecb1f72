import type { AnswerFormat, Message, Sampling, Tool, ToolUse } from '../../request.ts'
import type { Prompt } from '../engine.ts'

/** Streamed, or in one part. */
export type Manner = 'streamed' | 'whole'

/** The body that asks an OpenAI-compatible server. Only what was asked for is sent: not every server knows every field. */
export function chatText(model: string, prompt: Prompt, sampling: Sampling, manner: Manner): string {
  const body = JSON.stringify(chatBody(model, prompt, sampling, manner))
  // JSON.stringify takes no bigint, so that a seed's digits are written here.
  return sampling.seed === undefined ? body : `${body.slice(0, -1)},"seed":${sampling.seed}}`
}

function chatBody(model: string, { messages, tools }: Prompt, sampling: Sampling, manner: Manner): object {
  const { temperature, topP, maxTokens, stop, logprobs, format } = sampling
  const { frequencyPenalty, presencePenalty, repeatPenalty, topK, minP, logitBias } = sampling
  return {
    model,
    messages: messages.map(wireMessage),
    temperature,
    top_p: topP,
    ...given({ max_tokens: maxTokens, frequency_penalty: frequencyPenalty, presence_penalty: presencePenalty }),
    ...given({ top_k: topK, min_p: minP, repeat_penalty: repeatPenalty }),
    ...(stop.length > 0 && { stop }),
    ...(logitBias !== undefined && { logit_bias: Object.fromEntries(logitBias) }),
    ...(logprobs !== undefined && { logprobs: true, top_logprobs: logprobs }),
    ...(format !== undefined && { response_format: wireFormat(format) }),
    ...(tools !== undefined && wireTools(tools)),
    ...(manner === 'streamed' && STREAMED),
  }
}

const STREAMED = { stream: true, stream_options: { include_usage: true } }

function given(fields: Readonly<Record<string, number | undefined>>): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

function wireMessage({ role, content, name, toolCalls, toolCallId }: Message): object {
  const calls = toolCalls?.map(({ id, name, arguments: given }) => ({
    id,
    type: 'function',
    function: { name, arguments: given },
  }))
  return {
    role,
    content: content === '' && calls !== undefined ? null : content,
    ...(name !== undefined && { name }),
    ...(calls !== undefined && { tool_calls: calls }),
    ...(toolCallId !== undefined && { tool_call_id: toolCallId }),
  }
}

function wireFormat(format: AnswerFormat): object {
  if (format.kind === 'json') return { type: 'json_object' }
  const { name, schema, strict, description } = format
  return { type: 'json_schema', json_schema: { name, schema, strict, ...(description !== undefined && { description }) } }
}

function wireTools({ tools, allowed, required, parallel }: ToolUse): object {
  const mode = required ? 'required' : 'auto'
  const [only] = allowed
  const all = tools.length === allowed.length
  const wireName = (name: string) => ({ type: 'function', function: { name } })
  const named = required && allowed.length === 1 && only !== undefined && !all ? wireName(only) : null
  const some = { type: 'allowed_tools', allowed_tools: { mode, tools: allowed.map(wireName) } }
  return {
    tools: tools.map(wireTool),
    ...((required || !all) && { tool_choice: named ?? (all ? mode : some) }),
    ...(!parallel && { parallel_tool_calls: false }),
  }
}

function wireTool({ name, description, parameters, strict }: Tool): object {
  const described = { ...(description !== undefined && { description }), ...(parameters !== undefined && { parameters }) }
  return { type: 'function', function: { name, ...described, ...(strict !== undefined && { strict }) } }
}
