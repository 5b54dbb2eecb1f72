import { z } from 'zod'
import type { AnswerFormat } from '../../request.ts'
import { text } from '../palimpsest/selection.ts'
import { fault } from './refusal.ts'
import { schemaField } from './tools.ts'

const FORMATS = { text: {}, json_object: {}, json_schema: {} }

const jsonSchema = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, { error: '1 to 64 letters, digits, underscores or dashes' }),
  description: text.nullable().optional(),
  schema: schemaField.nullable().optional(),
  strict: z.boolean().nullable().optional(),
})

/** `response_format` */
export const formatField = z
  .looseObject({ type: z.string() })
  .superRefine(({ type }, context) => {
    if (Object.hasOwn(FORMATS, type)) return
    const message = `Expected \`response_format.type\` to be one of ${Object.keys(FORMATS).join(', ')}, got '${type.slice(0, 64)}'.`
    context.addIssue({ ...fault('invalid_value', message, ['type']), continue: false })
  })
  .pipe(
    z.discriminatedUnion('type', [
      z.strictObject({ type: z.literal('text') }),
      // With a schema as llama-server and Together take it, and instructor sends it.
      z.strictObject({ type: z.literal('json_object'), schema: schemaField.nullable().optional() }),
      z.strictObject({ type: z.literal('json_schema'), json_schema: jsonSchema }),
    ]),
  )

export function toFormat(field: z.output<typeof formatField> | undefined): AnswerFormat | undefined {
  if (field === undefined || field.type === 'text') return undefined
  if (field.type === 'json_object') {
    if (field.schema == null) return { kind: 'json' }
    return { kind: 'schema', name: 'answer', schema: field.schema, strict: false, param: 'response_format.schema' }
  }
  if (field.json_schema.schema == null) return { kind: 'json' }
  const { name, description, schema, strict } = field.json_schema
  return {
    kind: 'schema',
    name,
    schema,
    strict: strict ?? false,
    param: 'response_format.json_schema.schema',
    ...(description != null && { description }),
  }
}
