import { normalized } from '../edit/words.ts'
import type { TextPair } from '../engine/engine.ts'
import type { Candidate } from './candidate.ts'
import { type Calibration, score } from './gate.ts'
import type { Read } from './retriever.ts'
import { editText } from './text.ts'

/** Messages that have nothing to do with one another: hardly any edit is for two of them. */
export const UNRELATED = [
  'Tell me a joke about cats.',
  'What is 17 times 23?',
  'Wie backe ich ein Brot?',
  '富士山の高さを教えて。',
].map(normalized)
/** So many of them tell an edit that applies to any message. */
const LEAST_APPLYING = 3
/** Where it applies to none of these, it does not apply to so many. */
const FIRST = UNRELATED.slice(0, UNRELATED.length - LEAST_APPLYING + 1)
/** Least probability that counts as applying there, its name allowed for: an everyday word as a name is in any message. */
const SURELY = 0.15

/**
 * Ids of candidates that would apply to any message, though they are not declared `always`: what acts on every answer has to say so. Asked only of
 * those that apply; the reader's cache remembers it, so that an edit is tried once.
 */
export async function boundless(
  candidates: readonly Candidate[],
  calibration: Calibration,
  read: Read,
): Promise<ReadonlySet<string>> {
  const applying = candidates.filter((c) => !c.edit.always && score(c, calibration) >= calibration.threshold)
  if (applying.length === 0) return new Set()
  const counts = async (some: readonly Candidate[], texts: readonly string[]) => {
    const logits = await read(some.flatMap(({ edit }) => texts.map((text): TextPair => [text, editText(edit)])))
    const applies = (c: Candidate, at: number) =>
      score({ ...c, logit: logits[at] ?? Number.NEGATIVE_INFINITY }, calibration) >= SURELY
    return some.map((c, i) => texts.filter((_, j) => applies(c, i * texts.length + j)).length)
  }
  const first = await counts(applying, FIRST)
  const open = applying.flatMap((candidate, i) => (first[i] === 0 ? [] : [{ candidate, count: first[i] ?? 0 }]))
  const rest = await counts(
    open.map(({ candidate }) => candidate),
    UNRELATED.slice(FIRST.length),
  )
  const ids = open.flatMap(({ candidate, count }, i) => (count + (rest[i] ?? 0) < LEAST_APPLYING ? [] : [candidate.edit.id]))
  return new Set(ids)
}
