/** A published benchmark file to records with their edits and probes. Edits are read by src/edit, probes here. */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import type { Edit } from '../../edit/edit.ts'
import type { Json } from '../../edit/formats/draft.ts'
import { detectFormat, type Format, readRecord } from '../../edit/formats.ts'
import { outline } from '../../edit/json-outline.ts'
import { guessKind, readRecords } from '../../edit/records.ts'
import { PalimpsestError, type Problem } from '../../errors.ts'
import { conflictedit } from '../probes/conflictedit.ts'
import { counterfact } from '../probes/counterfact.ts'
import { Fields } from '../probes/fields.ts'
import { knowedit } from '../probes/knowedit.ts'
import { mquake } from '../probes/mquake.ts'
import { palimpsest } from '../probes/own.ts'
import type { ProbeReader } from '../probes/reader.ts'
import { wikifactdiff } from '../probes/wikifactdiff.ts'
import { zsre } from '../probes/zsre.ts'
import type { Probe, ProbeDraft } from './probe.ts'

const READERS: Readonly<Record<Format, ProbeReader>> = {
  palimpsest,
  easyedit: knowedit,
  counterfact,
  zsre,
  knowedit,
  mquake,
  wikifactdiff,
  conflictedit,
}

export interface DataRecord {
  /** 0-based position in the file. */
  readonly index: number
  readonly edits: readonly Edit[]
  readonly probes: readonly Probe[]
}

export interface Dataset {
  /** The file's name, without its folder. */
  readonly name: string
  readonly format: Format | 'mixed'
  readonly records: readonly DataRecord[]
}

/** Everything is read as of one tenant: an evaluation has one memory. */
export const TENANT = 'default'

/** Problems carried by one error; its message gives their number in all. */
export const PROBLEMS_LISTED = 100

export function readDatasetFile(file: string, format: Format | 'auto'): Dataset {
  return readDataset(readTextFile(file), basename(file), format)
}

/** Throws `invalid_batch` with every problem, by record and field, when anything at all is wrong. */
export function readDataset(text: string, name: string, format: Format | 'auto' = 'auto'): Dataset {
  const read = readRecords(text, guessKind(text), (value) => detectFormat(value) === 'conflictedit')
  const problems = read.problems.map((problem) => ({ file: name, ...problem, ...brokenRecord(text, problem) }))
  const formats = new Set<Format>()
  const records: DataRecord[] = []
  for (const { value, index } of read.records) {
    const one = readOne(value, index, format)
    problems.push(...one.problems.map((problem) => ({ file: name, index, ...problem })))
    if (one.format !== undefined) formats.add(one.format)
    records.push({ index, edits: one.edits, probes: one.probes })
  }
  if (problems.length === 0 && records.length === 0)
    problems.push({ file: name, field: null, message: 'holds no record; expected at least one edit with its probes' })
  if (problems.length > 0) throw refusal(problems, name, read.records.length)
  return { name, format: formats.size === 1 ? ([...formats][0] as Format) : 'mixed', records }
}

/** Which record of a list the text stops being JSON in; the notation's own problems have a line only. */
function brokenRecord(text: string, { index, message }: Problem): Partial<Problem> {
  const begun = outline(text).elements.length
  return index !== undefined || begun === 0 ? {} : { message: `record ${begun} is cut off or broken; ${message}` }
}

interface One extends Omit<DataRecord, 'index'> {
  readonly problems: readonly Problem[]
  readonly format: Format | undefined
}

function readOne(value: unknown, index: number, wanted: Format | 'auto'): One {
  const { edits, problems, format } = readRecord(value, wanted, { tenant: TENANT, tags: [], tenants: 'any' })
  const [first, ...others] = edits.map((edit): Edit => ({ ...edit, tenant: TENANT }))
  if (first === undefined || format === undefined) return { edits: [], probes: [], problems, format }
  const fields = new Fields(value as Json)
  const drafts = READERS[format](fields, [first, ...others]).filter(isAsked)
  const numbers = new Map<string, number>()
  const probes = drafts.map(({ text, ...draft }): Probe => {
    const place = `${index}/${draft.kind}/${draft.sub}`
    const number = numbers.get(place) ?? 0
    numbers.set(place, number + 1)
    return { ...draft, id: `${place}/${number}`, record: index, turns: [text] }
  })
  return { edits: [first, ...others], probes, problems: fields.problems, format }
}

/** A blank text asks nothing, and what has to follow from an edit can't be judged without an answer (wiki_recent has such). */
function isAsked({ text, wants, answers }: ProbeDraft): boolean {
  return text !== '' && (wants.length === 0 || answers.some((answer) => answer !== ''))
}

/** UTF-8 text without a byte-order mark; throws `invalid_value`. */
export function readTextFile(file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(file))
  } catch (cause) {
    const what = cause instanceof TypeError ? 'it holds bytes that are not UTF-8' : (cause as Error).message
    throw new PalimpsestError('invalid_value', `${file} can't be read: ${what}. Name a file that is there, in UTF-8.`, { cause })
  }
}

/** All of a file's problems as one error. */
export function refusal(problems: readonly Problem[], name: string, records: number): PalimpsestError {
  const listed = problems.slice(0, PROBLEMS_LISTED)
  const [{ index, line, field, message } = { field: null, message: '' } as Problem] = listed
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`
  const more = problems.length > listed.length ? `; the first ${listed.length} are listed` : ''
  const place = [index === undefined ? line && `line ${line}` : `record ${index + 1}`, field].filter(Boolean).join(', ')
  return new PalimpsestError(
    'invalid_batch',
    `${name} has ${count} in ${records} records${more}, and nothing of it was taken. ${place === '' ? '' : `${place}: `}${message}.`,
    { param: field, problems: listed },
  )
}
