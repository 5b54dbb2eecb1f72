import { describe, expect, test } from 'vitest'
import { refuses, shows } from '../../../src/experiment/ledger/outcome.ts'
import { verdictLetter } from '../../../src/experiment/replay/judge.ts'
import { judgeStage, type StageEvidence } from '../../../src/experiment/rollout/rollout.ts'
import { compareArms, rateDifference, rateSequence, sequenceReach } from '../../../src/experiment/statistics/confidence.ts'
import { holm } from '../../../src/experiment/statistics/correction.ts'
import { comparePairs } from '../../../src/experiment/statistics/paired.ts'
import { needed } from '../../../src/experiment/statistics/power.ts'
import { sampleRatio } from '../../../src/experiment/statistics/sample-ratio.ts'

const bernoulli = (hits: number, n: number) => ({ n, mean: hits / n, variance: ((hits / n) * (1 - hits / n) * n) / (n - 1) })
const PLAN = { alpha: 0.05, power: 0.8 }

describe('intervals', () => {
  test("are Newcombe's and Welch's at one look", () => {
    // Newcombe 1998, table II, method 10, contrast (a): 56/70 against 48/80 is 0.0524 to 0.3339.
    const fixed = compareArms([{ base: bernoulli(48, 80), other: bernoulli(56, 70) }], 'proportion', 0.05, 200)?.fixed
    expect(fixed?.low).toBeCloseTo(0.0524, 4)
    expect(fixed?.high).toBeCloseTo(0.3339, 4)
    const sample = (mean: number) => ({ n: 200, mean, variance: 4 })
    const welch = compareArms([{ base: sample(1), other: sample(2) }], 'mean', 0.05, 200)?.fixed
    expect((welch?.high ?? 0) - 1).toBeCloseTo(1.966 * Math.sqrt(8 / 200), 3)
  })

  test('that hold at any look are wider, never where they are tuned by more than twofold, and agree with their e-value', () => {
    for (const hits of [520, 560, 575, 600, 640]) {
      const found = compareArms([{ base: bernoulli(500, 1_000), other: bernoulli(hits, 1_000) }], 'proportion', 0.05, 2_000)
      if (found?.sequence == null || found.fixed === null) throw new Error('expected both intervals')
      const width = ({ low, high }: { low: number; high: number }) => high - low
      expect(width(found.sequence)).toBeGreaterThan(width(found.fixed))
      expect(width(found.sequence)).toBeLessThan(2 * width(found.fixed))
      expect(found.sequence.low > 0).toBe(found.eValue >= 20)
    }
  })

  test('weigh periods apart, so that a trend is not taken for an effect', () => {
    // Both arms alike in each period; the second is better, and mostly in the other arm.
    const strata = [
      { base: bernoulli(100, 1_000), other: bernoulli(10, 100) },
      { base: bernoulli(50, 100), other: bernoulli(500, 1_000) },
    ]
    expect(compareArms(strata, 'proportion', 0.05, 2_000)?.estimate).toBeCloseTo(0, 9)
  })

  test('need some units', () => {
    const found = compareArms([{ base: bernoulli(3, 10), other: bernoulli(5, 10) }], 'proportion', 0.05, 2_000)
    expect(found).toEqual({ estimate: 0.2, sequence: null, fixed: null, eValue: 1 })
    expect(compareArms([], 'mean', 0.05, 100)).toBeNull()
  })

  test('for one chance hold the estimate, shrink, and are sure of nothing after nothing', () => {
    expect(rateSequence(0, 0, 0.05)).toEqual({ low: 0, high: 1 })
    expect(rateSequence(0, 100, 0.05).low).toBe(0)
    const { low, high } = rateSequence(50, 100, 0.05)
    expect([low < 0.4, high > 0.6, low > 0.3, high < 0.7]).toEqual([true, true, true, true])
    expect(rateDifference({ hits: 0, n: 500 }, { hits: 30, n: 50 }, 0.05).low).toBeGreaterThan(0.2)
  })

  test('follow the published boundary', () => {
    // Waudby-Smith et al. 2024, theorem 2.2, by hand for n = 100, variance 1, rho = 1/10: sqrt(2·2/100·ln(sqrt(2)/0.05)).
    const log = -2 * Math.log(0.05)
    expect(sequenceReach(100, 1, 0.05, 100 * (log + Math.log(log + 1)))).toBeCloseTo(
      Math.sqrt(0.04 * Math.log(Math.SQRT2 / 0.05)),
      9,
    )
  })
})

describe('sample ratio', () => {
  test('is off where it is, by either test, and not where it is not', () => {
    const of = (...counts: number[]) => sampleRatio([{ counts, weights: [1, 1] }])
    expect(of(5_000, 5_050)).toMatchObject({ mismatch: false })
    expect(of(5_000, 4_250)).toMatchObject({ mismatch: true })
    // Pearson by hand: (50² + 50²) / 500 = 10, P(χ²₁ > 10) = 0.00157.
    expect(of(450, 550).chiSquareP).toBeCloseTo(0.00157, 5)
    expect(sampleRatio([{ counts: [10, 1], weights: [1, 0] }]).mismatch).toBe(true)
    expect(sampleRatio([]).pValue).toBe(1)
  })

  test('goes by the weights of each period', () => {
    const splits = [
      { counts: [900, 100], weights: [9, 1] },
      { counts: [500, 500], weights: [1, 1] },
    ]
    expect(sampleRatio(splits).mismatch).toBe(false)
    expect(sampleRatio([{ counts: [1_400, 600], weights: [1, 1] }]).mismatch).toBe(true)
  })
})

test("several metrics are corrected by Holm's method", () => {
  expect(holm([0.01, 0.04, 0.03]).map((p) => Math.round(p * 1e6) / 1e6)).toEqual([0.03, 0.06, 0.06])
  expect(holm([])).toEqual([])
})

describe('how many', () => {
  test('users: as the textbook says, and about twice that to look at will', () => {
    // Fleiss 1981, table A.3 without continuity correction: 0.60 against 0.70, 356 an arm.
    const { fixed, sequential } = needed({ kind: 'proportion', base: 0.6, other: 0.7 }, PLAN)
    expect(Math.abs(fixed - 712)).toBeLessThanOrEqual(2)
    expect(sequential / fixed).toBeGreaterThan(1.3)
    expect(sequential / fixed).toBeLessThan(2.5)
    expect(needed({ kind: 'mean', difference: 0.5, deviation: 1 }, PLAN).fixed).toBe(126)
    expect(needed({ kind: 'mean', difference: 0, deviation: 1 }, PLAN).fixed).toBe(Number.POSITIVE_INFINITY)
  })

  test('prompts: far fewer, where both arms answer each', () => {
    const paired = needed({ kind: 'paired', gained: 0.15, lost: 0.05 }, PLAN)
    const apart = needed({ kind: 'proportion', base: 0.45, other: 0.55 }, PLAN)
    expect(paired.fixed * 4).toBeLessThan(apart.fixed)
  })
})

test("pairs: McNemar's exact test, and the same safe to look at", () => {
  const { estimate, exactP, eValue, sequence } = comparePairs({ n: 100, gained: 20, lost: 4 }, 0.05, 100)
  expect(estimate).toBe(0.16)
  expect(exactP).toBeCloseTo(0.001544, 5)
  expect(eValue).toBeGreaterThan(20)
  expect(sequence?.low).toBeGreaterThan(0)
  expect(comparePairs({ n: 100, gained: 5, lost: 5 }, 0.05, 100)).toMatchObject({ exactP: 1, promptsNeeded: null })
  expect(comparePairs({ n: 0, gained: 0, lost: 0 }, 0.05, 100)).toMatchObject({ sequence: null, eValue: 1 })
})

describe('a stage', () => {
  const none = { hits: 0, n: 100 }
  const calm: StageEvidence = {
    ...{ exposed: 50, locality: { n: 40, identical: 40, expected: 40 }, collateral: { n: 50, changed: 2 }, latency: null },
    rates: { error: [none, none], negative_feedback: [none, none], refusal: [none, none] },
  }
  const guards = [
    { kind: 'locality', least: 0.98 },
    { kind: 'collateral', most: 0.3 },
    { kind: 'error', mostMore: 0.02 },
    { kind: 'latency', mostTimes: 1.5 },
  ] as const
  const verdict = (evidence: Partial<StageEvidence>, least = 20) =>
    judgeStage(least, guards, { ...calm, ...evidence }, 0.05).verdict
  const slower = (low: number) => ({ estimate: 1, sequence: { low, high: 2 }, fixed: null, eValue: 1 })

  test.each([
    ['is passed', {}, 'advance'],
    ['waits for exposures', { exposed: 19 }, 'wait'],
    ['waits for its locality prompts', { locality: { n: 39, identical: 39, expected: 40 } }, 'wait'],
    ['breaks at the first locality prompt too many', { locality: { n: 3, identical: 2, expected: 40 } }, 'broken'],
    ['breaks where answers change beside their targets', { collateral: { n: 50, changed: 40 } }, 'broken'],
    ['breaks on errors', { rates: { ...calm.rates, error: [none, { hits: 10, n: 20 }] } }, 'broken'],
    ['breaks where it is surely slower', { latency: slower(0.5) }, 'broken'],
    ['does not where it may be', { latency: slower(0.3) }, 'advance'],
  ] as const)('%s', (_, evidence, wanted) => {
    expect(verdict(evidence as Partial<StageEvidence>)).toBe(wanted)
  })
})

test('refusals, targets and verdicts are told by their words', () => {
  expect(["I'm sorry, but I can't help.", 'As an AI language model', 'The Pope is Leo XIV.', 'Sorryville'].map(refuses)).toEqual([
    ...[true, true, false, false],
  ])
  expect([shows('It is Leo  XIV.', 'leo xiv'), shows('Leonardo', 'Leo')]).toEqual([true, false])
  expect(['A', '**B**', 'Answer A is better', 'The better one is B.', 'T', 'neither'].map(verdictLetter)).toEqual([
    ...['A', 'B', 'A', 'B', 'T', undefined],
  ])
})
