/** Whether a batch may go on to the next stage, must wait, or has to be taken back. Pure. */

import type { Guardrail } from '../experiment.ts'
import { type Comparison, rateDifference, rateSequence } from '../statistics/confidence.ts'

export interface Hits {
  readonly hits: number
  readonly n: number
}

/** What is known of the present stage. */
export interface StageEvidence {
  /** Units exposed to the batch; in the shadow, pairs of answers in which it was at work. */
  readonly exposed: number
  /** Pairs of the locality prompts, of which there are `expected`. */
  readonly locality: { readonly n: number; readonly identical: number; readonly expected: number }
  readonly collateral: { readonly n: number; readonly changed: number }
  /** Units with such an answer, without the batch and with it. */
  readonly rates: Readonly<Record<'error' | 'negative_feedback' | 'refusal', readonly [base: Hits, other: Hits]>>
  /** Logarithm of the ratio of latencies. */
  readonly latency: Comparison | null
}

/** One guardrail against the evidence; `bound` is what it was judged by. */
export interface Checked {
  readonly guardrail: Guardrail
  readonly broken: boolean
  readonly observed: number | null
  readonly bound: number | null
}

export type StageVerdict = 'wait' | 'advance' | 'broken'

/**
 * Rates and times break a guardrail once a confidence sequence lies beyond it, so that looking all the time costs nothing; false alarms of
 * all guardrails together stay below alpha in each stage. The locality prompts are no sample, and are counted. `least`: exposures that the
 * next stage asks for.
 */
export function judgeStage(least: number, guardrails: readonly Guardrail[], evidence: StageEvidence, alpha: number) {
  const own = alpha / Math.max(1, guardrails.length)
  const checked = guardrails.map((guardrail) => check(guardrail, evidence, own))
  const { locality, exposed } = evidence
  const ready = locality.n >= locality.expected && exposed >= least
  const verdict: StageVerdict = checked.some(({ broken }) => broken) ? 'broken' : ready ? 'advance' : 'wait'
  return { verdict, checked }
}

function check(guardrail: Guardrail, { locality, collateral, rates, latency }: StageEvidence, alpha: number): Checked {
  switch (guardrail.kind) {
    case 'locality': {
      const allowed = Math.floor((1 - guardrail.least) * locality.expected + 1e-9)
      const observed = locality.n === 0 ? null : locality.identical / locality.n
      return { guardrail, broken: locality.n - locality.identical > allowed, observed, bound: guardrail.least }
    }
    case 'collateral': {
      const { low } = rateSequence(collateral.changed, collateral.n, alpha)
      return {
        guardrail,
        broken: low > guardrail.most,
        observed: share({ hits: collateral.changed, n: collateral.n }),
        bound: low,
      }
    }
    case 'latency': {
      const low = latency?.sequence == null ? null : Math.exp(latency.sequence.low)
      const observed = latency === null ? null : Math.exp(latency.estimate)
      return { guardrail, broken: low !== null && low > guardrail.mostTimes, observed, bound: low }
    }
    case 'error':
    case 'negative_feedback':
    case 'refusal': {
      const [base, other] = rates[guardrail.kind]
      const { low } = rateDifference(base, other, alpha)
      const [was, is] = [share(base), share(other)]
      return { guardrail, broken: low > guardrail.mostMore, observed: was === null || is === null ? null : is - was, bound: low }
    }
    default:
      return guardrail satisfies never
  }
}

function share({ hits, n }: Hits): number | null {
  return n === 0 ? null : hits / n
}
