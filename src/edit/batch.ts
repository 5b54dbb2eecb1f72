/** Text to a batch of edits, all or nothing, with every problem named by line, record and field. */
import { createHash } from 'node:crypto'
import { PalimpsestError, type Problem } from '../errors.ts'
import { type Edit, LIMITS } from './edit.ts'
import { type AnyFormat, detectFormat, readRecord } from './formats.ts'
import { type ReadContext, toWire } from './own.ts'
import { type Envelope, guessKind, isNotation, type Kind, type Located, readRecords } from './records.ts'
import { unknownField } from './spelling.ts'
import { show } from './values.ts'

export { toWire }

export interface ParseOptions {
  /** Notation; default `auto`: by `contentType`, then the name of `file`, then the text itself. */
  readonly kind?: Kind | 'auto'
  /** Media type of a request body; parameters such as charset are passed over. */
  readonly contentType?: string
  /** Default `auto`: each record's own. */
  readonly format?: AnyFormat | 'auto'
  /** Tenant of records that name none. */
  readonly tenant: string
  /** Default `one`: only `tenant` may be named. `any`: the file or its records may name others. */
  readonly tenants?: 'one' | 'any'
  /** Added to every edit's tags. */
  readonly tags?: readonly string[]
  /** Shown in problems. */
  readonly file?: string
}

export interface Batch {
  readonly edits: readonly Edit[]
  /** Of the records; `mixed` when they differ. */
  readonly format: AnyFormat | 'mixed'
  /** For each edit, the 1-based line on which its record begins. */
  readonly lines: readonly number[]
}

/** Problems carried by one error; its message gives their number in all. */
export const PROBLEMS_LISTED = 100

/**
 * Throws `invalid_batch` with all problems (the first 100 listed) when anything at all is wrong, or when nothing is there;
 * `request_too_large` above LIMITS.batchEdits; `unsupported_media_type`. Synchronous: some 30,000 records a second
 * (a third of that in YAML), so large files are read off the request path.
 */
export function parseBatch(input: string | Uint8Array, options: ParseOptions): Batch {
  const text = toText(input, options)
  const kind = kindOf(text, options)
  const items = kind === 'yaml' ? listItems(text) : 0
  if (items > LIMITS.batchEdits) throw tooLarge(items, options)
  const { records, envelope = {}, problems: noted } = readRecords(text, kind, (value) => detectFormat(value) === 'conflictedit')
  if (records.length > LIMITS.batchEdits) throw tooLarge(records.length, options)
  const { context, problems: around } = surroundings(envelope, options)
  const found = readAll(records, kind === 'csv' || kind === 'text' ? 'palimpsest' : (options.format ?? 'auto'), context)
  const problems = [...noted, ...around, ...found.problems].sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
  if (problems.length > 0) throw refusedBatch(problems, records.length, options)
  if (found.edits.length === 0)
    throw refusedBatch([{ field: null, message: 'the batch is empty; expected at least one edit' }], 0, options)
  if (found.edits.length > LIMITS.batchEdits) throw tooLarge(found.edits.length, options)
  return {
    edits: found.edits,
    format: found.formats.size === 1 ? ([...found.formats][0] as AnyFormat) : 'mixed',
    lines: found.lines,
  }
}

/** Of a YAML list, by the lines that begin one: reading a million takes minutes. */
function listItems(text: string): number {
  let items = text.startsWith('- ') ? 1 : 0
  for (let at = text.indexOf('\n- '); at !== -1; at = text.indexOf('\n- ', at + 1)) items++
  return items
}

function readAll(records: readonly Located[], format: AnyFormat | 'auto', context: ReadContext) {
  const edits: Edit[] = []
  const lines: number[] = []
  const problems: Problem[] = []
  const formats = new Set<AnyFormat>()
  for (const { value, index, line } of records) {
    const read = readRecord(value, format, context)
    for (const edit of read.edits) {
      edits.push(edit)
      lines.push(line)
    }
    for (const problem of read.problems) problems.push({ line, index, ...problem })
    const found = read.format ?? read.ruleFormat
    if (found !== undefined) formats.add(found)
  }
  return { edits, lines, problems, formats }
}

export const MEDIA_TYPES: Readonly<Record<string, Kind | 'auto'>> = {
  'application/json': 'auto', // clients send NDJSON under this name too
  'text/json': 'auto',
  'application/x-ndjson': 'ndjson',
  'application/ndjson': 'ndjson',
  'application/jsonl': 'ndjson',
  'application/x-jsonlines': 'ndjson',
  'application/yaml': 'yaml',
  'application/x-yaml': 'yaml',
  'text/yaml': 'yaml',
  'text/csv': 'csv',
  'text/plain': 'text',
  'application/octet-stream': 'auto',
  'application/x-www-form-urlencoded': 'auto', // what curl --data says unless told otherwise
}

export const ENDINGS: Readonly<Record<string, Kind>> = {
  ndjson: 'ndjson',
  jsonl: 'ndjson',
  yaml: 'yaml',
  yml: 'yaml',
  csv: 'csv',
  txt: 'text',
}

function kindOf(text: string, { kind = 'auto', contentType, file }: ParseOptions): Kind {
  if (kind !== 'auto') return kind
  const type = contentType?.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  const named = Object.hasOwn(MEDIA_TYPES, type) ? MEDIA_TYPES[type] : undefined
  if (type !== '' && named === undefined) {
    const known = Object.keys(MEDIA_TYPES).join(', ')
    throw new PalimpsestError('unsupported_media_type', `edits come as one of ${known}; got ${show(type)}`)
  }
  if (named !== undefined && named !== 'auto') return proseOr(named, text)
  const ending = file?.split('.').at(-1)?.toLowerCase() ?? ''
  const guess = Object.hasOwn(ENDINGS, ending) ? ENDINGS[ending] : undefined
  if (guess !== undefined) return proseOr(guess, text)
  const isJson = type.endsWith('/json') || ending === 'json'
  return isJson && !/^\s*[[{]/.test(text) ? 'json' : guessKind(text)
}

/** Plain text is sentences, unless it is in another notation that was sent under that name. */
function proseOr(kind: Kind, text: string): Kind {
  return kind === 'text' && isNotation(text) ? guessKind(text) : kind
}

/** Tenant and tags that a batch states once for all its edits. Checked as a record's own would be, on a stand-in. */
function surroundings(envelope: Envelope, options: ParseOptions): { context: ReadContext; problems: Problem[] } {
  const { tenant, tags, ...rest } = envelope
  const context: ReadContext = { tenant: options.tenant, tags: options.tags ?? [], tenants: options.tenants ?? 'one' }
  const standIn = { subject: 'x', prompt: 'x', target_new: 'x', tenant, tags }
  const read = readRecord(standIn, 'palimpsest', context)
  const unknown = Object.keys(rest).map((key) => ({
    field: key,
    message: `beside \`edits\`, ${unknownField(key, ['tenant', 'tags', 'edits'])}`,
  }))
  const [edit] = read.edits
  return {
    context: edit === undefined ? context : { ...context, tenant: edit.tenant, tags: edit.tags },
    problems: [...unknown, ...read.problems],
  }
}

function toText(input: string | Uint8Array, options: ParseOptions): string {
  if (typeof input === 'string') return input.startsWith('\uFEFF') ? input.slice(1) : input
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(input)
  } catch {
    const message = 'holds bytes that are not UTF-8; save the text as UTF-8'
    throw refusedBatch([{ line: firstBadLine(input), field: null, message }], 0, options)
  }
}

/** A newline byte is never part of another character in UTF-8, so lines can be tried one by one. */
function firstBadLine(bytes: Uint8Array): number {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let line = 1
  for (let from = 0; from < bytes.length; line++) {
    const newline = bytes.indexOf(10, from)
    const to = newline === -1 ? bytes.length : newline
    try {
      decoder.decode(bytes.subarray(from, to))
    } catch {
      return line
    }
    from = to + 1
  }
  return line
}

function refusedBatch(problems: readonly Problem[], records: number, { file }: ParseOptions): PalimpsestError {
  const listed = problems.slice(0, PROBLEMS_LISTED).map((problem) => (file === undefined ? problem : { file, ...problem }))
  const [worst] = listed
  const where = [worst?.line !== undefined && `line ${worst.line}`, worst?.field != null && show(worst.field).slice(1, -1)]
    .filter(Boolean)
    .join(', ')
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`
  const of = records > 0 ? ` in ${records === 1 ? 'one record' : `${records} records`}` : ''
  const more = problems.length > listed.length ? `; the first ${listed.length} are listed` : ''
  const message = `${file ?? 'The batch'} has ${count}${of}${more}, and nothing of it was taken. ${where === '' ? '' : `${where}: `}${sentence(worst?.message ?? '')}`
  return new PalimpsestError('invalid_batch', message, { param: worst?.field ?? null, problems: listed })
}

function sentence(message: string): string {
  return /[.?!]$/.test(message) ? message : `${message}.`
}

function tooLarge(edits: number, { file }: ParseOptions): PalimpsestError {
  const message = `${file ?? 'The batch'} holds ${edits} edits; one batch may hold ${LIMITS.batchEdits}. Send it in parts.`
  return new PalimpsestError('request_too_large', message)
}

/** `b_` and 16 hex digits over the edits' whole content, in order: posting the same batch again gives the same id. */
export function batchHash(edits: readonly Edit[]): string {
  const hash = createHash('sha256')
  for (const edit of edits) hash.update(`${JSON.stringify(toWire(edit))}\n`)
  return `b_${hash.digest('hex').slice(0, 16)}`
}
