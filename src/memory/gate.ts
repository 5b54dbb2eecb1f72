import { statement } from '../edit/edit.ts'
import type { Considered, Reason } from '../trace.ts'
import { EVIDENCE, type Evidence, type EvidenceName } from './evidence.ts'
import type { Candidate } from './retrieve.ts'

/** The fitted gate: `calibration/gate.json`, written by `npm run fit-gate` and reviewed like code. */
export interface Calibration {
  readonly bias: number
  readonly weights: Readonly<Partial<Record<EvidenceName, number>>>
  /** Products of two kinds of evidence that count beyond their sum, as "a*b". */
  readonly products: Readonly<Record<string, number>>
  /** Least probability at which an edit applies: the operating point. */
  readonly threshold: number
}

/** Edits one turn's prompt takes; a question that truly needs more than these is a list, not a fact. */
export const TURN_EDITS = 4
/** Considered edits kept in the trace of a turn. */
const TRACED_CANDIDATES = 12

/** Probability that the turn needs the edit: logistic regression over the evidence. */
export function score(evidence: Evidence, calibration: Calibration): number {
  let sum = calibration.bias
  for (const name of EVIDENCE) sum += (calibration.weights[name] ?? 0) * evidence[name]
  for (const [pair, weight] of Object.entries(calibration.products)) {
    const [a, b] = pair.split('*') as [EvidenceName, EvidenceName]
    sum += weight * evidence[a] * evidence[b]
  }
  return 1 / (1 + Math.exp(-sum))
}

/** The same of a candidate; 0 where nothing in the text stands for its subject. */
export function scoreOf({ evidence }: Candidate, calibration: Calibration): number {
  return evidence === null ? 0 : score(evidence, calibration)
}

/** Which of a turn's candidates apply, best first, and why each of the others does not. Pure; does not know the arm. */
export function gate(candidates: readonly Candidate[], calibration: Calibration): Considered[] {
  const scored = candidates
    .map((c) => ({ ...c, score: scoreOf(c, calibration) }))
    .sort((a, b) => b.score - a.score || (b.similarity ?? -1) - (a.similarity ?? -1))
  const taken = new Set<string>()
  let selected = 0
  return scored.slice(0, TRACED_CANDIDATES).map(({ edit, similarity, evidence, score }) => {
    const applies = score >= calibration.threshold
    const reason: Reason = !applies
      ? refusal(evidence, taken.has(edit.subject))
      : selected < TURN_EDITS
        ? 'selected'
        : 'over_limit'
    if (reason === 'selected') selected++
    if (applies) taken.add(edit.subject)
    return { id: edit.id, subject: edit.subject, statement: statement(edit), score, similarity, reason, evidence: evidence ?? {} }
  })
}

/** The strongest single thing that speaks against a candidate below the threshold; `outdone`: a fact of the same subject fits better. */
function refusal(evidence: Evidence | null, outdone: boolean): Reason {
  if (evidence === null) return 'no_subject'
  if (evidence.inside_longer + evidence.extended_right > 0) return 'part_of_longer_name'
  if (outdone) return 'outranked'
  if (evidence.opposed + evidence.reversed > 0) return 'opposite'
  if (evidence.exact > 0 && evidence.case_mismatch === 0) return 'other_relation'
  return 'below_threshold'
}
