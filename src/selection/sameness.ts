import { type Edit, statement } from '../edit/edit.ts'
import { normalized, words } from '../edit/words.ts'
import type { TextPair } from '../engine/engine.ts'
import { editText } from './text.ts'

/** Log-odds from which on what one edit answers is what another answers, read in both directions: 80 %, for a pair taken for the same hides one. */
const SURE = Math.log(0.8 / 0.2)

const nameKey = (name: string): string => words(name).join(' ')

/** The names of an edit's subject, as compared; the subject first. */
export function namesOf({ subject, aliases }: Pick<Edit, 'subject' | 'aliases'>): string[] {
  return [subject, ...aliases].map(nameKey).filter((name) => name !== '')
}

/** One is about what the other calls its subject. An alias in common is not enough: "Paris" is two cities'. Without a subject, the texts decide. */
export function sameSubject(a: readonly string[], b: readonly string[]): boolean {
  if (a.length === 0 || b.length === 0) return true
  return (a[0] !== undefined && b.includes(a[0])) || (b[0] !== undefined && a.includes(b[0]))
}

export function sameTarget(a: Edit, b: Edit): boolean {
  return nameKey(a.targetNew === '' ? statement(a) : a.targetNew) === nameKey(b.targetNew === '' ? statement(b) : b.targetNew)
}

/** Whether the edits may contradict each other: about one subject, of one kind of statement, and saying different things. */
export function rivals(a: Edit, b: Edit): boolean {
  if (a.id === b.id || (a.kind === 'rule') !== (b.kind === 'rule') || a.always || b.always) return false
  if (a.relation !== undefined && b.relation !== undefined && a.relation !== b.relation) return false
  return sameSubject(namesOf(a), namesOf(b)) && !sameTarget(a, b)
}

/** What the reader is asked of two rivals: each one's own question, against the other. */
export function samenessPairs(a: Edit, b: Edit): [TextPair, TextPair] {
  return [
    [normalized(a.prompt), editText(b)],
    [normalized(b.prompt), editText(a)],
  ]
}

/** Whether both ask the same, by the reader's log-odds of `samenessPairs`. */
export function asksSame([one, other]: readonly [number, number]): boolean {
  return Math.min(one, other) >= SURE
}
