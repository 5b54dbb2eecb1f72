import { PalimpsestError } from '../../errors.ts'
import type { Load } from '../engine.ts'

/** How much the latest request weighs in the running mean of how long a slot is held. */
const LATEST_WEIGHT = 0.2

export interface Lease<Slot> {
  readonly slot: Slot
  /** Gives the slot back; calling it twice does nothing more. */
  release(): void
}

interface Waiter<Slot> {
  readonly choose: (free: readonly Slot[]) => Slot | undefined
  readonly grant: (lease: Lease<Slot>) => void
  readonly refuse: (reason: unknown) => void
}

/** A fixed set of slots behind a bounded first-come-first-served queue. */
export class SlotQueue<Slot> {
  readonly #free: Set<Slot>
  readonly #slots: number
  readonly #queueLimit: number
  readonly #now: () => number
  readonly #waiting: Waiter<Slot>[] = []
  readonly #idle: (() => void)[] = []
  #meanHeldMs = 0
  #closed = false

  /** `now` in milliseconds. */
  constructor(slots: readonly Slot[], queueLimit: number, now: () => number) {
    this.#free = new Set(slots)
    this.#slots = slots.length
    this.#queueLimit = queueLimit
    this.#now = now
  }

  /**
   * A slot, `choose`n among those free at that moment. Throws `queue_full` at once when `queueLimit` others wait, `shutting_down` once
   * closed, and the signal's reason as soon as it is aborted.
   */
  async acquire(choose: (free: readonly Slot[]) => Slot | undefined, signal: AbortSignal): Promise<Lease<Slot>> {
    signal.throwIfAborted()
    if (this.#closed) throw shuttingDown()
    if (this.#free.size > 0 && this.#waiting.length === 0) return this.#lease(choose)
    if (this.#waiting.length >= this.#queueLimit) throw this.#full()
    return await new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1)
        reject(signal.reason)
      }
      const settled = () => signal.removeEventListener('abort', leave)
      const waiter: Waiter<Slot> = {
        choose,
        grant: (lease) => {
          settled()
          resolve(lease)
        },
        refuse: (reason) => {
          settled()
          reject(reason)
        },
      }
      signal.addEventListener('abort', leave, { once: true })
      this.#waiting.push(waiter)
    })
  }

  load(): Load {
    return { slots: this.#slots, busy: this.#slots - this.#free.size, queued: this.#waiting.length, queueLimit: this.#queueLimit }
  }

  /** Refuses everyone who waits or comes later. */
  close(): void {
    this.#closed = true
    for (const waiter of this.#waiting.splice(0)) waiter.refuse(shuttingDown())
  }

  /** True once every slot is free; false when that took longer than `withinMs`. */
  async drained(withinMs: number): Promise<boolean> {
    if (this.#free.size === this.#slots) return true
    return await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), withinMs)
      this.#idle.push(() => {
        clearTimeout(timer)
        resolve(true)
      })
    })
  }

  #lease(choose: (free: readonly Slot[]) => Slot | undefined): Lease<Slot> {
    const slot = choose([...this.#free])
    if (slot === undefined) throw new PalimpsestError('internal', 'Expected a free slot to be chosen, but none was.')
    const since = this.#now()
    this.#free.delete(slot)
    let held = true
    const release = () => {
      if (held) this.#release(slot, since)
      held = false
    }
    return { slot, release }
  }

  #release(slot: Slot, since: number): void {
    const heldMs = this.#now() - since
    this.#meanHeldMs = this.#meanHeldMs === 0 ? heldMs : this.#meanHeldMs + LATEST_WEIGHT * (heldMs - this.#meanHeldMs)
    this.#free.add(slot)
    const next = this.#waiting.shift()
    if (next !== undefined) next.grant(this.#lease(next.choose))
    else if (this.#free.size === this.#slots) for (const done of this.#idle.splice(0)) done()
  }

  /** When the queue will have moved on by its own length, going by how long slots have been held of late. */
  #full(): PalimpsestError {
    const seconds = Math.max(1, Math.ceil((this.#meanHeldMs * this.#waiting.length) / this.#slots / 1000))
    return new PalimpsestError(
      'queue_full',
      `All ${this.#slots} slots are busy and ${this.#waiting.length} requests wait already, which is the limit; try again in about ${seconds} s.`,
      { retryAfterSeconds: seconds },
    )
  }
}

export function shuttingDown(): PalimpsestError {
  return new PalimpsestError(
    'shutting_down',
    'The gateway is shutting down and takes no more requests; try again once it is back.',
  )
}
