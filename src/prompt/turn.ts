import { type Edit, statement } from '../edit/edit.ts'

/** One edit as a template sees it. All text is verbatim data: a template prints it and never compiles it. */
export interface EditView {
  readonly subject: string
  readonly prompt: string
  readonly target: string
  /** "PROMPT TARGET", without a full stop. */
  readonly statement: string
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

export function viewOf(edit: Pick<Edit, 'subject' | 'prompt' | 'targetNew'>): EditView {
  const prompt = edit.prompt.trim()
  const question = prompt.endsWith('?') ? prompt : null
  return { subject: edit.subject, prompt, target: edit.targetNew.trim(), statement: statement({ ...edit, prompt }), question }
}

/** Words that no English sentence ends with, save for the few questions that do and end in a question mark. */
const OPEN =
  /(?:^|[^\p{L}\p{N}])(?:in|of|is|by|from|the|on|at|was|to|for|as|a|an|within|after|with|are|were|and|or|than|into|has|had|its|their)\s*$/iu

/** Whether a text breaks off before its end: no end mark, and its last word asks for another. Other languages: false. */
export function breaksOff(text: string): boolean {
  return OPEN.test(text)
}
