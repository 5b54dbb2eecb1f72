import { z } from 'zod'
import { PalimpsestError } from '../errors.ts'
import type { Limits } from '../gateway.ts'
import type { Tool, ToolUse } from '../request.ts'
import { fault } from './refusal.ts'
import { text } from './selection.ts'

const functionName = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, { error: '1 to 64 letters, digits, underscores or dashes' })

/** A JSON Schema; the engine that enforces it says what it can't. */
export const schemaField = z.record(z.string(), z.unknown(), { error: 'a JSON Schema object' })

const named = z.strictObject({ type: z.literal('function'), function: z.strictObject({ name: functionName }) })

/** Kinds of tools that are not functions: refused by the path of their type. */
const functionsOnly = <Output>(schema: z.ZodType<Output, { [field: string]: unknown; type: string }>, kinds: readonly string[]) =>
  z
    .looseObject({ type: z.string() })
    .superRefine(({ type }, context) => {
      if (kinds.includes(type)) return
      const message = `Tools of type '${type.slice(0, 64)}' are not supported: offer a function.`
      context.addIssue({ ...fault('unsupported_field', message, ['type']), continue: false })
    })
    .pipe(schema)

export function toolFields(limits: Limits) {
  const tool = z.strictObject({
    type: z.literal('function'),
    function: z.strictObject({
      name: functionName,
      description: text.optional(),
      parameters: schemaField.nullable().optional(),
      strict: z.boolean().nullable().optional(),
    }),
  })
  const allowed = z.strictObject({
    type: z.literal('allowed_tools'),
    allowed_tools: z.strictObject({ mode: z.enum(['auto', 'required']), tools: z.array(named).min(1).max(limits.tools) }),
  })
  const choice = z.union([named, allowed], { error: "'none', 'auto', 'required', a function or allowed tools" })
  return {
    tools: z
      .array(functionsOnly(tool, ['function']))
      .max(limits.tools)
      .optional(),
    tool_choice: z
      .union([z.enum(['none', 'auto', 'required']), functionsOnly(choice, ['function', 'allowed_tools'])], {
        error: "'none', 'auto', 'required', a function or allowed tools",
      })
      .optional(),
    parallel_tool_calls: z.boolean().optional(),
  }
}

type ToolFields = z.output<z.ZodObject<ReturnType<typeof toolFields>>>

/** undefined where no tool may be called. Throws `invalid_value` for a choice among tools that are not there. */
export function toTools({
  tools: sent = [],
  tool_choice: choice = 'auto',
  parallel_tool_calls: parallel = true,
}: ToolFields): ToolUse | undefined {
  const tools = sent.map(
    ({ function: { name, description, parameters, strict } }, i): Tool => ({
      ...{ name, param: `tools[${i}]` },
      ...(description !== undefined && { description }),
      ...(parameters != null && { parameters }),
      ...(strict != null && { strict }),
    }),
  )
  const names = tools.map(({ name }) => name)
  const twice = names.findIndex((name, i) => names.indexOf(name) !== i)
  if (twice !== -1) throw wrong(`Two tools have the name '${names[twice]}': give each its own.`, `tools[${twice}].function.name`)
  const chosen =
    typeof choice === 'string'
      ? names
      : choice.type === 'function'
        ? [choice.function.name]
        : choice.allowed_tools.tools.map((one) => one.function.name)
  const missing = chosen.find((name) => !names.includes(name))
  if (missing !== undefined)
    throw wrong(`\`tool_choice\` names the function '${missing}', which is not among the tools.`, 'tool_choice')
  if (choice === 'none') return undefined
  if (tools.length === 0) {
    if (choice === 'required') throw wrong('`tool_choice` requires a call, but no tools were sent.', 'tool_choice')
    return undefined
  }
  const required =
    typeof choice === 'string' ? choice === 'required' : choice.type === 'function' || choice.allowed_tools.mode === 'required'
  return { tools, allowed: [...new Set(chosen)], required, parallel }
}

function wrong(message: string, param: string): PalimpsestError {
  return new PalimpsestError('invalid_value', message, { param })
}
