import { type Edit, statement } from '../edit/edit.ts'
import { normalized, words } from '../edit/words.ts'
import type { TextPair } from '../engine/engine.ts'
import type { SelectionQuery } from '../request.ts'
import type { Considered } from '../trace.ts'
import type { Candidate } from './candidate.ts'
import { type Calibration, score, shown } from './gate.ts'
import type { Read, Retriever } from './retriever.ts'
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

/**
 * The candidates without those that a later one contradicts in other words. What speaks for one of these speaks for the later: they answer the
 * same question. Most turns have no two such and cost nothing.
 */
export async function latest(
  query: SelectionQuery,
  candidates: readonly Candidate[],
  calibration: Calibration,
  source: Pick<Retriever, 'landed'> & { readonly read: Read },
): Promise<{ current: readonly Candidate[]; outdated: readonly Considered[] }> {
  const read = candidates.filter(({ logit }) => logit !== null)
  const needed = read.filter((c) => score(c, calibration) >= calibration.threshold)
  const pairs = needed.flatMap((one) =>
    read.filter((other) => rivals(one.edit, other.edit)).map((other) => [one, other] as const),
  )
  if (pairs.length === 0) return { current: candidates, outdated: [] }
  const logits = await source.read(pairs.flatMap(([one, other]) => samenessPairs(one.edit, other.edit)))
  const landed = ({ edit }: Candidate) => source.landed(query, edit.id)
  const laterOf = new Map<string, Candidate>()
  for (const [i, pair] of pairs.entries()) {
    if (!asksSame([logits[2 * i] ?? 0, logits[2 * i + 1] ?? 0])) continue
    const [earlier, later] = pair.toSorted((a, b) => landed(a) - landed(b)) as [Candidate, Candidate]
    const known = laterOf.get(earlier.edit.id)
    if (landed(earlier) < landed(later) && (known === undefined || landed(known) < landed(later)))
      laterOf.set(earlier.edit.id, later)
  }
  /** The last of those that follow. */
  const successorOf = ({ edit }: Candidate): Candidate | undefined => {
    const later = laterOf.get(edit.id)
    return later && (successorOf(later) ?? later)
  }
  const successors = new Map(candidates.flatMap((c) => [[c, successorOf(c)] as const]))
  const current = candidates
    .filter((c) => successors.get(c) === undefined)
    .map((successor) => {
      const left = candidates.filter((c) => !c.counter && successors.get(c)?.edit.id === successor.edit.id)
      const best = [successor, ...left].reduce((a, b) => (score(b, calibration) > score(a, calibration) ? b : a))
      return { ...best, edit: successor.edit, counter: successor.counter }
    })
  const outdated = [...successors].flatMap(([c, successor]): Considered[] =>
    successor === undefined ? [] : [{ ...shown(c), score: 0, reason: 'outdated', outdatedBy: successor.edit.id }],
  )
  return { current, outdated }
}
