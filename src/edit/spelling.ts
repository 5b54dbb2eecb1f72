/** Names that were nearly right. */
import { distance } from 'fastest-levenshtein'
import { show } from './values.ts'

/** A sentence on a field that does not exist: the known field it was most likely meant for, else all of them. */
export function unknownField(key: string, known: readonly string[]): string {
  const near = nearest(key, known)
  const hint = near === undefined ? `the fields are ${known.join(', ')}` : `did you mean \`${near}\`?`
  return `unknown field \`${show(key).slice(1, -1)}\`; ${hint}`
}

/** What people call our fields elsewhere, where spelling alone does not lead there. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  groundtruth: 'target_true',
  old: 'target_true',
  answer: 'target_new',
  new: 'target_new',
  rephrase: 'paraphrases',
  rephraseprompt: 'paraphrases',
  question: 'prompt',
  entity: 'subject',
  sentence: 'text',
  condition: 'when',
  trigger: 'when',
  behaviour: 'instruction',
  behavior: 'instruction',
}

/** Nothing longer is a slip of the pen in one of our names. */
const LONGEST_CHARS = 24
/** Letters wrong, missing or too many. */
const SLIPS = 2

function nearest(key: string, known: readonly string[]): string | undefined {
  const plain = bare(key)
  const elsewhere = Object.hasOwn(ELSEWHERE, plain) ? ELSEWHERE[plain] : undefined
  if (elsewhere !== undefined && known.includes(elsewhere)) return elsewhere
  if (plain.length < 2 || plain.length > LONGEST_CHARS) return undefined
  const ranked = known.map((field) => {
    const name = bare(field)
    const far = Math.abs(name.length - plain.length) > SLIPS ? Number.POSITIVE_INFINITY : distance(plain, name)
    return { field, far, begins: name.startsWith(plain) }
  })
  const best = ranked.reduce((a, b) => (b.far < a.far ? b : a))
  if (best.far <= Math.min(SLIPS, plain.length - 1)) return best.field
  return ranked.find(({ begins }) => begins)?.field
}

const bare = (field: string): string => field.toLowerCase().replace(/[^a-z]/g, '')
