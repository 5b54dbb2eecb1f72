import type { Prompt } from '../../src/engine/engine.ts'
import type { Sampling } from '../../src/request.ts'

/** A model that calls for the weather of Lund when it is offered a tool, tells what the tool said, writes JSON on request, and else echoes. */
export function talk({ messages, tools }: Prompt, { format }: Sampling): string {
  const last = messages.at(-1)
  if (last?.role === 'tool') return `The weather: ${last.content}`
  if (tools !== undefined) return '<tool_call>\n{"name": "weather", "arguments": {"city": "Lund"}}\n</tool_call>'
  if (format !== undefined) return '{"city":"Lund","people":90000}'
  return `You said: ${last?.content}`
}
