import { z } from 'zod'
import type { Decision } from '../../wire/openai/fields.ts'
import { sent } from '../../wire/sent.ts'

export type JsonSchema = Readonly<Record<string, unknown>>

/** The JSON Schema (2020-12) of what a client may send under a schema, or of what it is answered with. */
export function jsonSchema(schema: z.ZodType): JsonSchema {
  const { $schema: _, ...written } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema: draft }) => {
      const { as = lastCheck(zodSchema), decided } = sent.get(zodSchema) ?? { as: lastCheck(zodSchema) }
      if (as !== undefined)
        replace(draft, { ...jsonSchema(as as z.ZodType), ...(draft.description && { description: draft.description }) })
      if (decided !== undefined) decide(draft, decided)
      if (draft.maximum === Number.MAX_SAFE_INTEGER) delete draft.maximum
      if (draft.minimum === Number.MIN_SAFE_INTEGER) delete draft.minimum
      // What a calendar date is takes 250 characters as a pattern; the format says it.
      if (draft.format !== undefined) delete draft.pattern
    },
  })
  return written
}

/** A pipe's last member that checks, where it is no transformation: the first only tells kinds apart, or turns a text into a number. */
function lastCheck({ _zod: { def } }: z.core.$ZodTypes): z.core.$ZodType | undefined {
  if (def.type !== 'pipe' || isTransform(def.out) || isTransform(def.in)) return undefined
  return def.out
}

const isTransform = ({ _zod: { def } }: z.core.$ZodType) => def.type === 'transform'

function replace(draft: z.core.JSONSchema.BaseSchema, by: JsonSchema): void {
  for (const key of Object.keys(draft)) delete draft[key]
  Object.assign(draft, by)
}

/** Adds fields that are only taken at neutral values, and `null`, which counts as absent. */
function decide(draft: z.core.JSONSchema.BaseSchema, decided: Readonly<Record<string, Decision>>): void {
  const properties = { ...draft.properties } as Record<string, JsonSchema>
  for (const [name, schema] of Object.entries(properties)) if (!draft.required?.includes(name)) properties[name] = orNull(schema)
  for (const [name, decision] of Object.entries(decided))
    if (typeof decision === 'object')
      properties[name] = {
        description: 'Not supported: refused with `unsupported_field`, but for the values listed.',
        enum: [...decision.only, null],
      }
  draft.properties = properties
}

function orNull(schema: JsonSchema): JsonSchema {
  const { type, description, ...rest } = schema
  if (Array.isArray(rest.anyOf)) return { ...schema, anyOf: [...rest.anyOf, { type: 'null' }] }
  if (typeof type === 'string' && !('enum' in rest) && !('const' in rest)) return { ...schema, type: [type, 'null'] }
  const plain = type === undefined ? rest : { type, ...rest }
  return { ...(description !== undefined && { description }), anyOf: [plain, { type: 'null' }] }
}
