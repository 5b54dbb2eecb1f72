/** Are the arms as full as their weights say? If not, what decides who is counted depends on the arm, and no figure means anything. */
import { chiSquareTail, logGamma } from './distributions.ts'

/** Units by arm while the weights stayed the same. */
export interface Split {
  readonly counts: readonly number[]
  /** Of the same arms; any positive scale. */
  readonly weights: readonly number[]
}

export interface SampleRatio {
  /** Evidence against the weights, as an e-value. */
  readonly eValue: number
  /** 1/e, at most 1: valid however often one looks. */
  readonly pValue: number
  /** Pearson's chi-square, valid at one look. */
  readonly chiSquareP: number
  readonly mismatch: boolean
}

/** A sound experiment is blocked once in 100 at most, over its whole life. */
export const RATIO_ALPHA = 0.01

/** How sure of the weights the alternative is, in units: it looks for shares off by a few hundredths. */
const CONCENTRATION = 500

/**
 * The sequential multinomial test of Lindon and Malek 2022 ("Anytime-valid inference for multinomial count data", section 3): Dirichlet
 * alternatives around the weights against the weights. Factors of periods with different weights multiply.
 */
export function sampleRatio(splits: readonly Split[]): SampleRatio {
  const log = splits.reduce((sum, split) => sum + logFactor(split), 0)
  const pValue = Math.min(1, Math.exp(-log))
  return { eValue: Math.exp(log), pValue, chiSquareP: pearson(splits), mismatch: pValue < RATIO_ALPHA }
}

function logFactor({ counts, weights }: Split): number {
  const total = counts.reduce((sum, count) => sum + count, 0)
  const whole = weights.reduce((sum, weight) => sum + weight, 0)
  let log = logGamma(CONCENTRATION) - logGamma(CONCENTRATION + total)
  for (const [arm, count] of counts.entries()) {
    const share = (weights[arm] ?? 0) / whole
    // An arm without weight must stay empty.
    if (share === 0) {
      if (count > 0) return Number.POSITIVE_INFINITY
      continue
    }
    const prior = CONCENTRATION * share
    log += logGamma(prior + count) - logGamma(prior) - count * Math.log(share)
  }
  return log
}

function pearson(splits: readonly Split[]): number {
  let statistic = 0
  let degrees = 0
  for (const { counts, weights } of splits) {
    const total = counts.reduce((sum, count) => sum + count, 0)
    const whole = weights.reduce((sum, weight) => sum + weight, 0)
    const used = counts.flatMap((count, arm) => {
      const expected = (total * (weights[arm] ?? 0)) / whole
      return expected > 0 ? [(count - expected) ** 2 / expected] : []
    })
    statistic += used.reduce((sum, part) => sum + part, 0)
    degrees += Math.max(0, used.length - 1)
  }
  return degrees === 0 ? 1 : chiSquareTail(statistic, degrees)
}
