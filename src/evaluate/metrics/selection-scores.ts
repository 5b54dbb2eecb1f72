/** Figures of selection alone. Pure. */

import { inScope, isWanted, KINDS, type Kind, type Probe } from '../data/probe.ts'
import { type Nearest, takes } from '../methods/cosine.ts'
import type { Selected } from '../protocols/selection.ts'
import { type Figure, median, quantile, wilson } from './intervals.ts'

export interface SelectionOutcome {
  readonly probe: Probe
  readonly gate: Selected
  /** What the cosine baseline takes, if it reaches the threshold. */
  readonly nearest: Nearest | null
}

/** One kind of probe. Shares are of its probes. */
export interface SelectionRow {
  readonly kind: Kind
  readonly sub: string
  readonly n: number
  /** In scope: every wanted edit selected. (A multi-hop question wants the edits of all its hops.) */
  readonly found: Figure | null
  /** In scope: at least one of them. */
  readonly anyFound: Figure | null
  /** Something selected that is not wanted; out of scope, this is a false alarm. */
  readonly wrong: Figure | null
  /** The same of the cosine baseline. */
  readonly cosineFound: Figure | null
  readonly cosineWrong: Figure | null
  /** In scope: a wanted edit among the first k of the vector index, by k. */
  readonly vectorRecall: Readonly<Record<number, Figure | null>>
  /** In scope: a wanted edit's subject found in the text by the subject index. */
  readonly subjectRecall: Figure | null
  /** In scope: a wanted edit offered to the gate by either index. */
  readonly offered: Figure | null
}

/** Over all probes. */
export interface SelectionTotals {
  /** Of the edits selected, those wanted. */
  readonly precision: Figure | null
  /** Of the edits wanted, those selected. */
  readonly recall: Figure | null
  /** Of the probes out of scope, those with anything selected. */
  readonly falseAlarms: Figure | null
}

/** One operating point of a rule. */
export interface CurvePoint extends SelectionTotals {
  readonly threshold: number
}

export const RECALL_AT: readonly number[] = [1, 5, 20]

/** Operating points of the printed curve. */
const COSINES: readonly number[] = Array.from({ length: 14 }, (_, i) => 0.3 + i * 0.05)
const THRESHOLDS: readonly number[] = [
  0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99,
]

/** `threshold`: the cosine baseline's. */
export function selectionRows(outcomes: readonly SelectionOutcome[], threshold: number): SelectionRow[] {
  return KINDS.flatMap((kind) => {
    const all = outcomes.filter(({ probe }) => probe.kind === kind)
    return [...new Set(all.map(({ probe }) => probe.sub))].sort().map((sub) =>
      rowOf(
        kind,
        sub,
        all.filter(({ probe }) => probe.sub === sub),
        threshold,
      ),
    )
  })
}

function rowOf(kind: Kind, sub: string, some: readonly SelectionOutcome[], threshold: number): SelectionRow {
  const inside = some.filter(({ probe }) => inScope(probe))
  const share = (of: readonly SelectionOutcome[], test: (outcome: SelectionOutcome) => boolean) =>
    wilson(of.filter(test).length, of.length)
  const within = (rank: number | null, k: number) => rank !== null && rank <= k
  return {
    kind,
    sub,
    n: some.length,
    found: share(inside, ({ probe, gate }) => isFound(probe, gate.selected)),
    anyFound: share(inside, ({ probe, gate }) => gate.selected.some((id) => isWanted(probe, id))),
    wrong: share(some, ({ probe, gate }) => gate.selected.some((id) => !isWanted(probe, id))),
    cosineFound: share(inside, ({ probe, nearest }) => takes(nearest, threshold).some((id) => isWanted(probe, id))),
    cosineWrong: share(some, ({ probe, nearest }) => takes(nearest, threshold).some((id) => !isWanted(probe, id))),
    vectorRecall: Object.fromEntries(RECALL_AT.map((k) => [k, share(inside, ({ gate }) => within(gate.vectorRank, k))])),
    subjectRecall: share(inside, ({ gate }) => gate.subjectFound),
    offered: share(inside, ({ gate }) => gate.offered),
  }
}

/** Every wanted edit is among them; for a single one, another that states the same will do. */
function isFound(probe: Probe, selected: readonly string[]): boolean {
  if (probe.wants.length === 1) return selected.some((id) => isWanted(probe, id))
  return probe.wants.length > 0 && probe.wants.every((id) => selected.includes(id))
}

/** `selected`: what a rule takes for a probe. */
export function selectionTotals(
  outcomes: readonly SelectionOutcome[],
  selected: (outcome: SelectionOutcome) => readonly string[],
): SelectionTotals {
  let [taken, rightly, wanted, found, outside, alarms] = [0, 0, 0, 0, 0, 0]
  for (const outcome of outcomes) {
    const { probe } = outcome
    const ids = selected(outcome)
    taken += ids.length
    rightly += ids.filter((id) => isWanted(probe, id)).length
    wanted += probe.wants.length
    found += isFound(probe, ids) ? probe.wants.length : probe.wants.filter((id) => ids.includes(id)).length
    if (inScope(probe)) continue
    outside++
    if (ids.length > 0) alarms++
  }
  return { precision: wilson(rightly, taken), recall: wilson(found, wanted), falseAlarms: wilson(alarms, outside) }
}

/** The gate's totals as its threshold moves; what the limit of edits a turn cuts off is left in. */
export function selectionCurve(outcomes: readonly SelectionOutcome[]): CurvePoint[] {
  return curve(outcomes, THRESHOLDS, ({ gate }, threshold) =>
    Object.entries(gate.scores).flatMap(([id, score]) => (score >= threshold ? [id] : [])),
  )
}

/** The cosine baseline's. */
export function cosineCurve(outcomes: readonly SelectionOutcome[]): CurvePoint[] {
  return curve(outcomes, COSINES, ({ nearest }, threshold) => takes(nearest, threshold))
}

function curve(
  outcomes: readonly SelectionOutcome[],
  thresholds: readonly number[],
  selected: (outcome: SelectionOutcome, threshold: number) => readonly string[],
): CurvePoint[] {
  return thresholds.map((threshold) => ({
    threshold,
    ...selectionTotals(outcomes, (outcome) => selected(outcome, threshold)),
  }))
}

/** Milliseconds to find and judge the candidates of one probe. */
export function selectionLatency(outcomes: readonly SelectionOutcome[]): { median: Figure | null; p99: number | null } {
  const all = outcomes.map(({ gate }) => gate.ms)
  return { median: median(all), p99: quantile(all, 0.99) }
}
