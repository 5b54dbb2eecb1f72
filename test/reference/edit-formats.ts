import { ENDINGS, MEDIA_TYPES } from '../../src/edit/batch.ts'
import { READERS } from '../../src/edit/formats.ts'
import { KINDS } from '../../src/edit/own.ts'
import type { JsonSchema } from '../../src/http/openapi/schema.ts'
import { jsonSchema } from '../../src/http/openapi/schema.ts'
import { code, kindOf, page, table } from './markdown.ts'

const NOTATIONS = {
  json: 'one record, a list of records, or `{"edits": […], "tenant", "tags"}`',
  ndjson: 'a record a line',
  yaml: 'as JSON',
  csv: 'RFC 4180; a header row of our own fields, lists split at `|`',
  text: 'a sentence a line; `#` begins a comment',
} as const

/** Fields of our own edits, notations, and formats of others. */
export function editFormatsPage(): string {
  const kinds = Object.entries(KINDS).map(([kind, schema]) => ({ kind, ...fieldsOf(jsonSchema(schema)) }))
  const fields = [...new Set(kinds.flatMap(({ properties }) => Object.keys(properties)))]
  return page(
    'Edit formats',
    'the schemas and readers in `src/edit/`',
    'What edits are for, with examples: [edits](../guide/edits.md).',
    '## Fields',
    'A string alone is a sentence. Text is trimmed; `null` and blank mean absent. `{}` in the prompt or a paraphrase of a fact stands for its subject.',
    table(
      ['field', 'of', 'value', ''],
      fields.map((field) => {
        const having = kinds.filter(({ properties }) => field in properties)
        const schema = having[0]?.properties[field] ?? {}
        const of = having.map(({ kind, required }) => (required.includes(field) ? `${kind} (required)` : kind))
        return [
          code(field),
          of.length === kinds.length && of.every((one) => !one.includes('(')) ? 'all' : of.join(', '),
          kindOf(schema),
          String(schema.description ?? ''),
        ]
      }),
    ),
    '## Notations',
    table(
      ['notation', 'media types', 'files', ''],
      Object.entries(NOTATIONS).map(([kind, says]) => [
        kind,
        Object.entries(MEDIA_TYPES)
          .filter(([type, one]) => one === kind || (kind === 'json' && type.endsWith('/json')))
          .map(([type]) => code(type))
          .join(', '),
        (kind === 'json' ? ['json'] : Object.keys(ENDINGS).filter((ending) => ENDINGS[ending] === kind))
          .map((ending) => code(`.${ending}`))
          .join(', '),
        says,
      ]),
    ),
    'Other media types: the text itself is looked at.',
    '## Formats of others',
    'A record is told by its fields, tried in this order; `?format=` or `--format` names one. Only the statement of an edit is taken. Probes are left unread, so that an evaluation never meets what it was taught.',
    table(
      ['format', 'of', 'taken', 'left unread'],
      Object.entries(READERS).map(([name, { about }]) => [code(name), about.of, about.takes, about.leaves]),
    ),
  )
}

function fieldsOf({ $ref, $defs, properties, required = [] }: JsonSchema): {
  readonly properties: Readonly<Record<string, JsonSchema>>
  readonly required: readonly string[]
} {
  if (typeof $ref === 'string') return fieldsOf(($defs as Record<string, JsonSchema>)[$ref.split('/').at(-1) ?? ''] ?? {})
  return { properties: properties as Readonly<Record<string, JsonSchema>>, required: required as readonly string[] }
}
