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
const QUICK_MS = 25
/** Below this a measurement is noise; sizes grow until it is reached. */
const LEAST_MS = 1
const FACTORS = [1, 2, 4, 8] as const
const LEAST_SIZE = 64
/** A busy machine is given so many chances; work that grows too fast takes none of them. */
const ATTEMPTS = 4
const RUNS = 3

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

async function measured({ make }: Subject, sizes: readonly number[], runs: number): Promise<number[]> {
  const ms: number[] = []
  for (const size of sizes) ms.push(await time(make(size), runs))
  return ms
}

/** By two sizes; where these leave a doubt, by four, each measured several times. */
async function once(subject: Subject): Promise<Growth> {
  const base = await baseOf(subject)
  const ends = [base, 8 * base]
  const [one = 0, eight = 0] = await measured(subject, ends, 1)
  if (base * 16 > subject.most && eight < QUICK_MS) return { exponent: null, sizes: ends, ms: [one, eight] }
  const first = exponentOf(ends, [one, eight])
  if (first < MOST_EXPONENT - 0.2) return { exponent: first, sizes: ends, ms: [one, eight] }
  const sizes = FACTORS.map((factor) => factor * base)
  const ms = await measured(subject, sizes, RUNS)
  return { exponent: exponentOf(sizes, ms), sizes, ms }
}

function exponentOf(sizes: readonly number[], ms: readonly number[]): number {
  return slope(
    sizes.map(Math.log2),
    ms.map((one) => Math.log2(Math.max(one, 0.01))),
  )
}

/** Least squares. */
function slope(xs: readonly number[], ys: readonly number[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const [x0, y0] = [mean(xs), mean(ys)]
  const over = xs.reduce((sum, x, i) => sum + (x - x0) * ((ys[i] ?? 0) - y0), 0)
  return over / xs.reduce((sum, x) => sum + (x - x0) ** 2, 0)
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
