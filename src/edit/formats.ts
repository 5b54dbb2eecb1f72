/** Outside formats: which one a record is in, and the edits it holds. */
import { conflictedit } from './formats/conflictedit.ts'
import { convsent } from './formats/convsent.ts'
import { counterfact } from './formats/counterfact.ts'
import { type Draft, hasAny, isJson, type Json, type Reader } from './formats/draft.ts'
import { easyedit } from './formats/easyedit.ts'
import { knowedit } from './formats/knowedit.ts'
import { mquake } from './formats/mquake.ts'
import { personalityedit } from './formats/personalityedit.ts'
import { wikifactdiff } from './formats/wikifactdiff.ts'
import { zsre } from './formats/zsre.ts'
import { type OwnField, type ReadContext, type Reading, readFields } from './own.ts'
import { show } from './values.ts'

/** Of facts: their files carry probes beside the edits. */
export type Format = 'palimpsest' | 'easyedit' | 'counterfact' | 'zsre' | 'knowedit' | 'mquake' | 'wikifactdiff' | 'conflictedit'
/** Of behaviours: their records become rules. */
export type RuleFormat = 'personalityedit' | 'convsent'
export type AnyFormat = Format | RuleFormat

/** Tried in this order: the more particular first. */
export const READERS: Readonly<Record<Exclude<AnyFormat, 'palimpsest'>, Reader>> = {
  mquake,
  counterfact,
  conflictedit,
  wikifactdiff,
  zsre,
  knowedit,
  personalityedit,
  convsent,
  easyedit,
}
const OUTSIDE = Object.keys(READERS) as (keyof typeof READERS)[]
export const FORMATS: readonly AnyFormat[] = ['palimpsest', ...OUTSIDE]
/** Those that `palimpsest eval` asks the probes of. */
export const PROBED_FORMATS: readonly Format[] = FORMATS.filter((format): format is Format => !isRuleFormat(format))

/** Fields that only our own shape has: with one of them, a stray `ground_truth` is a slip to report, not another format. */
const ONLY_OURS: readonly OwnField[] = [
  'aliases',
  'target_true',
  'relation',
  'paraphrases',
  'examples',
  'counterexamples',
  'when',
  'instruction',
  'always',
  'tags',
  'tenant',
  'models',
  'valid_from',
  'valid_to',
  'source',
]
const OURS: readonly OwnField[] = ['subject', 'prompt', 'target_new', 'text', 'when', 'instruction', 'always']
const LEAST = 'prompt and target_new, or text, or when and instruction'

/** By the fields present; undefined when the record is in no format known here. */
export function detectFormat(record: unknown): AnyFormat | undefined {
  if (!isJson(record)) return undefined
  const outside = OUTSIDE.find((format) => READERS[format].recognises(record))
  if (outside === 'easyedit' && hasAny(record, ...ONLY_OURS)) return 'palimpsest'
  return outside ?? (hasAny(record, ...OURS) ? 'palimpsest' : undefined)
}

/** The edits of one record, or all its problems; never throws, never both. */
export function readRecord(
  record: unknown,
  format: AnyFormat | 'auto',
  context: ReadContext,
): Reading & { readonly format?: Format; readonly ruleFormat?: RuleFormat } {
  // A sentence by itself.
  if (typeof record === 'string' && (format === 'auto' || format === 'palimpsest'))
    return { ...readFields({ text: record }, context), format: 'palimpsest' }
  if (!isJson(record)) return refuse(`expected an object with the fields of an edit, got ${show(record)}`)
  const found = format === 'auto' ? detectFormat(record) : format
  if (found === undefined) return refuse(unrecognised(record))
  if (found === 'palimpsest') return { ...readFields(record, context), format: found }
  const readings = READERS[found].drafts(record).map((draft) => readDraft(draft, context))
  if (readings.length === 0) return refuse(`the ${found} record holds no edit`)
  const problems = readings.flatMap((reading) => reading.problems)
  const named = isRuleFormat(found) ? { ruleFormat: found } : { format: found }
  return { edits: problems.length > 0 ? [] : readings.flatMap((reading) => reading.edits), problems, ...named }
}

function isRuleFormat(format: AnyFormat): format is RuleFormat {
  return format === 'personalityedit' || format === 'convsent'
}

function readDraft(draft: Draft, context: ReadContext): Reading {
  const problems = Object.values(draft).flatMap(({ path, fault }) =>
    fault === undefined ? [] : [{ field: path, message: fault }],
  )
  if (problems.length > 0) return { edits: [], problems }
  const taken = Object.entries(draft).filter(([, { value }]) => value !== undefined)
  return readFields(Object.fromEntries(taken.map(([field, { value }]) => [field, value])), context, (own) => {
    const [field] = own
    return draft[field as OwnField]?.path ?? own.map(String).join('.')
  })
}

function refuse(message: string): Reading {
  return { edits: [], problems: [{ field: null, message }] }
}

const SHOWN_FIELDS = 12

function unrecognised(record: Json): string {
  const fields = Object.keys(record)
  if (fields.length === 0) return `the record is empty; expected at least ${LEAST}`
  const shown = fields.slice(0, SHOWN_FIELDS).map((field) => show(field).slice(1, -1))
  const rest = fields.length > SHOWN_FIELDS ? ` and ${fields.length - SHOWN_FIELDS} more` : ''
  return `record has fields ${shown.join(', ')}${rest}; expected ${LEAST}, or one of the formats ${OUTSIDE.join(', ')}`
}
