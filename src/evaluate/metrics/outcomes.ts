import type { Edit } from '../../edit/edit.ts'
import { isWanted, type Probe } from '../data/probe.ts'
import type { Method } from '../methods/methods.ts'
import type { Forced } from '../protocols/forced.ts'
import type { Generated } from '../protocols/generated.ts'
import { chosenLetter, gives, names } from './match.ts'

/** Everything that came of one probe. */
export interface Outcome {
  readonly probe: Probe
  readonly generated: Partial<Record<Method, Generated>>
  readonly forced: Partial<Record<Method, Forced>>
  /** Every live edit, by id. */
  readonly edits: ReadonlyMap<string, Edit>
}

/**
 * Whether the answer is one of those accepted; null where none is known, or nothing was asked. An answer that speaks of an edit's subject
 * which was not asked about ("Kashmir is in Antarctica", of Vostok Station) answers another question.
 */
export function isRight({ probe, generated, edits }: Outcome, method: Method): boolean | null {
  const answer = generated[method]
  if (answer === undefined || probe.answers.length === 0) return null
  if (probe.kind === 'choice') return chosenLetter(answer.text, lettersOf(probe)) === probe.answers[0]
  const question = probe.turns.at(-1) ?? ''
  const shown = answer.edits.flatMap((id) => edits.get(id) ?? [])
  const beside = shown.filter(({ id, subject }) => !isWanted(probe, id) && !names(question, subject))
  if (beside.some(({ subject }) => names(answer.text, subject))) return false
  return gives(answer.text, probe.answers, [question, ...shown.map(({ prompt }) => prompt)])
}

/** Of the choices, one a line. */
function lettersOf({ turns }: Probe): string {
  return [...new Set(turns.at(-1)?.match(/^[A-J](?=\. )/gm))].join('')
}

/** Whether the answer is byte for byte the base's; null where there are not both. */
export function isIdentical({ generated }: Outcome, method: Method): boolean | null {
  const [base, own] = [generated.base, generated[method]]
  return base === undefined || own === undefined ? null : base.text === own.text
}

/** Mean log-probability of the answer's tokens, as a probability: what ROME compares. */
function meanProbability(logProbabilities: readonly number[]): number {
  return logProbabilities.length === 0 ? 0 : Math.exp(logProbabilities.reduce((sum, x) => sum + x, 0) / logProbabilities.length)
}

/** ROME's success: in scope the new answer is likelier than the old, out of scope the true one than the edit's. null: no rival. */
export function succeeds({ forced }: Outcome, method: Method): boolean | null {
  const gap = magnitude({ forced }, method)
  return gap === null ? null : gap > 0
}

/** ROME's magnitude: the difference of the two probabilities. */
export function magnitude({ forced }: Pick<Outcome, 'forced'>, method: Method): number | null {
  const own = forced[method]
  if (own === undefined || own.rival === null) return null
  return meanProbability(own.answer.logProbabilities) - meanProbability(own.rival.logProbabilities)
}

/** EasyEdit's token accuracy: the share of the answer's tokens that are the argmax. */
export function tokenAccuracy({ forced }: Outcome, method: Method): number | null {
  const answer = forced[method]?.answer
  return answer === undefined || answer.best.length === 0 ? null : answer.hits / answer.best.length
}

/** EasyEdit's locality: the share of the answer's tokens at which the argmax is the base's. */
export function tokenAgreement({ forced }: Outcome, method: Method): number | null {
  const [base, own] = [forced.base?.answer.best, forced[method]?.answer.best]
  if (base === undefined || own === undefined || own.length === 0) return null
  return own.filter((token, i) => token === base[i]).length / own.length
}
