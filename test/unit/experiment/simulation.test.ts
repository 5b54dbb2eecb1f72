import { expect, test, vi } from 'vitest'
import { chance, logSeconds, pairsCrossed, rateCovered, ratioCaught, simulate } from '../../../bench/experiments/simulated.ts'
import { needed } from '../../../src/experiment/statistics/power.ts'

vi.setConfig({ testTimeout: 120_000 })

/** In short; `npm run bench:experiments` has 2,000 runs of more. */
const RUNS = 300
const same = { truth: 0, exposures: 2_000, tunedFor: 1_000 }

test('no more than 5 % of experiments without a difference find one, looked at every 50 exposures', () => {
  const chances = simulate({ name: 'same', outcome: chance(0.3), kind: 'proportion', ...same }, RUNS, 7)
  expect(chances.crossed / RUNS).toBeLessThanOrEqual(0.05)
  // The test can fail: an interval for one look, looked at so often, is wrong far more often.
  expect(chances.fixedCrossed / RUNS).toBeGreaterThan(0.15)
  const times = simulate({ name: 'times', outcome: logSeconds(), kind: 'ratio', ...same, weight: 0.1 }, RUNS, 7)
  expect(times.crossed / RUNS).toBeLessThanOrEqual(0.05)
})

test('sequences hold the truth at every look, and find a planned difference as often as planned', () => {
  const { sequential } = needed({ kind: 'proportion', base: 0.3, other: 0.4 }, { alpha: 0.05, power: 0.8 })
  const plan = { exposures: sequential, tunedFor: sequential, truth: 0.1 }
  const found = simulate({ name: 'planned', outcome: chance(0.3, 0.4), kind: 'proportion', ...plan }, RUNS, 7)
  expect(found.covered / RUNS).toBeGreaterThanOrEqual(0.95)
  expect(found.crossed / RUNS).toBeGreaterThan(0.75)
  expect(rateCovered(0.02, 1_000, RUNS, 7) / RUNS).toBeGreaterThanOrEqual(0.95)
})

test('a broken split is called, a sound one is not', () => {
  expect(ratioCaught(0.15, 10_000, 100, 7)).toBeGreaterThanOrEqual(99)
  expect(ratioCaught(0, 5_000, 200, 7)).toBeLessThanOrEqual(4)
})

test('pairs that differ both ways alike are rarely taken for different', () => {
  expect(pairsCrossed(0.05, 0.05, 500, RUNS, 7) / RUNS).toBeLessThanOrEqual(0.05)
  expect(pairsCrossed(0.15, 0.05, 500, RUNS, 7) / RUNS).toBeGreaterThan(0.8)
})
