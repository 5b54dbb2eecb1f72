import { type Edit, statement } from '../edit/edit.ts'
import { words } from '../edit/words.ts'

/** One edit as a template sees it. All text is verbatim data: a template prints it and never compiles it. */
export interface EditView {
  readonly kind: 'fact' | 'sentence' | 'rule'
  /** Empty where it names none. */
  readonly subject: string
  /** Of a rule, its occasion; of a sentence empty. */
  readonly prompt: string
  /** Of a rule, its instruction; of a sentence, itself: "PROMPT TARGET" tells every kind. */
  readonly target: string
  /** "PROMPT TARGET", without a full stop; of a rule "OCCASION: INSTRUCTION". */
  readonly statement: string
  /** Of a rule: what it is for, null for every message; and what is to be done. Null for other kinds. */
  readonly when: string | null
  readonly instruction: string | null
  /** The prompt where it is a question, so that a template can write question and answer instead of a sentence; else null. */
  readonly question: string | null
}

/** IKE's three kinds: the new fact asked back, asked in other words, and a question that the new fact must not touch. */
export type DemonstrationKind = 'copy' | 'update' | 'retain'

/** One worked example: under `fact`, `question` is answered by `answer`. */
export interface Demonstration {
  readonly kind: DemonstrationKind
  readonly fact: string
  readonly question: string
  readonly answer: string
}

/** What a template renders: one user turn. Edits and demonstrations are ordered with the best, the nearest, last. */
export interface Turn {
  readonly question: string
  /** The question breaks off: an unfinished sentence to go on with, not a question or a request. */
  readonly unfinished: boolean
  readonly edits: readonly EditView[]
  readonly demonstrations: readonly Demonstration[]
}

export interface Template {
  readonly name: string
  /** First 8 hex digits of the sha256 of its source. */
  readonly hash: string
  readonly description: string
  /** How many demonstrations it shows; 0: it has no place for them. */
  readonly demonstrations: number
  /** The new text of the user turn. */
  render(turn: Turn): string
}

export function viewOf(edit: Pick<Edit, 'kind' | 'subject' | 'prompt' | 'targetNew'>): EditView {
  const { kind = 'fact', subject } = edit
  const [prompt, target] = [edit.prompt.trim(), edit.targetNew.trim()]
  const view: EditView = {
    kind,
    subject,
    prompt,
    target,
    statement: statement(edit),
    when: null,
    instruction: null,
    question: null,
  }
  switch (kind) {
    case 'fact':
      return { ...view, question: prompt.endsWith('?') ? prompt : null }
    case 'sentence':
      return { ...view, prompt: '', target: prompt }
    case 'rule':
      return { ...view, when: prompt === '' ? null : prompt, instruction: target }
    default:
      return kind satisfies never
  }
}

/** Words that no English sentence ends with, save for the few questions that do and end in a question mark. */
const OPEN =
  /(?:^|[^\p{L}\p{N}])(?:in|of|is|by|from|the|on|at|was|to|for|as|a|an|within|after|with|are|were|and|or|than|into|has|had|its|their)\s*$/iu

const ASKING =
  'who whom whose what which when where why how is are was were am do does did can could would will should shall may might has have had'
const REQUESTS = `if hi hello hey ok okay tell give write name list show find get make create explain describe summarise summarize translate
  compose draft compare define discuss generate provide answer say state guess choose pick rewrite rephrase correct fix check complete finish
  continue calculate compute count convert suggest recommend imagine pretend act play use add remove print return implement solve prove outline
  sketch design plan invent identify classify extract express search look read sing help remind teach let`

const opening = (words: string) => words.trim().split(/\s+/).join('|')
/** A question begins: whole even without its last mark, and even when it ends in a preposition ("what show is he from"). */
const QUESTION = new RegExp(
  `^[^\\p{L}]*(?:(?:in|on|at|to|from|of|by|for|with|under)\\s+)?(?:${opening(ASKING)})\\b\\s+\\S|\\b(?:who|whom|what|where|when)\\s*$`,
  'iu',
)
/** Someone is spoken to: a request. */
const REQUEST = new RegExp(`^[^\\p{L}]*(?:${opening(REQUESTS)})\\b|\\b(?:I|you|your|me|my|us|our|please)\\b`, 'iu')
const END_MARK = /[.!?:;)\]}"”»`]\s*$/u
/** A last "sentence" longer than this is a document, a list or code, not a sentence to go on with. */
const SENTENCE_WORDS = 40

/** Whether a text breaks off before its end: its last sentence has no end mark and asks for another word, or asks nobody anything. Reads English. */
export function breaksOff(text: string): boolean {
  if (END_MARK.test(text)) return false
  const last = text.split(/(?<=[.!?]["”]?)\s+|\n+/u).at(-1) ?? ''
  if (QUESTION.test(last)) return false
  if (OPEN.test(last)) return true
  const length = words(last).length
  return length >= 2 && length <= SENTENCE_WORDS && !REQUEST.test(last)
}
