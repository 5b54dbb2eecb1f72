/** Between two looks at what is answered. */
const LOOK_MS = 25

export interface GiveWayLimits {
  /** Time without an answer being written, after which a paused worker goes on. */
  readonly quietMs: number
  /** Of one pause: where answers never end, a worker goes on all the same. */
  readonly pauseMs: number
  /** Time that a worker then has before it is paused again. */
  readonly runMs: number
}

/** A process or several; false where none is left. */
export interface Pausable {
  kill(signal: 'SIGSTOP' | 'SIGCONT'): boolean
}

/**
 * Pauses a worker while answers are being written, and lets it go on when none is. It is the operating system that pauses it (SIGSTOP), since
 * a step of the worker's takes seconds. Windows has no such signal, so there a worker has its low priority only.
 */
export class GiveWay {
  readonly #child: Pausable
  readonly #isBusy: () => boolean
  readonly #limits: GiveWayLimits
  readonly #changed: (isPaused: boolean) => void
  readonly #timer: NodeJS.Timeout
  #pausedAt: number | null = null
  #busyAt = Number.NEGATIVE_INFINITY
  #runsUntil = Number.NEGATIVE_INFINITY
  #pausedMs = 0

  constructor(child: Pausable, isBusy: () => boolean, limits: GiveWayLimits, changed: (isPaused: boolean) => void) {
    this.#child = child
    this.#isBusy = isBusy
    this.#limits = limits
    this.#changed = changed
    this.#timer = setInterval(() => this.#look(performance.now()), LOOK_MS)
    if (process.platform === 'win32') clearInterval(this.#timer)
  }

  get isPaused(): boolean {
    return this.#pausedAt !== null
  }

  /** In all pauses that are over. */
  get pausedMs(): number {
    return this.#pausedMs
  }

  /** Lets it go on, for good. */
  end(): void {
    clearInterval(this.#timer)
    this.#goOn(performance.now())
  }

  #look(now: number): void {
    const isBusy = this.#isBusy()
    if (isBusy) this.#busyAt = now
    if (this.#pausedAt === null) {
      if (isBusy && now >= this.#runsUntil && this.#child.kill('SIGSTOP')) {
        this.#pausedAt = now
        this.#changed(true)
      }
      return
    }
    const { quietMs, pauseMs, runMs } = this.#limits
    const isLong = now - this.#pausedAt >= pauseMs
    if (isLong) this.#runsUntil = now + runMs
    if (isLong || now - this.#busyAt >= quietMs) this.#goOn(now)
  }

  #goOn(now: number): void {
    if (this.#pausedAt === null) return
    this.#pausedMs += now - this.#pausedAt
    this.#pausedAt = null
    this.#child.kill('SIGCONT')
    this.#changed(false)
  }
}
