import { normalized } from '../edit/words.ts'
import type { TextPair } from '../engine/engine.ts'
import type { Candidate } from './candidate.ts'
import { type Calibration, score } from './gate.ts'
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
/** Least probability that counts as applying there, its name allowed for: an everyday word as a name is in any message. */
const SURELY = 0.15

/**
 * Ids of candidates that would apply to any message, though they are not declared `always`: what acts on every answer has to say so. Asked only of
 * those that apply; the reader's cache remembers it, so that an edit is tried once.
 */
export async function boundless(
  candidates: readonly Candidate[],
  calibration: Calibration,
  read: (pairs: readonly TextPair[]) => Promise<Float32Array>,
): Promise<ReadonlySet<string>> {
  const applying = candidates.filter((c) => !c.edit.always && score(c, calibration) >= calibration.threshold)
  if (applying.length === 0) return new Set()
  const logits = await read(applying.flatMap(({ edit }) => UNRELATED.map((text): TextPair => [text, editText(edit)])))
  const applies = (c: Candidate, logit: number) => score({ ...c, logit }, calibration) >= SURELY
  const count = (c: Candidate, i: number) =>
    UNRELATED.filter((_, j) => applies(c, logits[i * UNRELATED.length + j] ?? Number.NEGATIVE_INFINITY)).length
  return new Set(applying.flatMap((c, i) => (count(c, i) >= LEAST_APPLYING ? [c.edit.id] : [])))
}
