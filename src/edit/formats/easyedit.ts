import { type Draft, has, hasAny, type Json, oldAnswer, type Reader, type Taken, take } from './draft.ts'

const MARKS = ['ground_truth', 'rephrase_prompt', 'portability', 'locality', 'loc_prompt', 'target_neg']

/** EasyEdit asks for the subject only where a method needs one, and so do we; it is not guessed. */
export const easyedit: Reader = {
  about: {
    of: 'EasyEdit (Wang et al. 2024)',
    takes: '`prompt`, `target_new`, `ground_truth`, `subject`; or lists of them, a column each, with `prompts`',
    leaves: 'rephrase, portability and locality prompts',
  },
  recognises: (record) => (has(record, 'prompt') && hasAny(record, ...MARKS)) || has(record, 'prompts', 'target_new'),
  drafts: (record) => (hasAny(record, 'prompts') ? columns(record) : [draft((field) => take(record, field), 'prompt')]),
}

function columns(record: Json): Draft[] {
  const rows = Math.max(...['prompts', 'target_new', 'subject'].map((field) => rowsOf(record, field)))
  return Array.from({ length: rows }, (_, row) => draft((field) => cell(record, field, row), 'prompts'))
}

function draft(field: (name: string) => Taken, prompt: string): Draft {
  return {
    subject: field('subject'),
    prompt: field(prompt),
    target_new: field('target_new'),
    target_true: oldAnswer(field('ground_truth')),
  }
}

function rowsOf(record: Json, field: string): number {
  const column = record[field]
  return Array.isArray(column) ? column.length : 1
}

/** A column of one edit may be written without its list. */
function cell(record: Json, field: string, row: number): Taken {
  const column = record[field]
  return Array.isArray(column) || row > 0 ? take(record, `${field}.${row}`) : take(record, field)
}
