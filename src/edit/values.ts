/** Schemas of the kinds of value an edit is made of, with messages that say what was expected and what came. */
import { z } from 'zod'

/** Control characters other than tab and newline, and halves of surrogate pairs: neither survives storage and tokenizing as written. */
const UNFIT = /(?![\t\n])\p{Cc}|\p{Cs}/u
/** Ids and tenants travel in URLs, headers and file names. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._:@+-]*$/

/** Text of 1 to `maxChars` UTF-16 units once trimmed; `meaning` helps whoever left it out. */
export function text(maxChars: number, meaning?: string) {
  return z
    .string({ error: (issue) => expected(meaning === undefined ? 'a text' : `a text, ${meaning}`, issue.input) })
    .overwrite(tidy)
    .superRefine((value, check) => {
      const message = textFault(value, maxChars)
      if (message !== undefined) check.addIssue({ code: 'custom', message })
    })
    .meta({ minLength: 1, maxLength: maxChars, ...(meaning !== undefined && { description: sentence(meaning) }) })
}

const sentence = (words: string) => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`

/** An id: ASCII letters, digits and `. _ : @ + -`. */
export function name(maxChars: number) {
  return z
    .string({ error: (issue) => expected('a text', issue.input) })
    .overwrite(tidy)
    .superRefine((value, check) => {
      const message = textFault(value, maxChars) ?? (NAME.test(value) ? undefined : badName(value))
      if (message !== undefined) check.addIssue({ code: 'custom', message })
    })
    .meta({ minLength: 1, maxLength: maxChars, pattern: NAME.source })
}

/** Null and blank mean absent. */
export function optional<T extends z.ZodType>(schema: T) {
  return z.preprocess((value) => (isAbsent(value) ? undefined : value), schema.optional())
}

/** True, or absent: in a table the word. */
export const truth = z.preprocess(
  (value) => (isAbsent(value) || isFalse(value) ? undefined : value === 'true' ? true : value),
  z.literal(true, { error: (issue) => `expected true or false, got ${show(issue.input)}` }).optional(),
)

/** A list without repetitions; absent means empty. */
export function list<T extends z.ZodType<string>>(item: T, maxItems: number) {
  const items = z
    .array(item, { error: (issue) => expected('a list of texts', issue.input) })
    .max(maxItems, { error: (issue) => `has ${(issue.input as unknown[]).length} entries; at most ${maxItems} are taken` })
    .overwrite((values) => [...new Set(values)])
  return z.preprocess((value) => (isAbsent(value) ? undefined : value), items.default([]))
}

export function isAbsent(value: unknown): boolean {
  return value === undefined || value === null || (typeof value === 'string' && value.trim() === '')
}

export function isFalse(value: unknown): boolean {
  return value === false || value === 'false'
}

function tidy(value: string): string {
  return value.replaceAll('\r\n', '\n').trim()
}

function textFault(value: string, maxChars: number): string | undefined {
  if (value === '') return 'must not be empty'
  if (value.length > maxChars) return `has ${value.length} characters; at most ${maxChars} are taken`
  const unfit = UNFIT.exec(value)
  if (unfit === null) return undefined
  const code = value.charCodeAt(unfit.index).toString(16).toUpperCase().padStart(4, '0')
  return `holds U+${code}, a control character or half of a surrogate pair, as character ${unfit.index + 1}; take it out`
}

function badName(value: string): string {
  return `must begin with a letter or digit and hold only letters, digits and . _ : @ + - (ASCII), got ${show(value)}`
}

function expected(what: string, input: unknown): string {
  if (input === undefined) return `is missing; expected ${what}`
  const quote = typeof input === 'number' || typeof input === 'boolean' ? '; put it in quotes' : ''
  return `expected ${what}, got ${show(input)}${quote}`
}

const SHOWN_CHARS = 60

/** A value as a message shows it: short, on one line, and safe on a terminal. */
export function show(value: unknown): string {
  if (Array.isArray(value)) return value.length === 1 ? 'a list of 1' : `a list of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  const written = typeof value === 'string' ? JSON.stringify(value) : String(value)
  return written.length <= SHOWN_CHARS ? written : `${written.slice(0, SHOWN_CHARS)}…`
}
