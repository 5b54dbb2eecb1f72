import type { JsonSchema } from '../../src/http/openapi/schema.ts'

/** A Markdown page that a program wrote. */
export function page(title: string, from: string, ...parts: readonly string[]): string {
  const note = `Written by \`npm run docs:reference\` from ${from}; do not edit.`
  return `${[`# ${title}`, note, ...parts].join('\n\n')}\n`
}

export function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(' | ')} |`
  return [line(heads), `|${heads.map(() => '---|').join('')}`, ...rows.map(line)].join('\n')
}

/** Text as a cell holds it: on one line, its bars escaped. */
const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ')

export const code = (text: string) => `\`${text}\``

/** A first capital, and a full stop. */
export function sentence(text: string): string {
  const whole = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`
}

/** A JSON Schema in a few words, for a table. */
export function kindOf(schema: JsonSchema): string {
  const { $ref, type, items, anyOf, oneOf, description: _ } = schema
  if (typeof $ref === 'string') return $ref.split('/').at(-1) ?? ''
  if (Array.isArray(schema.enum)) return schema.enum.map((one) => code(JSON.stringify(one))).join(', ')
  if ('const' in schema) return code(JSON.stringify(schema.const))
  const either = (anyOf ?? oneOf) as readonly JsonSchema[] | undefined
  if (either !== undefined) return [...new Set(either.map(kindOf))].join(', or ')
  if (Array.isArray(type)) return type.map((one) => kindOf({ ...schema, type: one })).join(', or ')
  if (type === 'array') return listOf(schema, kindOf((items ?? {}) as JsonSchema))
  if (type === 'string') return `text${length(schema)}`
  if (type === 'number' || type === 'integer') return `${type === 'integer' ? 'whole number' : 'number'}${range(schema)}`
  if (type === 'object') return objectKind(schema)
  return typeof type === 'string' ? type : 'anything'
}

function listOf({ maxItems }: JsonSchema, item: string): string {
  const most = typeof maxItems === 'number' ? `of at most ${maxItems.toLocaleString('en')}: ` : 'of '
  return `list ${most}${item.includes(', or ') ? `(${item})` : item}`
}

/** A list of the wire by what is in it; an object with a name by it; any other by its fields. */
function objectKind({ properties = {} }: JsonSchema): string {
  const { object, data, ...others } = properties as Readonly<Record<string, JsonSchema>>
  if (object?.const === 'list' && data !== undefined) return `${kindOf(data)}, as \`data\``
  if (object?.const !== undefined) return `object \`${object.const}\``
  const names = Object.keys(others)
  const shown = names.slice(0, SHOWN_FIELDS).map(code).join(', ')
  return names.length === 0 ? 'object' : `object of ${shown}${names.length > SHOWN_FIELDS ? ', …' : ''}`
}

const SHOWN_FIELDS = 6

function length({ maxLength }: JsonSchema): string {
  return typeof maxLength === 'number' ? ` (at most ${maxLength.toLocaleString('en')} characters)` : ''
}

function range({ minimum, maximum, exclusiveMinimum }: JsonSchema): string {
  const shown = (value: unknown) => (typeof value === 'number' ? value.toLocaleString('en') : '')
  if (minimum !== undefined && maximum !== undefined) return ` from ${shown(minimum)} to ${shown(maximum)}`
  if (minimum !== undefined) return ` from ${shown(minimum)}`
  if (exclusiveMinimum !== undefined)
    return ` above ${shown(exclusiveMinimum)}${maximum === undefined ? '' : `, to ${shown(maximum)}`}`
  return maximum === undefined ? '' : ` to ${shown(maximum)}`
}
