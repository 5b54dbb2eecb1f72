/**
 * Experiments whose truth is known: how often are the statistics of `src/experiment` wrong, under looks at every 50 exposures?
 * In full by `npm run bench:experiments`, in short by test/unit/experiment/simulation.test.ts.
 */
import { randomFrom } from '../../src/evaluate/metrics/random.ts'
import { compareArms, type Kind, rateSequence, type Sample } from '../../src/experiment/statistics/confidence.ts'
import { comparePairs } from '../../src/experiment/statistics/paired.ts'
import { sampleRatio } from '../../src/experiment/statistics/sample-ratio.ts'

export const ALPHA = 0.05
export const LOOK_EVERY = 50

type Random = () => number
/** One unit's outcome in an arm. */
export type Outcome = (random: Random, other: boolean) => number

export const chance =
  (base: number, other = base): Outcome =>
  (random, isOther) =>
    random() < (isOther ? other : base) ? 1 : 0

/** Latencies: log-normal, median 1 s, sigma 1 (mean 1.65, standard deviation 2.16); `shift` seconds more in the other arm. */
export const seconds =
  (shift = 0): Outcome =>
  (random, isOther) =>
    Math.exp(Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())) + (isOther ? shift : 0)

/** The same latencies as logarithms; the other arm slower by a factor of e to the `shift`. */
export const logSeconds =
  (shift = 0): Outcome =>
  (random, isOther) =>
    Math.log(seconds()(random, isOther)) + (isOther ? shift : 0)

class Moments {
  n = 0
  sum = 0
  squares = 0

  add(value: number): void {
    this.n++
    this.sum += value
    this.squares += value * value
  }

  /** What was said before of a unit is corrected. */
  replace(before: number, value: number): void {
    this.sum += value - before
    this.squares += value * value - before * before
  }

  sample(): Sample {
    const mean = this.n === 0 ? 0 : this.sum / this.n
    return { n: this.n, mean, variance: this.n < 2 ? 0 : Math.max(0, (this.squares - this.n * mean * mean) / (this.n - 1)) }
  }
}

export interface Scenario {
  readonly name: string
  readonly outcome: Outcome
  readonly kind: Kind
  /** What the estimate should be. */
  readonly truth: number
  readonly exposures: number
  /** Share of units in the other arm. */
  readonly weight?: number
  readonly tunedFor: number
  /** Exposures of each unit on average; a unit's outcome is the mean of its own. Units differ, so its outcomes are alike. Default 1. */
  readonly visits?: number
}

export interface Rates {
  readonly runs: number
  /** Runs in which the sequence left out 0 at some look. */
  readonly crossed: number
  /** Runs in which the fixed-horizon interval, misused so, did. */
  readonly fixedCrossed: number
  /** Runs in which the sequence held the truth at every look. */
  readonly covered: number
  /** Runs in which the fixed-horizon interval held the truth at the last look. */
  readonly fixedCovered: number
  /** Median exposures until the sequence left out 0, of the runs in which it did. */
  readonly medianStop: number | null
}

export function simulate(scenario: Scenario, runs: number, seed: number): Rates {
  const all = Array.from({ length: runs }, (_, run) => one(scenario, randomFrom(scenario.name, seed, run)))
  const count = (what: (run: Run) => boolean) => all.filter(what).length
  const stops = all.flatMap(({ stop }) => (stop === null ? [] : [stop])).sort((a, b) => a - b)
  return {
    runs,
    crossed: stops.length,
    fixedCrossed: count((run) => run.fixedCrossed),
    covered: count((run) => run.covered),
    fixedCovered: count((run) => run.fixedCovered),
    medianStop: stops[Math.floor(stops.length / 2)] ?? null,
  }
}

interface Run {
  stop: number | null
  fixedCrossed: boolean
  covered: boolean
  fixedCovered: boolean
}

function one({ outcome, kind, truth, exposures, weight = 0.5, tunedFor, visits = 1 }: Scenario, random: Random): Run {
  const arms = [new Moments(), new Moments()] as const
  const units: { arm: 0 | 1; n: number; mean: number; own: number }[] = []
  const run: Run = { stop: null, fixedCrossed: false, covered: true, fixedCovered: false }
  for (let exposure = 1; exposure <= exposures; exposure++) {
    const known = visits > 1 && random() < 1 - 1 / visits ? units[Math.floor(random() * units.length)] : undefined
    if (known === undefined) {
      const arm = random() < weight ? 1 : 0
      const value = outcome(random, arm === 1)
      arms[arm].add(value)
      if (visits > 1) units.push({ arm, n: 1, mean: value, own: value })
    } else {
      // Half of a unit's later outcomes are as its first.
      const value = random() < 0.5 ? known.own : outcome(random, known.arm === 1)
      const mean = known.mean + (value - known.mean) / ++known.n
      arms[known.arm].replace(known.mean, mean)
      known.mean = mean
    }
    if (exposure % LOOK_EVERY !== 0) continue
    const found = compareArms([{ base: arms[0].sample(), other: arms[1].sample() }], kind, ALPHA, tunedFor)
    if (found?.sequence == null || found.fixed === null) continue
    const { sequence, fixed } = found
    if (run.stop === null && (sequence.low > 0 || sequence.high < 0)) run.stop = exposure
    if (fixed.low > 0 || fixed.high < 0) run.fixedCrossed = true
    if (sequence.low > truth || sequence.high < truth) run.covered = false
    run.fixedCovered = fixed.low <= truth && truth <= fixed.high
  }
  return run
}

/** Runs in which a mismatch was called at some look, when `lost` of the other arm's exposures go missing; arms weighted alike. */
export function ratioCaught(lost: number, exposures: number, runs: number, seed: number): number {
  return count(runs, (run) => {
    const random = randomFrom('ratio', lost, seed, run)
    const counts: [number, number] = [0, 0]
    while (counts[0] + counts[1] < exposures) {
      const arm = random() < 0.5 ? 1 : 0
      if (arm === 1 && random() < lost) continue
      counts[arm]++
      const looked = (counts[0] + counts[1]) % LOOK_EVERY === 0
      if (looked && sampleRatio([{ counts, weights: [1, 1] }]).mismatch) return true
    }
    return false
  })
}

/** Runs in which the exact sequence for one chance held it at every look. */
export function rateCovered(p: number, n: number, runs: number, seed: number): number {
  return count(runs, (run) => {
    const random = randomFrom('rate', p, seed, run)
    let hits = 0
    for (let i = 1; i <= n; i++) {
      hits += random() < p ? 1 : 0
      if (i % LOOK_EVERY !== 0) continue
      const { low, high } = rateSequence(hits, i, ALPHA)
      if (p < low || p > high) return false
    }
    return true
  })
}

/** Runs in which McNemar's e-value said "different" at some look at every 10th pair. */
export function pairsCrossed(gained: number, lost: number, n: number, runs: number, seed: number): number {
  return count(runs, (run) => {
    const random = randomFrom('pairs', gained, lost, seed, run)
    const pairs = { gained: 0, lost: 0 }
    for (let i = 1; i <= n; i++) {
      const at = random()
      if (at < gained) pairs.gained++
      else if (at < gained + lost) pairs.lost++
      if (i % 10 === 0 && comparePairs({ n: i, ...pairs }, ALPHA, n).eValue >= 1 / ALPHA) return true
    }
    return false
  })
}

function count(runs: number, holds: (run: number) => boolean): number {
  let held = 0
  for (let run = 0; run < runs; run++) if (holds(run)) held++
  return held
}
