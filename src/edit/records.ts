/** From text to records with their lines, for each notation that batches and edit files come in. Nothing here knows what an edit is, but for CSV's columns. */
import { type CsvError, parse as parseCsvText } from 'csv-parse/sync'
import type { Problem } from '../errors.ts'
import { LIMITS } from './edit.ts'
import { hasPrototypeKey, repeatedKey } from './json-keys.ts'
import { linesAt, outline } from './json-outline.ts'
import { LIST_FIELDS, OWN_FIELDS } from './own.ts'
import { unknownField } from './spelling.ts'
import { show } from './values.ts'
import { readYaml } from './yaml.ts'

export type Kind = 'json' | 'ndjson' | 'yaml' | 'csv' | 'text'

export interface Located {
  readonly value: unknown
  /** 0-based position among the records, unreadable ones counted. */
  readonly index: number
  /** 1-based line on which the record begins. */
  readonly line: number
}

/** What stands around the records: `{tenant?, tags?, edits: [...]}`. Absent when the records stand alone. */
export type Envelope = Readonly<Record<string, unknown>>

export interface Records {
  readonly records: readonly Located[]
  readonly envelope?: Envelope
  /** Faults of the notation itself; where there are some, `records` holds what could still be read, for their own problems. */
  readonly problems: readonly Problem[]
}

/** Whether the object is one record by itself although it has a field `edits`. */
export type IsRecord = (value: Envelope) => boolean

export function readRecords(text: string, kind: Kind, isRecord: IsRecord): Records {
  switch (kind) {
    case 'json':
      return fromJson(text, isRecord)
    case 'ndjson':
      return fromNdjson(text)
    case 'yaml':
      return fromYaml(text, isRecord)
    case 'csv':
      return fromCsv(text)
    case 'text':
      return fromText(text)
    default:
      return kind satisfies never
  }
}

/** The notation of text that does not come with a name for it. */
export function guessKind(text: string): Kind {
  const start = /\S/.exec(text)?.[0]
  if (start === '[') return 'json'
  if (start === '{') return looksLikeLines(text) && parseJson(text) === undefined ? 'ndjson' : 'json'
  return delimiterOf(firstLine(text)) === null ? 'yaml' : 'csv'
}

const OPENING = new RegExp(`^(?:[[{]|---|(?:- )?(?:edits|${OWN_FIELDS.join('|')}):(?:\\s|$))`)

/** Whether text begins as records in some notation do, not as a sentence. */
export function isNotation(text: string): boolean {
  const lines = text.split('\n', PEEK_LINES).map((line) => line.trim())
  const begun = lines.find((line) => line !== '' && !line.startsWith('#')) ?? ''
  return OPENING.test(begun) || delimiterOf(begun) !== null
}

/** Several lines that each begin an object, one of the first whole by itself: NDJSON, be it with broken lines. */
function looksLikeLines(text: string): boolean {
  const begun = text.split('\n', PEEK_LINES).filter((line) => line.startsWith('{'))
  return (
    begun.length > 1 &&
    !/^\s*\{\s*"edits"\s*:/.test(text) &&
    begun.some((line) => /\}\s*$/.test(line) && parseJson(line) !== undefined)
  )
}

const PEEK_LINES = 50

/** Spreadsheets write semicolons where the comma is a decimal sign, and tabs where one is pasted from them. */
const DELIMITERS = [',', ';', '\t'] as const

/** What stands between the columns of a header row; null for a line that is none. */
function delimiterOf(line: string): string | null {
  const named = (delimiter: string) =>
    line
      .split(delimiter, HEADER_COLUMNS)
      .filter((column) => (OWN_FIELDS as readonly string[]).includes(column.trim().replace(/^"(.*)"$/, '$1'))).length
  return DELIMITERS.find((delimiter) => named(delimiter) > 1) ?? null
}

/** More are no header of ours, and would each be told. */
const HEADER_COLUMNS = 100

function firstLine(text: string): string {
  return text.trimStart().split('\n', 1)[0] ?? ''
}

function fromJson(text: string, isRecord: IsRecord): Records {
  const parsed = parseJson(text)
  const { root, elements, fault } = outline(text)
  if (parsed === undefined) return { records: [], problems: [jsonFault(text, fault ?? { at: text.length, expected: 'JSON' })] }
  const wrong = wrongKey(text, parsed.value)
  if (wrong !== null) return { records: [], problems: [wrong] }
  return unwrap(parsed.value, isRecord, linesAt(text, [root])[0] ?? 1, linesAt(text, elements))
}

function parseJson(text: string): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return undefined
  }
}

/** A list is its elements, an envelope its `edits`, anything else one record. */
function unwrap(value: unknown, isRecord: IsRecord, line: number, lines: readonly number[]): Records {
  const locate = (values: readonly unknown[]): Located[] =>
    values.map((element, index) => ({ value: element, index, line: lines[index] ?? line }))
  if (Array.isArray(value)) return { records: locate(value), problems: [] }
  if (typeof value === 'object' && value !== null && Object.hasOwn(value, 'edits') && !isRecord(value as Envelope)) {
    const { edits, ...envelope } = value as Envelope
    if (Array.isArray(edits)) return { records: locate(edits), envelope, problems: [] }
    return { records: [], problems: [{ line, field: 'edits', message: `expected a list of edits, got ${show(edits)}` }] }
  }
  if (typeof value !== 'string') return { records: [{ value, index: 0, line }], problems: [] }
  const message = `expected an object with the fields of an edit, got ${show(value)}; sentences come in a list, or one a line as plain text`
  return { records: [], problems: [{ line, index: 0, field: null, message }] }
}

function jsonFault(text: string, fault: { at: number; expected: string }): Problem {
  const line = linesAt(text, [fault.at])[0] ?? 1
  const column = fault.at - text.lastIndexOf('\n', fault.at - 1)
  const found = fault.at >= text.length ? 'the text ends' : `there is ${show([...text.slice(fault.at, fault.at + 2)][0])}`
  return { line, field: null, message: `not JSON: at column ${column} expected ${fault.expected}, but ${found}` }
}

/** A field named twice in one object, or one that no object may have. */
function wrongKey(text: string, value: unknown): Problem | null {
  if (hasPrototypeKey(text, value)) return { line: 1, field: '__proto__', message: 'is no field of any object: leave it out' }
  const repeated = repeatedKey(text)
  if (repeated === null) return null
  const line = linesAt(text, [repeated.at])[0] ?? 1
  return { line, field: repeated.key, message: 'is named twice in one object: name it once' }
}

/** One object a line; blank lines are passed over. */
function fromNdjson(text: string): Records {
  const records: Located[] = []
  const problems: Problem[] = []
  let index = 0
  for (const [above, written] of text.split('\n').entries()) {
    if (written.trim() === '') continue
    const line = above + 1
    const parsed = parseJson(written)
    const wrong = parsed === undefined ? null : wrongKey(written, parsed.value)
    if (wrong !== null) problems.push({ ...wrong, index, line })
    else if (parsed !== undefined) records.push({ value: parsed.value, index, line })
    else problems.push({ ...jsonFault(written, outline(written).fault ?? { at: 0, expected: 'JSON' }), index, line })
    index++
  }
  return { records, problems }
}

/** One sentence a line; blank lines and those that begin with `#` are passed over. */
function fromText(text: string): Records {
  const lines = text.split('\n').map((written, above) => ({ value: written.trim(), line: above + 1 }))
  const said = lines.filter(({ value }) => value !== '' && !value.startsWith('#'))
  return { records: said.map((one, index) => ({ ...one, index })), problems: [] }
}

function fromYaml(text: string, isRecord: IsRecord): Records {
  const { problems, value, line, elementLines } = readYaml(text)
  return problems.length > 0 || value === null ? { records: [], problems } : unwrap(value, isRecord, line, elementLines)
}

/** RFC 4180 with a header row of our own field names; lists are split at `|`. */
function fromCsv(text: string): Records {
  try {
    const rows = parseCsvText(text.replaceAll('\r\n', '\n'), {
      delimiter: delimiterOf(firstLine(text)) ?? ',',
      relax_column_count: true,
      skip_empty_lines: true,
      skip_records_with_empty_values: true,
      // One row more than a batch may have, after the header: enough to refuse it.
      to: LIMITS.batchEdits + 2,
      info: true,
    }) as unknown as Row[]
    const [head, ...written] = rows
    const columns = withoutEmptyEnd(
      (head?.record ?? []).map((column) => column.trim()),
      0,
    )
    const body = written.map((row) => ({ ...row, record: withoutEmptyEnd(row.record, columns.length) }))
    const problems = headerFaults(columns, lineOfRow(head))
    if (problems.length > 0) return { records: [], problems }
    for (const row of body) if (row.record.length !== columns.length) problems.push(countFault(row, columns.length))
    return {
      records: body.map((row, index) => ({ value: toRecord(columns, row.record), index, line: lineOfRow(row) })),
      problems,
    }
  } catch (error) {
    const { lines, message } = error as CsvError & { lines?: number }
    return {
      records: [],
      problems: [{ ...(lines !== undefined && { line: lines }), field: null, message: `not CSV: ${message}` }],
    }
  }
}

/** Without empty cells beyond the first `least`, as a delimiter at the end of a line makes them. */
function withoutEmptyEnd(cells: readonly string[], least: number): readonly string[] {
  let length = cells.length
  while (length > least && cells[length - 1]?.trim() === '') length--
  return cells.slice(0, length)
}

interface Row {
  readonly record: readonly string[]
  /** `lines`: those read so far, that is the row's last line. */
  readonly info: { readonly lines: number }
}

function lineOfRow(row: Row | undefined): number {
  return row === undefined ? 1 : row.info.lines - row.record.join('').split('\n').length + 1
}

function headerFaults(columns: readonly string[], line: number): Problem[] {
  if (columns.length > HEADER_COLUMNS)
    return [
      {
        line,
        field: null,
        message: `the header row has ${columns.length} columns; an edit has at most ${OWN_FIELDS.length} fields`,
      },
    ]
  const unknown = columns.filter((column) => !(OWN_FIELDS as readonly string[]).includes(column))
  const twice = columns.filter((column, index) => columns.indexOf(column) !== index && !unknown.includes(column))
  return [
    ...unknown.map((column) => ({ line, field: column, message: `the header row names an ${unknownField(column, OWN_FIELDS)}` })),
    ...twice.map((column) => ({ line, field: column, message: 'the header row names this field twice' })),
  ]
}

function countFault(row: Row, columns: number): Problem {
  return {
    line: lineOfRow(row),
    field: null,
    message: `has ${row.record.length} cells, but the header row names ${columns}; quote cells that hold a comma`,
  }
}

function toRecord(columns: readonly string[], cells: readonly string[]): Record<string, unknown> {
  const filled = columns.map((column, index) => [column, cells[index] ?? ''] as const).filter(([, cell]) => cell.trim() !== '')
  return Object.fromEntries(filled.map(([column, cell]) => [column, LIST_FIELDS.has(column) ? splitCell(cell) : cell]))
}

function splitCell(cell: string): string[] {
  return cell.split('|').filter((entry) => entry.trim() !== '')
}
