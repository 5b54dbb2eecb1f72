import { PalimpsestError } from '../errors.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import { DAY_MS } from './day.ts'
import type { Key } from './key.ts'
import { type Ask, type Counts, REFUSED_REQUEST, REFUSED_TOKENS, type Settlement, Usage } from './usage.ts'

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

/** What a request got. */
export interface Taken {
  /** As things stand after it; without what has no limit. */
  readonly rates: Rates
  /** `rate_limit_exceeded` or `insufficient_quota`: nothing is set aside then. */
  readonly refused: PalimpsestError | null
  /** Set aside for it, where it is not refused. */
  readonly tokens: number
  /** Counts what was used, once, and gives the rest back. Never fails: what can't be written now is written later. */
  settle(used: number): Promise<void>
}

export interface Budgets {
  /** In one round trip; of a key without limits, in none. Throws storage errors: a budget that can't be held is not given. */
  take(key: Key, ask: Ask): Promise<Taken>
  /** Writes what was not written yet, as far as the database is there. */
  close(): Promise<void>
}

export interface BudgetOptions {
  readonly warn?: (message: string) => void
  /** Divides the day. */
  readonly leaseMs?: number
}

const MINUTE_MS = 60_000
const LEASE_MS = 300_000
/** What could not be written is tried again after this long. */
const RETRY_MS = 1_000
/** After a statement that failed, the database is left alone for this long: each try may wait, and everybody waits with it. */
const REST_MS = 250
/** When to come back where only requests under way stand in the way. */
const UNDER_WAY_SECONDS = 1
/** Settlements that wait for a database that is away. What is beyond counts as all that was set aside. */
const WAITING = 10_000

/** Where there is no limit. */
export function nothingTaken({ tokens }: Ask): Taken {
  return { rates: {}, refused: null, tokens: tokens?.most ?? 0, settle: async () => {} }
}

/** Of a gateway whose one key has no limits. */
export const NO_BUDGETS: Budgets = { take: async (_key, ask) => nothingTaken(ask), close: async () => {} }

/**
 * Requests a minute (a token bucket that holds as many as the limit) and tokens a day of each key, counted by the database, so that any
 * number of requests at once stay within the limit together, on however many gateways.
 *
 * What is set aside is counted as used from the start, and given back when the request is over. Of a gateway that dies, it therefore stays
 * counted until the day ends: the model may have been asked to the last token, and a limit that a crash can lift is none. For one or two leases
 * it counts as under way, so that clients are told to come back in a moment; after that as used, and they are told to come back tomorrow. A
 * request that takes longer than that is told so too soon, and settled rightly all the same.
 */
export class SharedBudgets implements Budgets {
  readonly #usage: Usage
  readonly #warn: (message: string) => void
  readonly #waiting: Settlement[] = []
  readonly #writing = new Set<Promise<void>>()
  #timer: NodeJS.Timeout | undefined
  #fault: { readonly thrown: unknown; readonly untilMs: number } | null = null
  #closed = false

  /** `now`: milliseconds since the epoch. */
  constructor(sql: SqlDatabase, now: () => number, { warn = () => {}, leaseMs = LEASE_MS }: BudgetOptions = {}) {
    this.#usage = new Usage(sql, now, leaseMs)
    this.#warn = warn
  }

  async take(key: Key, ask: Ask): Promise<Taken> {
    const { requestsPerMinute, tokensPerDay } = key
    const tokens = tokensPerDay === undefined ? undefined : ask.tokens
    if (tokensPerDay === undefined && (requestsPerMinute === undefined || !ask.request)) return nothingTaken(ask)
    const counts = await this.#rested(() => this.#usage.take(key, { request: ask.request, ...(tokens && { tokens }) }))
    const rates = ratesOf(key, counts)
    const refused = refusalOf(key, counts, tokens?.least ?? 0)
    if (refused !== null || tokens === undefined) return { ...nothingTaken(ask), rates, refused }
    const hold = this.#usage.hold(key, counts)
    let open = true
    const settle = async (used: number) => {
      if (!open) return
      open = false
      // What is no number of tokens counts as all that was set aside.
      await this.#settle({ hold, used: Number.isSafeInteger(used) && used >= 0 ? used : hold.tokens })
    }
    return { rates, refused, tokens: hold.tokens, settle }
  }

  async #settle(settlement: Settlement): Promise<void> {
    if (this.#closed) return
    const written = this.#rested(() => this.#usage.settle(settlement)).catch((error: unknown) => {
      if (this.#waiting.length === 0)
        this.#warn(`what keys have used is written later: ${error instanceof Error ? error.message : error}`)
      if (this.#waiting.length < WAITING) this.#waiting.push(settlement)
      this.#timer ??= this.#later()
    })
    this.#writing.add(written)
    await written
    this.#writing.delete(written)
  }

  #later(): NodeJS.Timeout {
    return setTimeout(async () => {
      await this.#writeWaiting()
      this.#timer = this.#waiting.length > 0 && !this.#closed ? this.#later() : undefined
    }, RETRY_MS).unref()
  }

  /** In their order, until one fails. */
  async #writeWaiting(): Promise<void> {
    try {
      for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
        await this.#usage.settle(next)
        this.#waiting.shift()
      }
    } catch {
      // Said when it began.
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await Promise.all(this.#writing)
    await this.#writeWaiting()
  }

  async #rested<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#fault !== null && performance.now() < this.#fault.untilMs) throw this.#fault.thrown
    try {
      const result = await work()
      this.#fault = null
      return result
    } catch (thrown) {
      this.#fault = { thrown, untilMs: performance.now() + REST_MS }
      throw thrown
    }
  }
}

function ratesOf({ requestsPerMinute, tokensPerDay }: Key, counts: Counts): Rates {
  const { bucket, tokens } = counts
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
        remaining: Math.max(0, tokensPerDay - tokens),
        resetMs: tokens === 0 ? 0 : untilMidnightMs(counts),
      },
    }),
  }
}

/** By the clock that counted. */
function untilMidnightMs({ bucket_at }: Counts): number {
  return DAY_MS - (bucket_at % DAY_MS)
}

function refusalOf(key: Key, counts: Counts, least: number): PalimpsestError | null {
  const { granted, bucket, tokens, reserved, reserved_before } = counts
  const { requestsPerMinute = 0, tokensPerDay = 0 } = key
  if (granted === REFUSED_REQUEST)
    return new PalimpsestError(
      'rate_limit_exceeded',
      `This key may make ${requestsPerMinute} requests a minute, and has made them.`,
      { retryAfterSeconds: ((1 - bucket) * MINUTE_MS) / requestsPerMinute / 1_000 },
    )
  if (granted !== REFUSED_TOKENS) return null
  const used = tokens - reserved - reserved_before
  if (used + least <= tokensPerDay)
    return new PalimpsestError(
      'rate_limit_exceeded',
      `This request may take ${least} tokens. Enough of the key's ${tokensPerDay} tokens a day are left, but requests under way hold them: send it again in a moment.`,
      { retryAfterSeconds: UNDER_WAY_SECONDS },
    )
  const left = Math.max(0, tokensPerDay - used)
  return new PalimpsestError(
    'insufficient_quota',
    `This request may take ${least} tokens, and of the key's ${tokensPerDay} tokens a day ${left} are left. Ask for a shorter answer with max_tokens, or come back after midnight UTC.`,
    { retryAfterSeconds: untilMidnightMs(counts) / 1_000 },
  )
}
