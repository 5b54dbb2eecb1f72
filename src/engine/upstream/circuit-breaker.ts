export type BreakerState = 'closed' | 'open' | 'half-open'

export interface BreakerLimits {
  /** Faults in a row that open it. */
  readonly faults: number
  readonly firstOpenMs: number
  readonly maxOpenMs: number
}

export const BREAKER_LIMITS: BreakerLimits = { faults: 3, firstOpenMs: 1_000, maxOpenMs: 60_000 }

/**
 * A circuit breaker (Nygard, Release It!, 2007): closed while all is well; open after several faults in a row; then half-open, when one
 * request is let through and decides. Each opening in a row lasts twice as long. A server that answers, if badly, may be asked all the same
 * where no other is left (`admitLast`; Envoy's panic threshold does so): one client's prompts can be what it fails at. Times in milliseconds.
 */
export class Breaker {
  readonly #limits: BreakerLimits
  readonly #now: () => number
  #faults = 0
  /** Faults in a row in which no answer came. */
  #silences = 0
  #openings = 0
  #openUntil = Number.NEGATIVE_INFINITY
  #pausedUntil = Number.NEGATIVE_INFINITY
  #probing = false

  constructor(now: () => number, limits: BreakerLimits = BREAKER_LIMITS) {
    this.#now = now
    this.#limits = limits
  }

  get state(): BreakerState {
    if (this.#openings === 0) return 'closed'
    return this.#now() < this.#openUntil ? 'open' : 'half-open'
  }

  get faults(): number {
    return this.#faults
  }

  /** Until a request may be let through, as far as is known; 0: now. */
  get waitMs(): number {
    return Math.max(0, this.#pausedUntil - this.#now(), this.#openings === 0 ? 0 : this.#openUntil - this.#now())
  }

  /** Lets a request through or not. One that is let through ends with `succeeded`, `failed`, `paused` or `undecided`. */
  admit(): boolean {
    if (this.waitMs > 0 || (this.state === 'half-open' && this.#probing)) return false
    this.#probing = this.state === 'half-open'
    return true
  }

  /** Lets one through that no other server is left for, unless it has been silent too often or asked for peace. It ends as above. */
  admitLast(): boolean {
    return this.#silences < this.#limits.faults && this.#pausedUntil <= this.#now()
  }

  succeeded(): void {
    this.#faults = 0
    this.#silences = 0
    this.#openings = 0
    this.#probing = false
  }

  failed(how: 'silent' | 'answered'): void {
    this.#faults++
    this.#silences = how === 'silent' ? this.#silences + 1 : 0
    const wasProbe = this.#probing
    this.#probing = false
    if (!wasProbe && this.#faults < this.#limits.faults) return
    this.#openUntil = this.#now() + Math.min(this.#limits.maxOpenMs, this.#limits.firstOpenMs * 2 ** this.#openings)
    this.#openings++
  }

  /** It asked for peace for a while, which is no fault. */
  paused(ms: number): void {
    this.#pausedUntil = this.#now() + ms
    this.#probing = false
  }

  /** Nothing was learnt: the client left. */
  undecided(): void {
    this.#probing = false
  }
}
