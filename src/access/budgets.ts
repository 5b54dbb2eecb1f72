import { PalimpsestError } from '../errors.ts'
import type { Key } from './key.ts'
import type { Usage } from './key-store.ts'

/** Where counts outlive the process. */
export interface UsageStore {
  usage(id: string): Usage | undefined
  saveUsage(id: string, usage: Usage): void
}

/** One limit, how much of it is left, and when all of it is there again. */
export interface Rate {
  readonly limit: number
  readonly remaining: number
  readonly resetMs: number
}

export interface Rates {
  readonly requests?: Rate
  readonly tokens?: Rate
}

/** Tokens set aside for a request under way. */
export interface Reservation {
  readonly tokens: number
  /** Counts what was used, once, and gives the rest back. */
  settle(used: number): void
}

interface Counts {
  bucket: number
  bucketAt: number
  day: number
  used: number
  reserved: number
}

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
/** What could not be written is tried again after this long. */
const RETRY_MS = 1_000
/** After a write that failed, the store is left alone for this long: each try may wait for a lock, and everybody waits with it. */
const REST_MS = 250
/** When to come back where only requests under way stand in the way. */
const UNDER_WAY_SECONDS = 1

export const dayOf = (now: number): number => Math.floor(now / DAY_MS)

/**
 * Requests a minute (a token bucket that holds as many as the limit) and tokens a day of each key. Nothing is awaited between looking and
 * counting, so any number of requests at once stay within the limit together. Every count is written before the request goes on, what is
 * set aside as though it were used: a killed process counts too much rather than too little. Only what a request that is over has used, which
 * nobody can be refused any more, is counted in memory alone while it can't be written, and written later.
 */
export class Budgets {
  readonly #store: UsageStore
  readonly #now: () => number
  readonly #warn: (message: string) => void
  readonly #counts = new Map<string, Counts>()
  /** Ids of keys whose counts are ahead of the store's. */
  readonly #unwritten = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #fault: { readonly thrown: unknown; readonly untilMs: number } | null = null

  /** `now`: milliseconds since the epoch. */
  constructor(store: UsageStore, now: () => number, warn: (message: string) => void = () => {}) {
    this.#store = store
    this.#now = now
    this.#warn = warn
  }

  /** Counts one request. Throws `rate_limit_exceeded`. */
  request(key: Key): void {
    const { requestsPerMinute: limit } = key
    if (limit === undefined) return
    const counts = this.#of(key)
    if (counts.bucket < 1) {
      throw new PalimpsestError('rate_limit_exceeded', `This key may make ${limit} requests a minute, and has made them.`, {
        retryAfterSeconds: ((1 - counts.bucket) * MINUTE_MS) / limit / 1_000,
      })
    }
    counts.bucket--
    this.#saveOr(key, counts, () => counts.bucket++)
  }

  /**
   * Sets aside `most` tokens, or what is left where that is at least `least`. Throws `insufficient_quota` where the day's tokens are used up,
   * `rate_limit_exceeded` where they are only set aside for requests under way.
   */
  reserve(key: Key, least: number, most: number): Reservation {
    const { tokensPerDay: limit } = key
    if (limit === undefined) return { tokens: most, settle: () => {} }
    const counts = this.#of(key)
    const left = limit - counts.used - counts.reserved
    if (left < least) throw this.#exhausted(limit, counts, least)
    const tokens = Math.min(most, left)
    counts.reserved += tokens
    this.#saveOr(key, counts, () => {
      counts.reserved -= tokens
    })
    const { day } = counts
    let open = true
    const settle = (used: number) => {
      if (!open) return
      open = false
      const now = this.#of(key)
      // What began yesterday was counted yesterday.
      if (now.day !== day) return
      now.reserved -= tokens
      // What is no number of tokens counts as all that was set aside.
      now.used = Math.min(now.used + (Number.isSafeInteger(used) && used >= 0 ? used : tokens), Number.MAX_SAFE_INTEGER)
      this.#unwritten.add(key.id)
      this.flush()
    }
    return { tokens, settle }
  }

  /** As things stand; without what has no limit. */
  rates(key: Key): Rates {
    const { requestsPerMinute, tokensPerDay } = key
    if (requestsPerMinute === undefined && tokensPerDay === undefined) return {}
    const { bucket, used, reserved } = this.#of(key)
    return {
      ...(requestsPerMinute !== undefined && {
        requests: {
          limit: requestsPerMinute,
          remaining: Math.floor(bucket),
          resetMs: ((requestsPerMinute - bucket) * MINUTE_MS) / requestsPerMinute,
        },
      }),
      ...(tokensPerDay !== undefined && {
        tokens: {
          limit: tokensPerDay,
          remaining: Math.max(0, tokensPerDay - used - reserved),
          resetMs: used + reserved === 0 ? 0 : this.#untilMidnightMs(),
        },
      }),
    }
  }

  #untilMidnightMs(): number {
    return DAY_MS - (this.#now() % DAY_MS)
  }

  #exhausted(limit: number, { used }: Counts, least: number): PalimpsestError {
    if (used + least <= limit)
      return new PalimpsestError(
        'rate_limit_exceeded',
        `This request may take ${least} tokens. Enough of the key's ${limit} tokens a day are left, but requests under way hold them: send it again in a moment.`,
        { retryAfterSeconds: UNDER_WAY_SECONDS },
      )
    return new PalimpsestError(
      'insufficient_quota',
      `This request may take ${least} tokens, and of the key's ${limit} tokens a day ${Math.max(0, limit - used)} are left. Ask for a shorter answer with max_tokens, or come back after midnight UTC.`,
      { retryAfterSeconds: this.#untilMidnightMs() / 1_000 },
    )
  }

  /** The key's counts as they are now: the bucket filled up, a new day begun. A clock that goes back gives nothing away. */
  #of(key: Key): Counts {
    const now = this.#now()
    const today = dayOf(now)
    const full = key.requestsPerMinute ?? 0
    let counts = this.#counts.get(key.id)
    if (counts === undefined) {
      const { bucket, bucketAt, day, tokens } = this.#store.usage(key.id) ?? {
        bucket: full,
        bucketAt: now,
        day: today,
        tokens: 0,
      }
      counts = { bucket, bucketAt, day, used: tokens, reserved: 0 }
      this.#counts.set(key.id, counts)
    }
    counts.bucket = Math.min(full, counts.bucket + (Math.max(0, now - counts.bucketAt) * full) / MINUTE_MS)
    counts.bucketAt = Math.max(now, counts.bucketAt)
    if (today > counts.day) Object.assign(counts, { day: today, used: 0, reserved: 0 })
    return counts
  }

  /** Writes what the store has not got yet; what fails is tried again by itself. Never throws. */
  flush(): void {
    for (const id of this.#unwritten) {
      const counts = this.#counts.get(id)
      try {
        if (counts !== undefined) this.#save(id, counts)
      } catch (error) {
        if (this.#timer === undefined)
          this.#warn(`what keys have used is written later: ${error instanceof Error ? error.message : error}`)
        this.#timer ??= setTimeout(() => {
          this.#timer = undefined
          this.flush()
        }, RETRY_MS).unref()
        return
      }
    }
  }

  /** What can't be written is undone, and its request refused. */
  #saveOr({ id }: Key, counts: Counts, undo: () => void): void {
    try {
      this.#save(id, counts)
    } catch (error) {
      undo()
      throw error
    }
  }

  #save(id: string, { bucket, bucketAt, day, used, reserved }: Counts): void {
    if (this.#fault !== null && performance.now() < this.#fault.untilMs) throw this.#fault.thrown
    try {
      const tokens = Math.min(used + reserved, Number.MAX_SAFE_INTEGER)
      this.#store.saveUsage(id, { bucket, bucketAt, day, tokens })
      this.#fault = null
      this.#unwritten.delete(id)
    } catch (thrown) {
      this.#fault = { thrown, untilMs: performance.now() + REST_MS }
      throw thrown
    }
  }
}
