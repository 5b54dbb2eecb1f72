import { z } from 'zod'
import { type ErrorCode, PalimpsestError } from '../../errors.ts'

/** Longest piece of a request that an error message repeats. */
const ECHO_CHARS = 64

/** `['messages', 0, 'content']` as OpenAI spells it: `messages[0].content`; null for the whole body. */
export function paramOf(path: readonly PropertyKey[]): string | null {
  let param = ''
  for (const step of path) param += typeof step === 'number' ? `[${step}]` : `${param === '' ? '' : '.'}${clip(String(step))}`
  return param === '' ? null : param
}

/** Checks `input` against `schema`. Throws `missing_field`, `unknown_field`, `unsupported_field` or `invalid_value` for the first fault. */
export function check<Schema extends z.ZodType>(schema: Schema, input: unknown): z.output<Schema> {
  const parsed = z.safeParse(schema, input)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw issue ? refusedBody(issue, input) : new PalimpsestError('invalid_value', 'The request is not valid.')
}

/** Sets of fields for which a schema of their own is kept. */
const KEPT_SETS = 64

/**
 * `check` for strict objects of which a request sends few of many fields: those that are absent are not gone through. Where that finds a
 * fault, the whole schema words it.
 */
export function checkSent<Schema extends z.ZodObject>(schema: Schema): (input: unknown) => z.output<Schema> {
  const { shape } = schema
  const needed = Object.keys(shape).filter((field) => {
    const left = z.safeParse(shape[field] as z.ZodType, undefined)
    return !left.success || left.data !== undefined
  })
  const kept = new Map<string, z.ZodType>()
  const schemaOf = (fields: readonly string[]): z.ZodType => {
    const name = JSON.stringify(fields)
    const known = kept.get(name)
    if (known !== undefined) return known
    const isApart = needed.every((field) => fields.includes(field)) && fields.every((field) => Object.hasOwn(shape, field))
    if (!isApart || kept.size >= KEPT_SETS) return schema
    const own = z.strictObject(Object.fromEntries(fields.map((field) => [field, shape[field] as z.ZodType])))
    kept.set(name, own)
    return own
  }
  return (input) => {
    if (typeof input !== 'object' || input === null || Array.isArray(input)) return check(schema, input)
    const parsed = z.safeParse(schemaOf(Object.keys(input)), input)
    return parsed.success ? (parsed.data as z.output<Schema>) : check(schema, input)
  }
}

/** For schemas: a fault whose code is not `invalid_value`. */
export function fault(
  code: ErrorCode,
  message: string,
  path: PropertyKey[] = [],
): { code: 'custom'; message: string; path: PropertyKey[]; params: object } {
  return { code: 'custom', message, path, params: { code } }
}

function refusedBody(issue: z.core.$ZodIssue, input: unknown): PalimpsestError {
  if (issue.code === 'unrecognized_keys') return unknownField([...issue.path, issue.keys[0] ?? ''])
  const param = paramOf(issue.path)
  const value = at(input, issue.path)
  const name = param === null ? 'the body' : `\`${param}\``
  if (issue.code === 'custom')
    return new PalimpsestError((issue.params?.code as ErrorCode | undefined) ?? 'invalid_value', issue.message, { param })
  if (value === undefined)
    return new PalimpsestError('missing_field', `Missing required field ${name}: expected ${expected(issue)}.`, { param })
  return new PalimpsestError('invalid_value', `Expected ${name} to be ${expected(issue)}, got ${shown(value)}.`, { param })
}

export function unknownField(path: readonly PropertyKey[]): PalimpsestError {
  const param = paramOf(path)
  return new PalimpsestError('unknown_field', `Unknown field \`${param}\`: remove it, or check its spelling.`, { param })
}

/** What the schema wanted, to follow "expected … to be". A schema's own message (`{error: 'a date'}`) wins over these. */
function expected(issue: z.core.$ZodIssue): string {
  if (!/^(Invalid|Too (small|big)|Unrecognized)/.test(issue.message)) return issue.message
  switch (issue.code) {
    case 'invalid_type':
      return TYPES[issue.expected] ?? `of type ${issue.expected}`
    case 'too_small':
      return `${issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}${unit(issue.origin, issue.minimum)}`
    case 'too_big':
      return `${issue.inclusive === false ? 'less than' : 'at most'} ${issue.maximum}${unit(issue.origin, issue.maximum)}`
    case 'invalid_value':
      return `one of ${issue.values.map((value) => `'${String(value)}'`).join(', ')}`
    default:
      return 'a valid value'
  }
}

const TYPES: Readonly<Record<string, string>> = {
  object: 'an object',
  array: 'an array',
  string: 'a string',
  number: 'a number',
  int: 'an integer',
  boolean: 'true or false',
  record: 'an object',
}

function unit(origin: string, count: number | bigint): string {
  const isOne = Number(count) === 1
  if (origin === 'string') return isOne ? ' character long' : ' characters long'
  if (origin !== 'array') return ''
  return isOne ? ' entry long' : ' entries long'
}

/** A value for a message: its kind, and the value itself where it is short. */
export function shown(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null || typeof value === 'boolean' || typeof value === 'number' || typeof value === 'bigint') return String(value)
  if (typeof value === 'string') return value.length <= ECHO_CHARS ? `'${value}'` : `a string of ${value.length} characters`
  return Array.isArray(value) ? `an array of ${value.length}` : 'an object'
}

function clip(text: string): string {
  return text.length <= ECHO_CHARS ? text : `${text.slice(0, ECHO_CHARS)}…`
}

/** The value at `path`, own properties only. */
function at(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined
    value = (value as Record<PropertyKey, unknown>)[step]
  }
  return value
}
