import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { armOf, bucket, bucketRanges, equalWeights, inNamespace, type Range } from '../../../src/experiment/bucket.ts'

/** GrowthBook's packages/sdk-js/test/cases.json, where there is a copy: all its vectors are then tested, not only those below. */
const CASES = process.env.PALIMPSEST_TEST_GROWTHBOOK_CASES

describe('buckets', () => {
  it.each([
    ['seed', 'a', 2, 0.0505],
    ['foo', 'ab', 2, 0.2575],
    ['90850943850283058242805', '123', 2, 0.7516],
    ['', 'a', 1, 0.22],
    ['asdf', '8952klfjas09ujk', 1, 0.549],
  ] as const)('are those of GrowthBook: %s %s, version %i', (seed, value, version, wanted) => {
    expect(bucket(seed, value, version)).toBe(wanted)
  })

  it('keep a unit in its arm while the coverage grows', () => {
    const arm = (unit: number, coverage: number) => armOf(bucket('s', `u${unit}`), bucketRanges(3, coverage, [0.5, 0.3, 0.2]))
    for (let unit = 0; unit < 2_000; unit++) {
      const first = arm(unit, 0.2)
      if (first !== -1) expect([arm(unit, 0.5), arm(unit, 1)]).toEqual([first, first])
    }
  })

  it('are filled as the weights say', () => {
    const ranges = bucketRanges(2, 1, [0.9, 0.1])
    const arms = Array.from({ length: 20_000 }, (_, unit) => armOf(bucket('exp', `user-${unit}`), ranges))
    expect(arms.filter((arm) => arm === 1).length / arms.length).toBeCloseTo(0.1, 2)
  })

  // The file is another project's and is not kept here: only where one is named is there such a test.
  const published = CASES !== undefined && existsSync(CASES)
  if (published)
    it('pass every published vector', () => {
      const cases = JSON.parse(readFileSync(CASES ?? '', 'utf8')) as Published
      for (const [seed, value, version, wanted] of cases.hash)
        if (version === 1 || version === 2) expect(bucket(seed, value, version)).toBe(wanted)
      const rounded = (ranges: readonly Range[]) => ranges.map((range) => range.map((edge) => Math.round(edge * 1e9) / 1e9))
      for (const [, [arms, coverage, weights], wanted] of cases.getBucketRange)
        expect(rounded(bucketRanges(arms, coverage, weights ?? undefined))).toEqual(wanted)
      for (const [, at, ranges, wanted] of cases.chooseVariation) expect(armOf(at, ranges)).toBe(wanted)
      for (const [, unit, [name, from, to], wanted] of cases.inNamespace)
        expect(inNamespace(unit, { name, from, to })).toBe(wanted)
      for (const [arms, wanted] of cases.getEqualWeights)
        expect(equalWeights(arms).map((weight) => Math.round(weight * 1e8) / 1e8)).toEqual(wanted)
    })
})

interface Published {
  readonly hash: readonly (readonly [string, string, number, number | null])[]
  readonly getBucketRange: readonly (readonly [string, readonly [number, number, number[] | null], number[][]])[]
  readonly chooseVariation: readonly (readonly [string, number, Range[], number])[]
  readonly inNamespace: readonly (readonly [string, string, readonly [string, number, number], boolean])[]
  readonly getEqualWeights: readonly (readonly [number, number[]])[]
}
