import { randomUUID } from 'node:crypto'
import { PalimpsestError } from '../errors.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import { DAY_MS } from './day.ts'
import type { Key } from './key.ts'
import { Turns } from './turns.ts'
import { type Ask, type Counts, type Hold, MOST, type Settlement, Usage } from './usage.ts'

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

type Refusal = 'no request' | 'no tokens'

interface Asked {
  readonly key: Key
  readonly ask: Ask
}

interface Got {
  readonly counts: Counts
  /** Tokens. */
  readonly got: number | Refusal
}

interface Settled {
  readonly hold: Hold
  readonly used: number
}

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
  readonly #writing = new Set<Promise<undefined>>()
  readonly #takes: Turns<Asked, Got>
  readonly #settlements: Turns<Settled, undefined>
  #timer: NodeJS.Timeout | undefined
  #fault: { readonly thrown: unknown; readonly untilMs: number } | null = null
  #closed = false

  /** `now`: milliseconds since the epoch. */
  constructor(sql: SqlDatabase, now: () => number, { warn = () => {}, leaseMs = LEASE_MS }: BudgetOptions = {}) {
    this.#usage = new Usage(sql, now, leaseMs)
    this.#warn = warn
    // A statement on a file is over before the next one can be asked for.
    const apart = sql.dialect === 'sqlite'
    this.#takes = new Turns((asked) => this.#takeAll(asked), apart)
    this.#settlements = new Turns((settled) => this.#settleAll(settled), apart)
  }

  async take(key: Key, ask: Ask): Promise<Taken> {
    const { requestsPerMinute, tokensPerDay } = key
    const tokens = tokensPerDay === undefined ? undefined : ask.tokens
    if (tokensPerDay === undefined && (requestsPerMinute === undefined || !ask.request)) return nothingTaken(ask)
    const { counts, got } = await this.#takes.ask(key.id, { key, ask: { request: ask.request, ...(tokens && { tokens }) } })
    const rates = ratesOf(key, counts)
    if (typeof got === 'string') return { ...nothingTaken(ask), rates, refused: refusalOf(got, key, counts, tokens?.least ?? 0) }
    if (tokens === undefined) return { ...nothingTaken(ask), rates }
    const { day, period } = counts
    const hold = { key: key.id, day, period, tokens: got }
    let open = true
    const settle = async (used: number) => {
      if (!open) return
      open = false
      // What is no number of tokens counts as all that was set aside.
      await this.#settle(hold, Number.isSafeInteger(used) && used >= 0 ? used : got)
    }
    return { rates, refused: null, tokens: got, settle }
  }

  /** Requests of one key that came together ask together, and share what they get in their order, as they would one after the other. */
  async #takeAll(asked: readonly Asked[]): Promise<readonly Got[]> {
    const [first] = asked
    if (first === undefined) return []
    const { key } = first
    const wanted = asked.flatMap(({ ask: { tokens } }) => tokens ?? [])
    const counts = await this.#rested(() =>
      this.#usage.take(key, {
        requests: asked.filter(({ ask }) => ask.request).length,
        least: asked.length === 1 ? (wanted[0]?.least ?? null) : wanted.length === 0 ? null : 0,
        most: Math.min(
          wanted.reduce((sum, { most }) => sum + most, 0),
          MOST,
        ),
      }),
    )
    let { admitted, granted } = counts
    const got = asked.map(({ key: { requestsPerMinute }, ask: { request, tokens } }): Got => {
      if (request && requestsPerMinute !== undefined && --admitted < 0) return { counts, got: 'no request' }
      if (tokens === undefined) return { counts, got: 0 }
      if (granted < tokens.least) return { counts, got: 'no tokens' }
      const mine = Math.min(tokens.most, granted)
      granted -= mine
      return { counts, got: mine }
    })
    const { day, period } = counts
    if (granted > 0) void this.#settle({ key: key.id, day, period, tokens: granted }, 0)
    return got
  }

  async #settle(hold: Hold, used: number): Promise<void> {
    if (this.#closed) return
    const written = this.#settlements.ask(`${hold.key} ${hold.day} ${hold.period}`, { hold, used })
    this.#writing.add(written)
    await written
    this.#writing.delete(written)
  }

  /** All of one key and one period, as one: what can't be written now is kept under the same id, since it may have been written. */
  async #settleAll(settled: readonly Settled[]): Promise<readonly undefined[]> {
    const [first] = settled
    if (first === undefined) return []
    const sum = (of: (one: Settled) => number) =>
      Math.min(
        settled.reduce((all, one) => all + of(one), 0),
        MOST,
      )
    const settlement: Settlement = {
      id: randomUUID(),
      hold: { ...first.hold, tokens: sum(({ hold }) => hold.tokens) },
      used: sum(({ used }) => used),
    }
    try {
      await this.#rested(() => this.#usage.settle(settlement))
    } catch (error) {
      if (this.#waiting.length === 0)
        this.#warn(`what keys have used is written later: ${error instanceof Error ? error.message : error}`)
      if (this.#waiting.length < WAITING) this.#waiting.push(settlement)
      this.#timer ??= this.#later()
    }
    return []
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

function refusalOf(why: Refusal, key: Key, counts: Counts, least: number): PalimpsestError {
  const { bucket, tokens, reserved, reserved_before } = counts
  const { requestsPerMinute = 0, tokensPerDay = 0 } = key
  if (why === 'no request')
    return new PalimpsestError(
      'rate_limit_exceeded',
      `This key may make ${requestsPerMinute} requests a minute, and has made them.`,
      { retryAfterSeconds: ((1 - bucket) * MINUTE_MS) / requestsPerMinute / 1_000 },
    )
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
