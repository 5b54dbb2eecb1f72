/**
 * Which arm a unit belongs to, by hash alone: GrowthBook's bucketing, version 2, so that any of its SDKs puts the same unit into the same
 * arm (https://docs.growthbook.io/lib/build-your-own; vectors: packages/sdk-js/test/cases.json).
 */

/** 32-bit FNV-1a (Fowler, Noll, Vo) over UTF-16 code units, as GrowthBook's JavaScript has it. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  return hash >>> 0
}

/** A number in [0, 1): version 2 in steps of 1/10,000. Version 1 is biased, and only namespaces still use it. */
export function bucket(seed: string, value: string, version: 1 | 2 = 2): number {
  return version === 2 ? (fnv1a(String(fnv1a(seed + value))) % 10_000) / 10_000 : (fnv1a(value + seed) % 1_000) / 1_000
}

/** Half-open. */
export type Range = readonly [from: number, to: number]

/**
 * Each arm's share of [0, 1): its weight, of which the first `coverage` is used. So units stay where they are when the coverage grows.
 * Weights that do not fit the arms, or do not add up to 1 within 1 %, count as equal.
 */
export function bucketRanges(arms: number, coverage: number, weights?: readonly number[]): Range[] {
  const used = Math.min(1, Math.max(0, coverage))
  const sum = weights?.reduce((total, weight) => total + weight, 0) ?? 0
  const fit = weights !== undefined && weights.length === arms && sum >= 0.99 && sum <= 1.01
  const shares = fit ? weights : equalWeights(arms)
  let from = 0
  return shares.map((share): Range => {
    const start = from
    from += share
    return [start, start + used * share]
  })
}

export function equalWeights(arms: number): number[] {
  return arms <= 0 ? [] : new Array<number>(arms).fill(1 / arms)
}

/** Index of the arm whose range holds the bucket; -1: none, the unit takes no part. */
export function armOf(at: number, ranges: readonly Range[]): number {
  return ranges.findIndex(([from, to]) => at >= from && at < to)
}

/** A part of all units that experiments share out among themselves, so that no unit is in two of them. */
export interface Namespace {
  readonly name: string
  readonly from: number
  readonly to: number
}

export function inNamespace(unit: string, { name, from, to }: Namespace): boolean {
  const at = bucket(`__${name}`, unit, 1)
  return at >= from && at < to
}
