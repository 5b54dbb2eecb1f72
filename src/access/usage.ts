import type { SqlDatabase, Value } from '../storage/sql.ts'
import { dayOf } from './day.ts'
import type { Key } from './key.ts'

/** Tokens set aside for requests under way. */
export interface Hold {
  readonly key: string
  readonly day: number
  /** Of the clock, since the epoch, in spans of the lease. */
  readonly period: number
  readonly tokens: number
}

export interface Settlement {
  readonly id: string
  readonly hold: Hold
  readonly used: number
}

/** What one request asks of the counts of its key. */
export interface Ask {
  /** Counts a request. */
  readonly request: boolean
  /** Sets aside `most` tokens, or what is left where that is at least `least`. */
  readonly tokens?: { readonly least: number; readonly most: number }
}

/** What one or several requests of a key ask together. */
interface Sum {
  readonly requests: number
  readonly least: number | null
  readonly most: number
}

/** The counts of a key after a statement, and what it gave. */
export interface Counts {
  /** Requests. */
  readonly admitted: number
  /** Tokens set aside. */
  readonly granted: number
  /** Requests that could be made at once, at the moment `bucket_at`. */
  readonly bucket: number
  readonly bucket_at: number
  readonly day: number
  readonly period: number
  /** Of the day, those set aside for requests under way included. */
  readonly tokens: number
  /** Set aside in this period and in the one before; what is older counts as used. */
  readonly reserved: number
  readonly reserved_before: number
}

export const MOST = Number.MAX_SAFE_INTEGER

/** The functions of the two, and how a statement names what it is given: in SQLite by numbers, since a subquery costs it several microseconds. */
const SQLITE = {
  least: 'min',
  greatest: 'max',
  whole: (n: string) => `CAST(${n} AS INTEGER)`,
  given: (_name: string, at: number) => `?${at}`,
} as const
const POSTGRES = {
  least: 'least',
  greatest: 'greatest',
  whole: (n: string) => `CAST(floor(${n}) AS BIGINT)`,
  given: (name: string, _at: number) => name,
} as const
type Words = typeof SQLITE | typeof POSTGRES

/**
 * One statement counts the request and sets tokens aside, or refuses either: it locks the row of the key, and every right-hand side is that
 * row as the statement before left it. A clock that goes back gives nothing away.
 */
function takeOf({ least, greatest, whole, given }: Words, from: string): string {
  const [now, today, thisPeriod] = [given('now', 1), given('today', 2), given('this_period', 3)]
  const [id, requests, perMinute] = [given('id', 4), given('requests', 5), given('per_minute', 6)]
  const [perDay, leastTokens, mostTokens] = [given('per_day', 7), given('least_tokens', 8), given('most_tokens', 9)]
  const filled = `${least}(${perMinute}, bucket + ${greatest}(0, ${now} - bucket_at) * ${perMinute} / 60000.0)`
  const left = `${perDay} - CASE WHEN ${today} > day THEN 0 ELSE tokens END`
  const admitted = `${least}(${requests}, ${whole(filled)})`
  const granted = `CASE WHEN ${leastTokens} IS NULL OR ${left} < ${leastTokens} OR (${requests} > 0 AND ${filled} < 1) THEN 0
    ELSE ${least}(${mostTokens}, ${left}) END`
  return `UPDATE usage SET
      admitted = ${admitted},
      granted = ${granted},
      bucket = ${filled} - ${admitted},
      bucket_at = ${greatest}(${now}, bucket_at),
      tokens = CASE WHEN ${today} > day THEN 0 ELSE tokens END + ${granted},
      reserved = CASE WHEN ${thisPeriod} > period THEN 0 ELSE reserved END + ${granted},
      reserved_before = CASE WHEN ${thisPeriod} <= period THEN reserved_before
        WHEN ${thisPeriod} = period + 1 AND ${today} <= day THEN reserved ELSE 0 END,
      day = ${greatest}(day, ${today}),
      period = ${greatest}(period, ${thisPeriod})
    ${from} WHERE key = ${id}
    RETURNING admitted, granted, bucket, bucket_at, day, period, tokens, reserved, reserved_before`
}

/** Counts what was used in place of what was set aside, on its own day. */
function settleOf({ least, greatest, given }: Words, from: string): string {
  const [id, day, period] = [given('of_key', 1), given('of_day', 2), given('of_period', 3)]
  const [held, used] = [given('held', 4), given('used', 5)]
  return `UPDATE usage SET
      tokens = ${least}(${greatest}(0, tokens - ${held}) + ${used}, ${MOST}),
      reserved = ${greatest}(0, reserved - CASE WHEN period = ${period} THEN ${held} ELSE 0 END),
      reserved_before = ${greatest}(0, reserved_before - CASE WHEN period = ${period} + 1 THEN ${held} ELSE 0 END)
    ${from} WHERE key = ${id} AND day = ${day}`
}

const TAKE = {
  sqlite: takeOf(SQLITE, ''),
  // By the clock that all gateways share, so that none can give itself another day or minute.
  postgres: takeOf(
    POSTGRES,
    `FROM (
      SELECT now, CAST(floor(now / 86400000) AS BIGINT) AS today, CAST(floor(now / lease_ms) AS BIGINT) AS this_period,
        id, requests, per_minute, per_day, least_tokens, most_tokens
      FROM (
        SELECT CAST(extract(epoch FROM statement_timestamp()) * 1000 AS DOUBLE PRECISION) AS now, CAST(? AS BIGINT) AS lease_ms,
          CAST(? AS TEXT) AS id, CAST(? AS BIGINT) AS requests, CAST(? AS DOUBLE PRECISION) AS per_minute, CAST(? AS BIGINT) AS per_day,
          CAST(? AS BIGINT) AS least_tokens, CAST(? AS BIGINT) AS most_tokens
      ) AS given
    ) AS asked`,
  ),
} as const

const SETTLE = {
  sqlite: settleOf(SQLITE, ''),
  // Once, however often it is sent: an answer of PostgreSQL can be lost.
  postgres: `WITH once AS (INSERT INTO settlements (id, day) VALUES (CAST(? AS UUID), ?) ON CONFLICT (id) DO NOTHING RETURNING id)
    ${settleOf(
      POSTGRES,
      `FROM once CROSS JOIN (
        SELECT CAST(? AS TEXT) AS of_key, CAST(? AS BIGINT) AS of_day, CAST(? AS BIGINT) AS of_period, CAST(? AS BIGINT) AS held,
          CAST(? AS BIGINT) AS used
      ) AS settled`,
    )}`,
} as const

/** What keys have used, in a database that any number of gateways share. */
export class Usage {
  readonly #sql: SqlDatabase
  readonly #now: () => number
  readonly #leaseMs: number
  #sweptDay = 0

  /** `now`: milliseconds since the epoch; asked of a file only, since PostgreSQL has a clock for all. A lease must divide the day. */
  constructor(sql: SqlDatabase, now: () => number, leaseMs: number) {
    this.#sql = sql
    this.#now = now
    this.#leaseMs = leaseMs
  }

  /** One round trip; three for the first request that a key with limits ever makes. */
  async take({ id, requestsPerMinute, tokensPerDay }: Key, { requests, least, most }: Sum): Promise<Counts> {
    const doing = 'counting a request'
    const values: readonly Value[] = [
      ...this.#clock(),
      ...[id, requestsPerMinute === undefined ? 0 : requests, requestsPerMinute ?? 0, tokensPerDay ?? MOST, least, most],
    ]
    for (let tries = 0; tries < 2; tries++) {
      const [counts] = await this.#sql.all<Counts>(doing, TAKE[this.#sql.dialect], ...values)
      if (counts !== undefined) return counts
      // Of day 0 and long ago: full, and of no day that counts.
      await this.#sql.run(
        doing,
        'INSERT INTO usage (key, bucket, bucket_at, day, tokens) VALUES (?, 0, 0, 0, 0) ON CONFLICT (key) DO NOTHING',
        id,
      )
    }
    throw new Error(`the counts of key ${id} were deleted twice while it made a request`)
  }

  #clock(): readonly number[] {
    if (this.#sql.dialect === 'postgres') return [this.#leaseMs]
    const now = this.#now()
    return [now, dayOf(now), Math.floor(now / this.#leaseMs)]
  }

  async settle({ id, hold: { key, day, period, tokens }, used }: Settlement): Promise<void> {
    const { dialect } = this.#sql
    const once = dialect === 'sqlite' ? [] : [id, day]
    await this.#sql.run('noting what a key has used', SETTLE[dialect], ...once, key, day, period, tokens, used)
    if (dialect === 'postgres' && day > this.#sweptDay) {
      this.#sweptDay = day
      await this.#sql.run('forgetting what was settled on other days', 'DELETE FROM settlements WHERE day < ?', day - 1)
    }
  }
}
