import { studentQuantile } from '../../experiment/statistics/distributions.ts'
import { randomFrom } from './random.ts'

/** A figure with its 95 % interval and the number of things it is made of. */
export interface Figure {
  readonly value: number
  readonly low: number
  readonly high: number
  readonly n: number
}

/** Two-sided 95 % point of the normal distribution. */
const Z95 = 1.959963984540054

/** A share with Wilson's score interval (Wilson 1927), which keeps its coverage near 0 and 1; null of nothing. */
export function wilson(hits: number, n: number): Figure | null {
  if (n === 0) return null
  const share = hits / n
  const z2 = Z95 * Z95
  const middle = (share + z2 / (2 * n)) / (1 + z2 / n)
  const half = (Z95 / (1 + z2 / n)) * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n))
  return { value: share, low: Math.max(0, middle - half), high: Math.min(1, middle + half), n }
}

const RESAMPLES = 1_000

/**
 * `statistic` of the clusters, with the percentile bootstrap over clusters (Efron 1979): probes of one record are not independent, so
 * records are drawn, not probes. A statistic that is null for a draw leaves that draw out; null when it is null of the whole.
 */
export function bootstrap<T>(
  clusters: readonly T[],
  statistic: (drawn: readonly T[]) => number | null,
  seed: number,
): Figure | null {
  const value = statistic(clusters)
  if (value === null) return null
  const random = randomFrom('bootstrap', seed)
  const draws: number[] = []
  for (let i = 0; i < RESAMPLES; i++) {
    const drawn = clusters.map(() => clusters[Math.floor(random() * clusters.length)] as T)
    const one = statistic(drawn)
    if (one !== null) draws.push(one)
  }
  const at = (share: number) => quantile(draws, share) ?? value
  return { value, low: at(0.025), high: at(0.975), n: clusters.length }
}

export function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length
}

/** The mean with Student's 95 % interval (Student 1908); of fewer than two values it reaches without end. null of nothing. */
export function studentMean(values: readonly number[]): Figure | null {
  const n = values.length
  const value = mean(values)
  if (value === null) return null
  if (n < 2) return { value, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY, n }
  const variance = values.reduce((sum, one) => sum + (one - value) ** 2, 0) / (n - 1)
  const half = studentQuantile(0.975, n - 1) * Math.sqrt(variance / n)
  return { value, low: value - half, high: value + half, n }
}

/** Of values in [0, 1]; 0 when one of them is. null of nothing. */
export function harmonicMean(values: readonly number[]): number | null {
  if (values.length === 0) return null
  return values.some((value) => value <= 0) ? 0 : values.length / values.reduce((sum, value) => sum + 1 / value, 0)
}

/** The value below which the share lies, by rank; null of nothing. */
export function quantile(values: readonly number[], share: number): number | null {
  const rising = values.toSorted((a, b) => a - b)
  return rising[Math.min(rising.length - 1, Math.floor(share * rising.length))] ?? null
}

/** The median, with the interval between the order statistics at n/2 ± Z95·√n/2 (Conover 1999, section 3.2). */
export function median(values: readonly number[]): Figure | null {
  const sorted = [...values].sort((a, b) => a - b)
  const n = sorted.length
  if (n === 0) return null
  const at = (rank: number) => sorted[Math.min(n - 1, Math.max(0, rank))] as number
  const half = (Z95 * Math.sqrt(n)) / 2
  const value = (at(Math.floor((n - 1) / 2)) + at(Math.ceil((n - 1) / 2))) / 2
  return { value, low: at(Math.floor(n / 2 - half) - 1), high: at(Math.ceil(n / 2 + half)), n }
}
