/** How many units, or prompts, a question needs. Rounded up; Infinity where the effect is 0. */
import { sequenceReach } from './confidence.ts'
import { normalQuantile } from './distributions.ts'

/** What one hopes to see. */
export type Effect =
  | { readonly kind: 'proportion'; readonly base: number; readonly other: number }
  | { readonly kind: 'mean'; readonly difference: number; readonly deviation: number }
  /** Both arms answer the same prompts: `gained` right only with the other arm, `lost` right only with the base, as shares of all. */
  | { readonly kind: 'paired'; readonly gained: number; readonly lost: number }

export interface Plan {
  readonly alpha: number
  readonly power: number
}

export interface Needed {
  /** Units of both arms together (prompts, where paired) for a single look at the end. */
  readonly fixed: number
  /** Units by which a confidence sequence tuned for that moment leaves out 0, with this power. */
  readonly sequential: number
}

/** Fleiss 1981, section 3.2, for proportions; Connor 1987 for pairs; the textbook normal formula for means. */
export function needed(effect: Effect, { alpha, power }: Plan): Needed {
  const [a, b] = [normalQuantile(1 - alpha / 2), normalQuantile(power)]
  const { difference, nullVariance, variance } = spread(effect)
  if (difference === 0) return { fixed: Number.POSITIVE_INFINITY, sequential: Number.POSITIVE_INFINITY }
  const fixed = (a * Math.sqrt(nullVariance) + b * Math.sqrt(variance)) ** 2 / difference ** 2
  return { fixed: Math.ceil(fixed), sequential: sequentialNeed(Math.abs(difference), variance, alpha, b, Math.ceil(fixed)) }
}

/** Variances of the difference's influence function, as `confidence.ts` has it: times 1/n they are its variance. */
function spread(effect: Effect): { difference: number; nullVariance: number; variance: number } {
  switch (effect.kind) {
    case 'proportion': {
      const { base, other } = effect
      const pooled = (base + other) / 2
      // Two arms of n/2 units each.
      const variance = 2 * (base * (1 - base) + other * (1 - other))
      return { difference: other - base, nullVariance: 4 * pooled * (1 - pooled), variance }
    }
    case 'mean': {
      const variance = 4 * effect.deviation ** 2
      return { difference: effect.difference, nullVariance: variance, variance }
    }
    case 'paired': {
      const { gained, lost } = effect
      const difference = gained - lost
      return { difference, nullVariance: gained + lost, variance: gained + lost - difference ** 2 }
    }
    default:
      return effect satisfies never
  }
}

const MOST = 1e12

/** The smallest n at which the difference exceeds the sequence's reach by as many standard errors as the power asks for. */
function sequentialNeed(difference: number, variance: number, alpha: number, b: number, from: number): number {
  const enough = (n: number) => difference >= sequenceReach(n, variance, alpha, n) + b * Math.sqrt(variance / n)
  let high = Math.max(1, from)
  while (!enough(high) && high < MOST) high *= 2
  let low = Math.floor(high / 2)
  while (low + 1 < high) {
    const middle = Math.floor((low + high) / 2)
    if (enough(middle)) high = middle
    else low = middle
  }
  return high >= MOST ? Number.POSITIVE_INFINITY : high
}
