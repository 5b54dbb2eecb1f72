/**
 * Intervals for one quantity or the difference of two arms. Two kinds side by side: confidence sequences, which hold at every look at once,
 * so that one may peek and stop whenever one likes; and fixed-horizon intervals, which hold at one look decided beforehand.
 */
import { logBeta, normalQuantile, studentQuantile } from './distributions.ts'

export interface Interval {
  readonly low: number
  readonly high: number
}

/** Observations of one arm, one a unit. */
export interface Sample {
  readonly n: number
  readonly mean: number
  /** Unbiased; 0 where n < 2. */
  readonly variance: number
}

/** `ratio`: the values are logarithms, so that a difference is that of a ratio; for times and counts, which are skewed. */
export type Kind = 'proportion' | 'ratio' | 'mean'

/** Samples of both arms while the weights stayed the same. */
export interface Stratum {
  readonly base: Sample
  readonly other: Sample
}

/**
 * Units an arm needs before intervals are given: they rest on a central limit theorem. By simulation (bench/experiments/simulated.ts): a mean of skewed
 * values in a small arm needs ten times as many as the others.
 */
export const LEAST_UNITS: Readonly<Record<Kind, number>> = { proportion: 20, ratio: 20, mean: 200 }

/** A difference of means, other less base, and what a confidence sequence for it needs. */
interface Difference {
  readonly value: number
  /** Units of both arms. */
  readonly n: number
  /** Variance of the estimator's influence function: n times the variance of `value`. */
  readonly variance: number
  /** Degrees of freedom of that variance: Welch 1947, Satterthwaite 1946. */
  readonly degrees: number
}

/** Strata weighted by their units, so that a change of weights half-way does not take a change over time for an effect of the arm. */
function difference(strata: readonly Stratum[], kind: Kind): Difference {
  const n = strata.reduce((sum, { base, other }) => sum + base.n + other.n, 0)
  const parts = strata.flatMap(({ base, other }) => {
    const share = (base.n + other.n) / n
    return [base, other].map((arm) => ({ n: arm.n, variance: (share ** 2 * spreadOf(arm, kind)) / arm.n }))
  })
  const value = strata.reduce((sum, { base, other }) => sum + ((base.n + other.n) / n) * (other.mean - base.mean), 0)
  const variance = parts.reduce((sum, part) => sum + part.variance, 0)
  const wobble = parts.reduce((sum, part) => sum + part.variance ** 2 / Math.max(1, part.n - 1), 0)
  return { value, n, variance: n * variance, degrees: wobble === 0 ? Number.POSITIVE_INFINITY : variance ** 2 / wobble }
}

/** Of a proportion: with one success and one failure added (Agresti and Caffo 2000), so that an arm without a single event is not sure of it. */
function spreadOf({ n, mean, variance }: Sample, kind: Kind): number {
  if (kind !== 'proportion') return variance
  const middle = (n * mean + 1) / (n + 2)
  const squares = Math.max(0, n - 1) * variance + n * mean ** 2 + 1
  return Math.max(0, squares - (n + 2) * middle ** 2) / (n + 1)
}

/** The ρ that makes the sequence tightest after `n` units: Waudby-Smith et al. 2024, appendix B.2. */
function tuning(n: number, alpha: number): number {
  const log = -2 * Math.log(alpha)
  return Math.sqrt((log + Math.log(log + 1)) / n)
}

/**
 * Half the width of an asymptotic confidence sequence for a mean after `n` observations with that variance: Waudby-Smith, Arbour, Sinha,
 * Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics 2024), theorem 2.2;
 * Robbins' normal mixture. Tightest after `tunedFor`.
 */
export function sequenceReach(n: number, variance: number, alpha: number, tunedFor: number): number {
  const grown = n * tuning(tunedFor, alpha) ** 2
  return Math.sqrt(((variance * 2 * (grown + 1)) / (n * grown)) * Math.log(Math.sqrt(grown + 1) / alpha))
}

/** The mixture itself at "no difference": an e-value, 1/alpha or more exactly where the sequence leaves out 0. */
function evidence({ value, n, variance, degrees }: Difference, alpha: number, tunedFor: number): number {
  if (variance === 0) return value === 0 ? 1 : Number.POSITIVE_INFINITY
  const grown = n * tuning(tunedFor, alpha) ** 2
  const z = toNormal(Math.abs(value) / Math.sqrt(variance / n), degrees)
  return Math.exp((grown * z * z) / (2 * (1 + grown))) / Math.sqrt(1 + grown)
}

/**
 * The variance is itself an estimate, and a small arm's a poor one: what holds for the normal distribution is carried over to Student's by
 * Wallace's approximation (1959, "Bounds on normal approximations to Student's and the chi-square distributions").
 */
function toNormal(t: number, degrees: number): number {
  if (degrees === Number.POSITIVE_INFINITY) return t
  return ((8 * degrees + 1) / (8 * degrees + 3)) * Math.sqrt(degrees * Math.log1p((t * t) / degrees))
}

function toStudent(z: number, degrees: number): number {
  if (degrees === Number.POSITIVE_INFINITY) return z
  return Math.sqrt(degrees * Math.expm1((z * (8 * degrees + 3)) ** 2 / (8 * degrees + 1) ** 2 / degrees))
}

export interface Comparison {
  /** Other arm less base. */
  readonly estimate: number
  /** Holds at all looks together with probability 1 - alpha; null: too few units. */
  readonly sequence: Interval | null
  /** Holds at one look. */
  readonly fixed: Interval | null
  /** Evidence against "no difference", as an e-value (Vovk and Wang 2021): 1/e is a p-value however often one looks. */
  readonly eValue: number
}

/** `tunedFor`: units at which the sequence is tightest; where one expects to decide. Null where an arm has no unit. */
export function compareArms(strata: readonly Stratum[], kind: Kind, alpha: number, tunedFor: number): Comparison | null {
  const seen = strata.filter(({ base, other }) => base.n > 0 && other.n > 0)
  if (seen.length === 0) return null
  const enough = seen.filter(({ base, other }) => Math.min(base.n, other.n) >= LEAST_UNITS[kind])
  if (enough.length === 0) return { estimate: difference(seen, kind).value, sequence: null, fixed: null, eValue: 1 }
  const found = difference(enough, kind)
  const error = Math.sqrt(found.variance / found.n)
  const reach =
    error === 0 ? 0 : error * toStudent(sequenceReach(found.n, found.variance, alpha, tunedFor) / error, found.degrees)
  return {
    estimate: found.value,
    sequence: possible({ low: found.value - reach, high: found.value + reach }, kind),
    fixed: fixedInterval(enough, kind, alpha),
    eValue: evidence(found, alpha, tunedFor),
  }
}

/** Proportions differ by 1 at most. */
function possible({ low, high }: Interval, kind: Kind): Interval {
  return kind === 'proportion' ? { low: Math.max(-1, low), high: Math.min(1, high) } : { low, high }
}

/** One stratum: Newcombe for proportions, Welch for means. Several: the normal interval of the stratified estimate. */
function fixedInterval(strata: readonly Stratum[], kind: Kind, alpha: number): Interval {
  const [only, second] = strata
  if (only !== undefined && second === undefined) return kind === 'proportion' ? newcombe(only, alpha) : welch(only, alpha)
  const found = difference(strata, kind)
  const reach = normalQuantile(1 - alpha / 2) * Math.sqrt(found.variance / found.n)
  return { low: found.value - reach, high: found.value + reach }
}

/** Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10. */
function newcombe({ base, other }: Stratum, alpha: number): Interval {
  const [a, b] = [wilson(base, alpha), wilson(other, alpha)]
  const value = other.mean - base.mean
  return {
    low: value - Math.hypot(other.mean - b.low, a.high - base.mean),
    high: value + Math.hypot(b.high - other.mean, base.mean - a.low),
  }
}

/** Wilson 1927. */
function wilson({ n, mean }: Sample, alpha: number): Interval {
  const z2 = normalQuantile(1 - alpha / 2) ** 2
  const middle = (mean + z2 / (2 * n)) / (1 + z2 / n)
  const half = (Math.sqrt(z2) / (1 + z2 / n)) * Math.sqrt((mean * (1 - mean)) / n + z2 / (4 * n * n))
  return { low: Math.max(0, middle - half), high: Math.min(1, middle + half) }
}

/** Welch 1947. */
function welch({ base, other }: Stratum, alpha: number): Interval {
  const [a, b] = [base.variance / base.n, other.variance / other.n]
  const value = other.mean - base.mean
  if (a + b === 0) return { low: value, high: value }
  const degrees = (a + b) ** 2 / (a ** 2 / (base.n - 1) + b ** 2 / (other.n - 1))
  const reach = studentQuantile(1 - alpha / 2, degrees) * Math.sqrt(a + b)
  return { low: value - reach, high: value + reach }
}

/**
 * Evidence that a chance is not `p` after `hits` of `n`: the likelihood averaged over a Beta(1/2, 1/2), over that of `p`; a martingale
 * that starts at 1 (Ville 1939; Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
 * sequences", conjugate mixtures). Its logarithm.
 */
export function logRateEvidence(hits: number, n: number, p: number): number {
  const likelihood = (hits === 0 ? 0 : hits * Math.log(p)) + (n === hits ? 0 : (n - hits) * Math.log(1 - p))
  return logBeta(hits + 0.5, n - hits + 0.5) - logBeta(0.5, 0.5) - likelihood
}

const BISECTIONS = 50

/** A confidence sequence for a chance, exact at any n: all p against which the evidence stays below 1/alpha. */
export function rateSequence(hits: number, n: number, alpha: number): Interval {
  if (n === 0) return { low: 0, high: 1 }
  const limit = -Math.log(alpha)
  const edge = (outside: number) => {
    let [out, inside] = [outside, hits / n]
    for (let i = 0; i < BISECTIONS; i++) {
      const middle = (out + inside) / 2
      if (logRateEvidence(hits, n, middle) >= limit) out = middle
      else inside = middle
    }
    return out
  }
  return { low: hits === 0 ? 0 : edge(0), high: hits === n ? 1 : edge(1) }
}

/** Difference of two chances, exact at any n for both together (a union bound): for guardrails, whose events are rare. */
export function rateDifference(base: { hits: number; n: number }, other: { hits: number; n: number }, alpha: number): Interval {
  const [a, b] = [rateSequence(base.hits, base.n, alpha / 2), rateSequence(other.hits, other.n, alpha / 2)]
  return { low: b.low - a.high, high: b.high - a.low }
}
