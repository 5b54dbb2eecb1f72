// @ts-expect-error jstat brings no types
import jstat from 'jstat'

/** What we use of jstat. */
interface Distributions {
  readonly normal: { inv(p: number, mean: number, deviation: number): number }
  readonly studentt: { inv(p: number, degrees: number): number }
  readonly chisquare: { cdf(x: number, degrees: number): number }
  readonly binomial: { cdf(k: number, n: number, p: number): number }
  gammaln(x: number): number
}

const { normal, studentt, chisquare, binomial, gammaln } = jstat as Distributions

export const normalQuantile = (p: number): number => normal.inv(p, 0, 1)
export const studentQuantile = (p: number, degrees: number): number => studentt.inv(p, degrees)
export const chiSquareTail = (x: number, degrees: number): number => 1 - chisquare.cdf(x, degrees)
/** P(X ≤ k) of n trials with chance p. */
export const binomialCdf = (k: number, n: number, p: number): number => binomial.cdf(k, n, p)
export const logGamma = (x: number): number => gammaln(x)
export const logBeta = (a: number, b: number): number => gammaln(a) + gammaln(b) - gammaln(a + b)
