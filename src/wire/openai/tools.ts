import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Limits } from '../../gateway.ts'
import type { Tool, ToolUse } from '../../request.ts'
import { text } from '../palimpsest/selection.ts'
import { sent } from '../sent.ts'
import { fault } from './refusal.ts'

const functionName = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, { error: '1 to 64 letters, digits, underscores or dashes' })

/** A JSON Schema; the engine that enforces it says what it can't. */
export const schemaField = z.record(z.string(), z.unknown(), { error: 'a JSON Schema object' })

const named = z.strictObject({ type: z.literal('function'), function: z.strictObject({ name: functionName }) })

const MODES = ['none', 'auto', 'required'] as const
const CHOICES = { error: "'none', 'auto', 'required', a function or allowed tools" }

/** Other kinds are refused by the path of their type. */
const kindAmong = (kinds: readonly string[], expected?: { error: string }) =>
  z.looseObject({ type: z.string() }, expected).superRefine(({ type }, context) => {
    if (kinds.includes(type)) return
    const message = `Tools of type '${type.slice(0, 64)}' are not supported: offer a function.`
    context.addIssue({ ...fault('unsupported_field', message, ['type']), continue: false })
  })

const modeField = <Mode extends (typeof MODES)[number]>(mode: Mode) => z.strictObject({ type: z.literal(mode) })

const MODES_FIELDS = [modeField('none'), modeField('auto'), modeField('required')] as const

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
  const choice = z.discriminatedUnion('type', [...MODES_FIELDS, named, allowed])
  const spelledOut = (sent: unknown) => (MODES.some((mode) => mode === sent) ? { type: sent } : sent)
  return {
    tools: z
      .array(kindAmong(['function']).pipe(tool))
      .max(limits.tools)
      .optional(),
    tool_choice: z
      .preprocess(spelledOut, kindAmong([...MODES, 'function', 'allowed_tools'], CHOICES).pipe(choice))
      .register(sent, { as: z.union([z.enum(MODES), choice]) })
      .optional(),
    parallel_tool_calls: z.boolean().optional(),
  }
}

type ToolFields = z.output<z.ZodObject<ReturnType<typeof toolFields>>>

/** undefined where no tool may be called. Throws `invalid_value` for a choice among tools that are not there. */
export function toTools(fields: ToolFields): ToolUse | undefined {
  const { tools: sent = [], tool_choice: choice = { type: 'auto' }, parallel_tool_calls: parallel = true } = fields
  const tools = sent.map(toTool)
  const names = tools.map(({ name }) => name)
  const twice = names.findIndex((name, i) => names.indexOf(name) !== i)
  if (twice !== -1) throw wrong(`Two tools have the name '${names[twice]}': give each its own.`, `tools[${twice}].function.name`)
  const { allowed, required } = chosen(choice, names)
  const missing = allowed.find((name) => !names.includes(name))
  if (missing !== undefined)
    throw wrong(`\`tool_choice\` names the function '${missing}', which is not among the tools.`, 'tool_choice')
  if (required && tools.length === 0) throw wrong('`tool_choice` requires a call, but no tools were sent.', 'tool_choice')
  if (allowed.length === 0) return undefined
  return { tools, allowed: [...new Set(allowed)], required, parallel }
}

type Choice = NonNullable<ToolFields['tool_choice']>

function chosen(choice: Choice, all: readonly string[]): { allowed: readonly string[]; required: boolean } {
  switch (choice.type) {
    case 'none':
      return { allowed: [], required: false }
    case 'auto':
      return { allowed: all, required: false }
    case 'required':
      return { allowed: all, required: true }
    case 'function':
      return { allowed: [choice.function.name], required: true }
    case 'allowed_tools':
      return {
        allowed: choice.allowed_tools.tools.map((one) => one.function.name),
        required: choice.allowed_tools.mode === 'required',
      }
    default:
      return choice satisfies never
  }
}

function toTool(
  { function: { name, description, parameters, strict } }: NonNullable<ToolFields['tools']>[number],
  i: number,
): Tool {
  return {
    name,
    param: `tools[${i}]`,
    ...(description !== undefined && { description }),
    ...(parameters != null && { parameters }),
    ...(strict != null && { strict }),
  }
}

function wrong(message: string, param: string): PalimpsestError {
  return new PalimpsestError('invalid_value', message, { param })
}
