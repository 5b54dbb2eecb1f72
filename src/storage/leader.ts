import { randomUUID } from 'node:crypto'
import { migrate, type Schema } from './migrate.ts'
import { DATABASE_NOW, type SqlDatabase } from './sql.ts'

const TABLE = 'CREATE TABLE leaders (name TEXT PRIMARY KEY, holder TEXT NOT NULL, held_until BIGINT NOT NULL)'

export const LEADERS_SCHEMA: Schema = { port: 'leaders', oldestReader: 1, steps: [{ sqlite: [TABLE], postgres: [TABLE] }] }

/** Another gateway leads this long after the one before has died. */
const LEASE_MS = 10_000

export interface LeaderOptions {
  /** What is one gateway's to do. */
  readonly name: string
  readonly database: SqlDatabase
  readonly leaseMs?: number
  /** Called when this gateway begins to lead, and when it does so no longer; one after the other. */
  readonly lead: () => Promise<void>
  readonly yields: () => Promise<void>
  readonly warn: (message: string) => void
}

/**
 * One of all gateways that share a database leads: it holds a lease, renewed three times before it would end. A session's advisory lock would
 * do as well where no pooler stands between. Whoever can't renew stops to lead before another may begin.
 */
export class Leader {
  readonly #options: LeaderOptions
  readonly #leaseMs: number
  readonly #holder = randomUUID()
  readonly #timer: NodeJS.Timeout
  #leads = false
  #heldUntilMs = 0
  #looking: Promise<void> = Promise.resolve()
  #closed = false

  private constructor(options: LeaderOptions) {
    this.#options = options
    this.#leaseMs = options.leaseMs ?? LEASE_MS
    this.#timer = setInterval(() => void this.look(), this.#leaseMs / 4).unref()
  }

  static async open(options: LeaderOptions): Promise<Leader> {
    await migrate(options.database, LEADERS_SCHEMA)
    const leader = new Leader(options)
    await leader.look()
    return leader
  }

  get leads(): boolean {
    return this.#leads
  }

  /** Takes or renews the lease, where that is possible. Never throws. */
  look(): Promise<void> {
    this.#looking = this.#looking.then(() => this.#look())
    return this.#looking
  }

  async #look(): Promise<void> {
    if (this.#closed) return
    const { name, lead, yields, warn } = this.#options
    const asked = performance.now()
    try {
      if (await this.#take()) this.#heldUntilMs = asked + this.#leaseMs
      else this.#heldUntilMs = 0
    } catch {
      // Whoever reads or writes there says so; the lease goes on until its end.
    }
    // A quarter of the lease before its end, so that what is under way is over by then.
    const leads = performance.now() < this.#heldUntilMs - this.#leaseMs / 4
    if (leads === this.#leads) return
    this.#leads = leads
    try {
      await (leads ? lead() : yields())
    } catch (error) {
      warn(`${name}: ${error instanceof Error ? error.message : error}`)
    }
  }

  async #take(): Promise<boolean> {
    const { database, name } = this.#options
    // A gateway whose own clock is an hour off leads no longer than others.
    const now = DATABASE_NOW[database.dialect]
    const changes = await database.run(
      'taking a lease',
      `INSERT INTO leaders (name, holder, held_until) VALUES (?, ?, ${now} + ?) ON CONFLICT (name)
         DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
         WHERE leaders.holder = excluded.holder OR leaders.held_until <= ${now}`,
      ...[name, this.#holder, this.#leaseMs],
    )
    return changes > 0
  }

  /** Another may lead at once. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#looking
    this.#closed = true
    if (!this.#leads) return
    this.#leads = false
    await this.#options.yields()
    const { database, name } = this.#options
    await database
      .run('giving up a lease', 'DELETE FROM leaders WHERE name = ? AND holder = ?', name, this.#holder)
      .catch(() => 0)
  }
}
