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
/** When to come back where only requests under way stand in the way. */
const UNDER_WAY_SECONDS = 1

export const dayOf = (now: number): number => Math.floor(now / DAY_MS)

/**
 * Requests a minute (a token bucket that holds as many as the limit) and tokens a day of each key. Nothing is awaited between looking and
 * counting, so any number of requests at once stay within the limit together. Every count is written before the request goes on, what is
 * set aside as though it were used: a killed process counts too much rather than too little.
 */
export class Budgets {
  readonly #store: UsageStore
  readonly #now: () => number
  readonly #counts = new Map<string, Counts>()

  /** `now`: milliseconds since the epoch. */
  constructor(store: UsageStore, now: () => number) {
    this.#store = store
    this.#now = now
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
    this.#save(key, counts)
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
    this.#save(key, counts)
    const { day } = counts
    let open = true
    const settle = (used: number) => {
      if (!open) return
      open = false
      const now = this.#of(key)
      // What began yesterday was counted yesterday.
      if (now.day !== day) return
      now.reserved -= tokens
      now.used += used
      this.#save(key, now)
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

  #save({ id }: Key, { bucket, bucketAt, day, used, reserved }: Counts): void {
    this.#store.saveUsage(id, { bucket, bucketAt, day, tokens: used + reserved })
  }
}
