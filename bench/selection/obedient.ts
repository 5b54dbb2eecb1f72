/*
 * A gateway over a scripted model that does as it is told, for suites that others wrote (scripts/suites.mjs) where no real model runs:
 *   tsc -p tsconfig.bench.json && node dist-bench/bench/selection/obedient.js
 * What the suites find is then the gateway's, not a small model's. Prints its address, and serves until it is stopped.
 */
import type { Prompt } from '../../src/engine/engine.ts'
import type { Sampling } from '../../src/request.ts'
import { serve } from '../../test/http/fakes.ts'

interface Schema {
  readonly type?: string | readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly $ref?: string
  readonly minimum?: number
}

const EXACTLY = /(?:exactly|answer with|reply|say)[:\s]+["']?(?!with\b|exactly\b)([A-Za-z]+)/i

function reply({ messages, tools }: Prompt, { format }: Sampling): string {
  const last = messages.at(-1)
  const said = messages.map(({ content }) => content).join('\n')
  if (format?.kind === 'schema') return JSON.stringify(made(format.schema, format.schema, said))
  if (format?.kind === 'json') return '{"ok": true, "status": "ok", "value": 42}'
  const result = messages.findLast(({ role }) => role === 'tool')?.content
  if (result !== undefined)
    return /just the number/i.test(last?.content ?? '') ? (/\d+/.exec(result)?.[0] ?? '') : `The result is ${result}`
  const [name = ''] = tools?.allowed ?? []
  const tool = tools?.tools.find((one) => one.name === name)
  if (tool !== undefined) {
    const given = made((tool.parameters ?? {}) as Schema, (tool.parameters ?? {}) as Schema, said)
    return `<tool_call>\n${JSON.stringify({ name, arguments: given })}\n</tool_call>`
  }
  const asked = last?.role === 'user' && EXACTLY.test(last.content) ? last.content : said
  const [, exactly] = EXACTLY.exec(asked) ?? []
  const [, code] = /code ?= ?(\d+)/.exec(said) ?? []
  if (code !== undefined && /code/i.test(last?.content ?? '') && !/remember/i.test(last?.content ?? '')) return code
  return exactly ?? `You said: ${last?.content}`
}

/** The least value under a schema, with the values that the prompt gives to its fields (`a=40`). */
function made(schema: Schema, root: Schema, said: string, field = ''): unknown {
  const { $ref: reference, const: constant, enum: values, anyOf, type, properties, items, minimum } = schema
  if (reference !== undefined) return made(at(root, reference), root, said, field)
  if (constant !== undefined) return constant
  if (values !== undefined) return values[0]
  if (anyOf?.[0] !== undefined) return made(anyOf[0], root, said, field)
  const [, number, text] = field === '' ? [] : (new RegExp(`\\b${field}=(?:(\\d+)|["']?(\\w+))`).exec(said) ?? [])
  switch ([type].flat()[0]) {
    case 'object':
      return Object.fromEntries(Object.entries(properties ?? {}).map(([name, one]) => [name, made(one, root, said, name)]))
    case 'array':
      return [made(items ?? { type: 'string' }, root, said)]
    case 'integer':
    case 'number':
      return Number(number ?? minimum ?? 1)
    case 'boolean':
      return true
    default:
      return text ?? 'x'
  }
}

function at(root: Schema, pointer: string): Schema {
  let found: unknown = root
  for (const step of pointer.split('/').slice(1)) found = (found as Record<string, unknown>)[step]
  return found as Schema
}

const { base } = await serve({ script: { reply } })
console.log(base)
