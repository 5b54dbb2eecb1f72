/** Both arms answered the same prompts: only the prompts on which they differ say anything, and that takes far fewer of them. */
import { type Interval, logRateEvidence, sequenceReach } from './confidence.ts'
import { binomialCdf, normalQuantile } from './distributions.ts'
import { needed } from './power.ts'

/** Pairs by outcome. */
export interface Pairs {
  readonly n: number
  /** Only the other arm's answer has it. */
  readonly gained: number
  /** Only the base's. */
  readonly lost: number
}

export interface PairedResult extends Pairs {
  /** Share of pairs gained less share lost: other arm less base. */
  readonly estimate: number
  readonly sequence: Interval | null
  readonly fixed: Interval | null
  /** Against "as many gained as lost"; exact at any n. */
  readonly eValue: number
  /** McNemar's test, exact, for one look. */
  readonly exactP: number
  /** Prompts after which the sequence would leave out 0 with this power, going by these shares; null where nothing differs yet. */
  readonly promptsNeeded: number | null
}

const POWER = 0.8

/** `tunedFor`: pairs at which the sequence is tightest. */
export function comparePairs({ n, gained, lost }: Pairs, alpha: number, tunedFor: number): PairedResult {
  const estimate = n === 0 ? 0 : (gained - lost) / n
  const differ = gained + lost
  const common = { n, gained, lost, estimate }
  if (n === 0) return { ...common, sequence: null, fixed: null, eValue: 1, exactP: 1, promptsNeeded: null }
  // One gained and one lost pair added, so that a few equal pairs are not sure of anything.
  const variance = (differ + 2) / (n + 2) - ((gained - lost) / (n + 2)) ** 2
  const reach = sequenceReach(n, variance, alpha, tunedFor)
  const plan = { alpha, power: POWER }
  return {
    ...common,
    sequence: { low: Math.max(-1, estimate - reach), high: Math.min(1, estimate + reach) },
    fixed: agrestiMin({ n, gained, lost }, alpha),
    eValue: Math.exp(logRateEvidence(gained, differ, 0.5)),
    exactP: differ === 0 ? 1 : Math.min(1, 2 * binomialCdf(Math.min(gained, lost), differ, 0.5)),
    promptsNeeded: gained === lost ? null : needed({ kind: 'paired', gained: gained / n, lost: lost / n }, plan).sequential,
  }
}

/** Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": half a pair added to each cell. */
function agrestiMin({ n, gained, lost }: Pairs, alpha: number): Interval {
  const [total, difference] = [n + 2, gained - lost]
  const middle = difference / total
  const reach = (normalQuantile(1 - alpha / 2) * Math.sqrt(gained + lost + 1 - difference ** 2 / total)) / total
  return { low: Math.max(-1, middle - reach), high: Math.min(1, middle + reach) }
}
