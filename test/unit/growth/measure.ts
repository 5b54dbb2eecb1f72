/** How the time that some work takes grows with the size of what it is given. */

/** What is to be measured: `make` builds an input of the size, outside of the clock, and returns the work on it. */
export interface Subject {
  readonly make: (size: number) => () => unknown
  /** The largest size that can come in, by the limits of the gateway. */
  readonly most: number
  /** How long the smallest size is to take, in milliseconds: the longer, the smaller a quadratic part is seen. LEAST_MS where left out. */
  readonly leastMs?: number
}

export interface Growth {
  /** `k` of the time c·size^k that fits best; null: at the largest size there can be it is done in QUICK_MS. */
  readonly exponent: number | null
  readonly sizes: readonly number[]
  readonly ms: readonly number[]
}

/** Between n log n, which looks like 1.2 here, and n². */
export const MOST_EXPONENT = 1.6
/** Nobody waits for this. */
const QUICK_MS = 50
/** Below this a measurement is noise; sizes grow until it is reached. */
const LEAST_MS = 1
const FACTORS = [1, 2, 4, 8] as const
const LEAST_SIZE = 64
/** A busy machine is given so many chances; work that grows too fast takes none of them. */
const ATTEMPTS = 6
const ROUNDS = 4
/** The kernel may count processor time in steps of 4 or 10 ms: where a verdict hangs on it, work is repeated for so long. */
const SPAN_MS = 30
const MOST_RUNS = 10_000

/** Processor time, in milliseconds: what neighbours do does not count. The best of some runs, for nothing makes work faster than it is. */
async function time(work: () => unknown, runs: number): Promise<number> {
  let best = Number.POSITIVE_INFINITY
  for (let run = 0; run < runs && best > 0; run++) {
    const start = process.cpuUsage()
    await work()
    const { user, system } = process.cpuUsage(start)
    best = Math.min(best, (user + system) / 1_000)
    if (best > 1_000) break
  }
  return best
}

/** The size that takes long enough to be measured; the eighth part of the largest where none does. */
async function baseOf({ make, most, leastMs = LEAST_MS }: Subject): Promise<number> {
  let size = Math.max(1, Math.min(LEAST_SIZE, Math.floor(most / 8)))
  while (size * 16 <= most && (await time(make(size), 2)) < leastMs) size *= 2
  return size
}

/** Processor time of one run, in milliseconds: the mean over SPAN_MS. */
async function mean(work: () => unknown): Promise<number> {
  const start = process.cpuUsage()
  for (let runs = 1; ; runs++) {
    await work()
    const { user, system } = process.cpuUsage(start)
    const ms = (user + system) / 1_000
    if (ms >= SPAN_MS || runs === MOST_RUNS) return ms / runs
  }
}

/** The least of some rounds, each over all sizes: what slows the machine for a while slows all of them. */
async function measured({ make }: Subject, sizes: readonly number[]): Promise<number[]> {
  const ms = sizes.map(() => Number.POSITIVE_INFINITY)
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, size] of sizes.entries()) ms[i] = Math.min(ms[i] ?? 0, await mean(make(size)))
  }
  return ms
}

/** By two sizes; where these leave a doubt, by four, each measured several times. */
async function once(subject: Subject): Promise<Growth> {
  const base = await baseOf(subject)
  const ends = [base, 8 * base]
  const [one, eight] = [await time(subject.make(base), 1), await time(subject.make(8 * base), 1)]
  if (base * 16 > subject.most && eight < QUICK_MS) return { exponent: null, sizes: ends, ms: [one, eight] }
  const first = exponentOf(ends, [one, eight])
  if (first < MOST_EXPONENT - 0.2) return { exponent: first, sizes: ends, ms: [one, eight] }
  const sizes = FACTORS.map((factor) => factor * base)
  const ms = await measured(subject, sizes)
  const isQuick = base * 16 > subject.most && (ms.at(-1) ?? 0) < QUICK_MS
  return { exponent: isQuick ? null : exponentOf(sizes, ms), sizes, ms }
}

function exponentOf(sizes: readonly number[], ms: readonly number[]): number {
  return slope(
    sizes.map(Math.log2),
    ms.map((one) => Math.log2(Math.max(one, 0.01))),
  )
}

/** The median of the slopes of all pairs (Theil 1950, Sen 1968): one step, as where a cache ends, leaves it as it is. */
function slope(xs: readonly number[], ys: readonly number[]): number {
  const at = (i: number) => ({ x: xs[i] ?? 0, y: ys[i] ?? 0 })
  const pairs = xs.flatMap((_, i) => xs.slice(i + 1).map((_, d) => [at(i), at(i + 1 + d)] as const))
  const slopes = pairs.map(([a, b]) => (b.y - a.y) / (b.x - a.x)).sort((a, b) => a - b)
  const middle = slopes.length / 2
  return ((slopes[Math.ceil(middle) - 1] ?? 0) + (slopes[Math.floor(middle)] ?? 0)) / 2
}

/** The least of some attempts: noise only ever adds to it. */
export async function growthOf(subject: Subject): Promise<Growth> {
  let best = await once(subject)
  for (let attempt = 1; attempt < ATTEMPTS && isTooFast(best); attempt++) {
    const again = await once(subject)
    if ((again.exponent ?? 0) < (best.exponent ?? 0)) best = again
  }
  return best
}

export function isTooFast({ exponent }: Growth): boolean {
  return exponent !== null && exponent > MOST_EXPONENT
}

export function told({ exponent, sizes, ms }: Growth): string {
  const row = sizes.map((size, i) => `${size}: ${ms[i]?.toFixed(1)} ms`).join(', ')
  return `grows as size^${exponent?.toFixed(2) ?? '—'} (${row})`
}
