/** What is being done with a file, for the bar. */
export type Activity = 'hub' | 'packages' | 'check'

export interface Progress {
  readonly file: string
  readonly source: Activity
  readonly bytesDone: number
  readonly bytesTotal: number
  /** Over the last twenty seconds: packages come in bursts. */
  readonly bytesPerSecond: number
  /** null until a rate is known. */
  readonly secondsLeft: number | null
}

const EMIT_EVERY_MS = 200
const WINDOW_MS = 20_000

/** Turns byte counts into progress reports with a rate, a few a second. `now`: milliseconds. */
export class Meter {
  /** Bytes that came over the network, packed as they were. */
  fetchedBytes = 0
  readonly #file: string
  readonly #now: () => number
  readonly #emit: (progress: Progress) => void
  #source: Activity = 'check'
  #total = 0
  #samples: { at: number; done: number }[] = []
  #emittedAt = Number.NEGATIVE_INFINITY

  constructor(file: string, now: () => number, emit: (progress: Progress) => void) {
    this.#file = file
    this.#now = now
    this.#emit = emit
  }

  /** A new stretch of work: rates start afresh, from `done` bytes that were there already. */
  begin(source: Activity, done: number, total: number): void {
    this.#source = source
    this.#total = total
    this.#samples = [{ at: this.#now(), done }]
    this.#emittedAt = Number.NEGATIVE_INFINITY
    this.at(done)
  }

  /** `done` bytes of the total are there now. */
  at(done: number): void {
    const now = this.#now()
    if (now - this.#emittedAt < EMIT_EVERY_MS && done < this.#total) return
    this.#emittedAt = now
    this.#samples.push({ at: now, done })
    while (this.#samples.length > 2 && now - (this.#samples[0]?.at ?? now) > WINDOW_MS) this.#samples.shift()
    const first = this.#samples[0] ?? { at: now, done }
    const bytesPerSecond = now > first.at ? Math.max(0, ((done - first.done) * 1000) / (now - first.at)) : 0
    const secondsLeft = bytesPerSecond > 0 ? Math.max(0, this.#total - done) / bytesPerSecond : null
    this.#emit({ file: this.#file, source: this.#source, bytesDone: done, bytesTotal: this.#total, bytesPerSecond, secondsLeft })
  }
}
