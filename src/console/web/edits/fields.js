// @ts-check
// The fields of an edit by form: which kinds have them, how they are asked for, and how they become an edit and back.
import { kindOf, statementOf } from '../shell/statement.js'

/**
 * @typedef {import('../shell/statement.js').Kind} Kind
 * @typedef {{name: string, label: string, hint: string, many?: 'lines' | 'commas', needed?: boolean, rows?: number, of?: readonly Kind[]}} FieldOf
 *   `many`: how a list is written; `of`: the kinds that have it, all of them where none is named
 */

/** What an edit of each kind cannot do without, or is found by. @type {Record<Kind, readonly FieldOf[]>} */
export const FIRST = {
  sentence: [
    {
      name: 'text',
      label: 'What should it know or do?',
      hint: 'One plain sentence is enough: “Our refund window is 30 days.”',
      needed: true,
      rows: 3,
    },
  ],
  fact: [
    {
      name: 'prompt',
      label: 'Prompt',
      hint: 'A question, or a statement without its end: “The capital of France is”. {} stands for the subject.',
      needed: true,
      rows: 2,
    },
    { name: 'target_new', label: 'Answer', hint: 'What the model is to say from now on.', needed: true },
    { name: 'subject', label: 'Subject', hint: 'What it is about, where that has a name. Optional.' },
    { name: 'aliases', label: 'Other names of the subject', hint: 'One to a line.', many: 'lines' },
  ],
  rule: [
    {
      name: 'when',
      label: 'When it applies',
      hint: 'The messages that it is for: “someone asks for a refund”.',
      needed: true,
      rows: 2,
    },
    {
      name: 'instruction',
      label: 'What to do',
      hint: 'An instruction to the model: “Name the form on our website.”',
      needed: true,
      rows: 3,
    },
  ],
}

/** @type {readonly FieldOf[]} */
export const WORDINGS = [
  {
    name: 'paraphrases',
    label: 'Other wordings of the prompt',
    hint: 'One to a line. They make it found more surely.',
    many: 'lines',
    of: ['fact'],
  },
]

/** @type {readonly FieldOf[]} */
export const EXAMPLES = [
  { name: 'examples', label: 'Messages that need it', hint: 'Optional, one to a line.', many: 'lines' },
  {
    name: 'counterexamples',
    label: 'Messages that look like it and do not',
    hint: 'Optional, one to a line.',
    many: 'lines',
  },
]

/** @type {readonly FieldOf[]} */
export const TAGS = [{ name: 'tags', label: 'Tags', hint: 'Optional, with commas between.', many: 'commas' }]

/** @type {readonly FieldOf[]} */
export const RARE = [
  { name: 'source', label: 'Source', hint: 'Where you have it from: a link, a ticket, a file.' },
  {
    name: 'models',
    label: 'Only for models',
    hint: 'Names with commas between; * stands for anything. Blank: all.',
    many: 'commas',
  },
  { name: 'valid_from', label: 'Valid from', hint: '2026-01-31, or 2026-01-31T12:00Z. Blank: at once.' },
  { name: 'valid_to', label: 'Valid to', hint: 'That moment excluded. Blank: until further notice.' },
  { name: 'relation', label: 'Relation', hint: 'A label such as “capital”. Blank: read from the prompt.', of: ['fact'] },
  { name: 'target_true', label: 'Answer before', hint: 'What was true until now; kept for evaluation.', of: ['fact'] },
]

/** Every field that an edit of the kind has, and of `always` where it is a rule. @param {Kind} kind @returns {readonly FieldOf[]} */
export function fieldsOf(kind) {
  return [...FIRST[kind], ...ofKind([...WORDINGS, ...EXAMPLES, ...TAGS, ...RARE], kind)]
}

/** @param {readonly FieldOf[]} fields @param {Kind} kind */
export function ofKind(fields, kind) {
  return fields.filter(({ of }) => of === undefined || of.includes(kind))
}

/** What stands in the form: by field, as typed; `always` is "true" or blank. @typedef {Record<string, string>} Values */

/** @param {Values} values @param {Kind} kind @param {string | null} id @returns {Record<string, unknown>} */
export function editOf(values, kind, id) {
  /** @type {Record<string, unknown>} */
  const edit = id === null ? {} : { id }
  const always = kind === 'rule' && values.always === 'true'
  if (always) edit.always = true
  for (const { name, many, needed } of fieldsOf(kind)) {
    const value = (values[name] ?? '').trim()
    if ((always && name === 'when') || (value === '' && !needed)) continue
    edit[name] = many
      ? value
          .split(many === 'lines' ? '\n' : ',')
          .map((one) => one.trim())
          .filter(Boolean)
      : value
  }
  return edit
}

/** @param {any} edit @returns {Values} */
export function valuesOf(edit) {
  const fields = fieldsOf(kindOf(edit)).map(({ name, many }) => [
    name,
    many ? (edit[name] ?? []).join(many === 'lines' ? '\n' : ', ') : (edit[name] ?? ''),
  ])
  return { ...Object.fromEntries(fields), always: edit.always ? 'true' : '' }
}

/** Where what was typed so far is carried when another kind's fields unfold. @type {Record<Kind, string>} */
const WORDS = { sentence: 'text', fact: 'prompt', rule: 'instruction' }

/** The same words under another kind: the sentence, the prompt, what to do. @param {Values} values @param {Kind} from @param {Kind} to @returns {Values} */
export function carried(values, from, to) {
  const words = (/** @type {Kind} */ kind) =>
    kind === 'rule' ? (values.instruction ?? '').trim() : statementOf(editOf(values, kind, null))
  if (words(from) === '' || words(from) === words(to)) return values
  return { ...values, [WORDS[to]]: words(from), ...(to === 'fact' && { target_new: '' }) }
}
