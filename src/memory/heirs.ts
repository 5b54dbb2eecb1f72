import { statement } from '../edit/edit.ts'
import type { Considered } from '../trace.ts'
import { type Calibration, scoreOf } from './gate.ts'
import type { Candidate } from './retrieve.ts'

/**
 * The candidates without those that a later one makes untrue. What speaks for one of these speaks for the later: they ask the same of the
 * same subject, so the earlier's wording is one more of the later's.
 */
export function heirs(
  candidates: readonly Candidate[],
  late: ReadonlyMap<string, string>,
  calibration: Calibration,
): Candidate[] {
  const needed = (candidate: Candidate) => scoreOf(candidate, calibration)
  return candidates
    .filter(({ edit }) => !late.has(edit.id))
    .map((heir) => {
      const left = candidates.filter(({ edit }) => late.get(edit.id) === heir.edit.id)
      return left.reduce((best, one) => (needed(one) > needed(best) ? { ...heir, evidence: one.evidence } : best), heir)
    })
}

/** A candidate that a later edit makes untrue, as the trace shows it: whatever the turn asks, it does not need this. */
export function replaced({ edit, similarity, evidence }: Candidate, late: ReadonlyMap<string, string>): Considered[] {
  const outdatedBy = late.get(edit.id)
  if (outdatedBy === undefined) return []
  const { id, subject } = edit
  return [
    { id, subject, statement: statement(edit), score: 0, similarity, reason: 'outdated', outdatedBy, evidence: evidence ?? {} },
  ]
}
