import pg from 'pg'
import { PalimpsestError } from '../../errors.ts'
import { type Listening, type Sql, type SqlDatabase, type Statement, type Value, withNumbers } from '../sql.ts'
import { COPY_BYTES, CopyOut, copiedRows } from './copy-out.ts'
import { Listener } from './listener.ts'
import { Turnstile } from './turnstile.ts'

export interface PostgresOptions {
  /** `postgres://user:password@host:port/name`, with the parameters that libpq knows (`sslmode`). */
  readonly url: string
  /** Connections that one gateway opens at most; one more listens. */
  readonly connections?: number
  readonly connectTimeoutMs?: number
  /** Statements that may wait for a connection, and for how long. */
  readonly waitingStatements?: number
  readonly waitMs?: number
  /** A statement that takes longer is given up, by the server and by us. */
  readonly statementTimeoutMs?: number
  readonly warn: (message: string) => void
}

const CONNECTIONS = 8
const CONNECT_TIMEOUT_MS = 3_000
/** Several thousand requests may come at once, and each asks for an exposure. */
const WAITING_STATEMENTS = 4_000
const WAIT_MS = 15_000
const STATEMENT_TIMEOUT_MS = 10_000
/** How much longer than the server we wait: its own message says more than ours. */
const SPARE_MS = 500
const RETRY_AFTER_SECONDS = 2

/** Numbers that PostgreSQL sends as text since they may be larger than a double holds: ours never are. */
const INT8 = 20
const types = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    oid === INT8 ? Number : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser,
}

/** Classes of SQLSTATE by which the server is away, going or too busy, rather than the statement wrong. https://www.postgresql.org/docs/current/errcodes-appendix.html */
const AWAY = /^(08|53|57P|57014|25006|25P03)/
const FULL = /^53100$/

/** A PostgreSQL that several gateways share. Every statement is one round trip; nothing needs a session, so that a transaction pooler may stand between. */
export class Postgres implements SqlDatabase {
  readonly dialect = 'postgres'
  readonly name: string
  readonly #pool: pg.Pool
  /** Before the pool, in which nobody waits: its own timeout counts waiting for a connection and making one together. */
  readonly #turnstile: Turnstile
  readonly #options: PostgresOptions
  readonly #connectTimeoutMs: number
  readonly #statementTimeoutMs: number
  /** When it last answered. */
  #answeredMs = 0

  constructor(options: PostgresOptions) {
    const { url, connections = CONNECTIONS, connectTimeoutMs = CONNECT_TIMEOUT_MS, warn } = options
    this.#connectTimeoutMs = connectTimeoutMs
    this.#statementTimeoutMs = options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS
    this.#options = options
    this.name = nameOf(url)
    const { waitingStatements: waiting = WAITING_STATEMENTS, waitMs = WAIT_MS } = options
    this.#turnstile = new Turnstile({ places: connections, waiting, waitMs, name: this.name })
    this.#pool = new pg.Pool({
      connectionString: url,
      max: connections,
      connectionTimeoutMillis: connectTimeoutMs,
      query_timeout: this.#statementTimeoutMs + SPARE_MS,
      application_name: 'palimpsest',
      keepAlive: true,
      types,
      // Not as a parameter of the connection: poolers refuse those that they don't know.
      onConnect: (client) => client.query(`SET statement_timeout = ${this.#statementTimeoutMs}`).then(() => {}),
    })
    this.#pool.on('error', (error) => warn(`${this.name}: a connection broke: ${error.message}`))
  }

  async all<Row>(doing: string, text: string, ...values: readonly Value[]): Promise<Row[]> {
    return (await this.#alone(doing, text, values)).rows as Row[]
  }

  async run(doing: string, text: string, ...values: readonly Value[]): Promise<number> {
    return (await this.#alone(doing, text, values)).rowCount ?? 0
  }

  #alone(doing: string, text: string, values: readonly Value[]): Promise<pg.QueryResult> {
    return this.#inTurn(doing, () => this.#query(this.#pool, doing, text, values))
  }

  async #inTurn<Result>(doing: string, work: () => Promise<Result>): Promise<Result> {
    const leave = await this.#turnstile.enter(doing)
    try {
      return await work()
    } finally {
      leave()
    }
  }

  /** `work` has a connection for itself; with what it gives to `breaks`, the connection is closed afterwards. */
  #withClient<Result>(
    doing: string,
    work: (client: pg.PoolClient, breaks: (error: Error) => void) => Promise<Result>,
  ): Promise<Result> {
    return this.#inTurn(doing, async () => {
      const client = await this.#connect(doing)
      let broken: Error | undefined
      const breaks = (error: Error) => {
        broken = error
      }
      client.on('error', breaks)
      try {
        return await work(client, breaks)
      } finally {
        client.off('error', breaks)
        client.release(broken)
      }
    })
  }

  atOnce<Result>(doing: string, work: (sql: Sql) => Promise<Result>): Promise<Result> {
    return this.#withClient(doing, async (client, breaks) => {
      try {
        // A gateway that stalls in a transaction gives up what it holds, so that the others go on.
        const limits = ['statement_timeout', 'idle_in_transaction_session_timeout'].map(
          (name) => `SET LOCAL ${name} = ${this.#statementTimeoutMs}`,
        )
        // Whatever the database's own default is: who waited for a lock must see what its holders before wrote.
        await this.#query(client, doing, ['BEGIN ISOLATION LEVEL READ COMMITTED', ...limits].join('; '), [])
        const result = await work({
          dialect: this.dialect,
          all: async <Row>(what: string, text: string, ...values: readonly Value[]) =>
            (await this.#query(client, what, text, values)).rows as Row[],
          run: async (what, text, ...values) => (await this.#query(client, what, text, values)).rowCount ?? 0,
        })
        await this.#query(client, doing, 'COMMIT', [])
        return result
      } catch (error) {
        // What cannot be rolled back is closed, and the server rolls it back. A connection that gave no answer is not asked again: its next
        // answer would be waited for as long.
        if (isUnanswered(error)) breaks(error)
        else await client.query('ROLLBACK').catch(breaks)
        throw error
      }
    })
  }

  async runAll(doing: string, statements: readonly Statement[]): Promise<void> {
    await this.atOnce(doing, async (sql) => {
      for (const [text, ...values] of statements) await sql.run(doing, text, ...values)
    })
  }

  copy(doing: string, select: string, rows: number, fieldBytes: readonly number[]): Promise<Iterable<readonly Uint8Array[]>> {
    const row = fieldBytes.reduce((sum, bytes) => sum + COPY_BYTES.field + bytes, COPY_BYTES.row)
    return this.#withClient(doing, async (client, breaks) => {
      try {
        const out = client.query(new CopyOut(`COPY (${select}) TO STDOUT (FORMAT binary)`, COPY_BYTES.around + rows * row))
        const copied = await out.copied
        this.#answeredMs = performance.now()
        return copiedRows(copied)
      } catch (error) {
        breaks(error as Error)
        throw this.#fault(error, doing)
      }
    })
  }

  listen(channel: string, heard: (payload: string) => void): Listening {
    const { url, connectTimeoutMs = CONNECT_TIMEOUT_MS, warn } = this.#options
    const ask = (text: string, ...values: readonly Value[]) => this.run('asking for a notification', text, ...values)
    return new Listener({ url, name: this.name, connectTimeoutMs, channel, heard, ask, warn })
  }

  async #connect(doing: string): Promise<pg.PoolClient> {
    try {
      return await this.#pool.connect()
    } catch (error) {
      throw this.#fault(error, doing)
    }
  }

  async #query(on: pg.Pool | pg.PoolClient, doing: string, text: string, values: readonly Value[]): Promise<pg.QueryResult> {
    try {
      const result = await on.query(withNumbers(text), values.length === 0 ? undefined : [...values])
      this.#answeredMs = performance.now()
      return result
    } catch (error) {
      throw this.#fault(error, doing)
    }
  }

  #fault(error: unknown, doing: string): PalimpsestError {
    if (error instanceof PalimpsestError) return error
    const code = error instanceof pg.DatabaseError ? (error.code ?? '') : ''
    const said = error instanceof Error ? error.message || error.name : String(error)
    if (FULL.test(code))
      return new PalimpsestError(
        'storage_full',
        `The disk of ${this.name} is full, so ${doing} failed and nothing of it was kept. Free some space, then try again.`,
        { cause: error },
      )
    if (code === '' || AWAY.test(code)) {
      const away = new PalimpsestError(
        'storage_unavailable',
        `${this.name} cannot be reached (${said}), so ${doing} failed. Try again in a moment.`,
        { cause: error, retryAfterSeconds: RETRY_AFTER_SECONDS },
      )
      // Nobody would fare better: who waits is told now, and not each after a try of its own.
      if (performance.now() - this.#answeredMs > this.#connectTimeoutMs) this.#turnstile.refuseAll(away)
      return away
    }
    return new PalimpsestError(
      'storage_failed',
      `${this.name}: ${doing} failed and nothing of it was kept (${said}). Check the rights of the user and the server's log.`,
      { cause: error },
    )
  }

  async close(): Promise<void> {
    await this.#pool.end()
  }
}

/** Whether it was not the server that said what is wrong. */
function isUnanswered(error: unknown): error is PalimpsestError {
  return error instanceof PalimpsestError && error.cause !== undefined && !(error.cause instanceof pg.DatabaseError)
}

/** Host and name, without user and password. Throws `invalid_value` for what is no address of a PostgreSQL. */
function nameOf(url: string): string {
  try {
    const { protocol, host, pathname } = new URL(url)
    if (protocol === 'postgres:' || protocol === 'postgresql:') return `PostgreSQL ${host}${pathname}`
  } catch {
    // Said below.
  }
  throw new PalimpsestError(
    'invalid_value',
    'The database must be given as postgres://user:password@host:port/name. Correct --database or PALIMPSEST_DATABASE_URL.',
    { param: 'database' },
  )
}
