import { setTimeout as sleep } from 'node:timers/promises'
import type { Sql, SqlDatabase } from './sql.ts'

/** Between two looks at the counter: what one gateway changes counts on the others within about this. */
const POLL_MS = 1_000

/** How a record is kept: as a text beside its id. */
export interface SharedTable<Item> {
  /** Of the table; that of its counter ends in `_position`. */
  readonly name: string
  /** Throws where the text is no such record. */
  readonly read: (text: string) => Item
  readonly write: (item: Item) => string
}

/** Statements that make such a table; `columns` are those that only its port knows, each with a default. */
export function sharedTable(name: string, ...columns: readonly string[]): readonly string[] {
  return [
    `CREATE TABLE ${name} (${['id TEXT PRIMARY KEY, record TEXT NOT NULL, position BIGINT NOT NULL', ...columns].join(', ')})`,
    `CREATE TABLE ${name}_position (one INTEGER PRIMARY KEY, position BIGINT NOT NULL)`,
    `INSERT INTO ${name}_position (one, position) VALUES (1, 0)`,
  ]
}

/** Fills a table that is empty. */
export async function fillShared<Item>(sql: Sql, table: SharedTable<Item>, items: ReadonlyMap<string, Item>): Promise<void> {
  const doing = `filling ${table.name}`
  let position = 0
  for (const [id, item] of items)
    await sql.run(
      doing,
      `INSERT INTO ${table.name} (id, record, position) VALUES (?, ?, ?)`,
      ...[id, table.write(item), ++position],
    )
  await sql.run(doing, `UPDATE ${table.name}_position SET position = ? WHERE one = 1`, position)
}

/** A change under way: no other gateway looks or writes until it ends. All that it asks of the database goes through `sql`. */
export interface Turn<Item> {
  readonly sql: Sql
  /** What is on record, with what this change has written. */
  readonly items: ReadonlyMap<string, Item>
  put(id: string, item: Item): Promise<void>
  remove(id: string): Promise<void>
}

interface FeedRow {
  readonly latest: number
  readonly id: string | null
  /** null: as it was at the position asked about. */
  readonly record: string | null
}

interface View<Item> {
  readonly position: number
  readonly items: ReadonlyMap<string, Item>
}

export interface SharedRecordsOptions<Item> {
  readonly database: SqlDatabase
  readonly table: SharedTable<Item>
  readonly warn: (message: string) => void
  readonly pollMs?: number
}

/**
 * Records that gateways share, few enough to be held in memory by each. Changes take turns: the first statement of each raises a counter, whose
 * row stays locked until the end, so positions have no gap. Every gateway looks at the counter and reads what is newer than its own view.
 */
export class SharedRecords<Item> {
  readonly #options: SharedRecordsOptions<Item>
  readonly #closing = new AbortController()
  readonly #followers: ((before: ReadonlyMap<string, Item>) => void)[] = []
  #view: View<Item> = { position: -1, items: new Map() }
  #changing: Promise<unknown> = Promise.resolve()
  #polling: Promise<void> = Promise.resolve()

  private constructor(options: SharedRecordsOptions<Item>) {
    this.#options = options
  }

  /** Its table must be there. */
  static async open<Item>(options: SharedRecordsOptions<Item>): Promise<SharedRecords<Item>> {
    const records = new SharedRecords(options)
    await records.poll()
    records.#polling = records.#pollUntilClosed()
    return records
  }

  /** As this gateway knows them, by id; another map after each change. */
  get items(): ReadonlyMap<string, Item> {
    return this.#view.items
  }

  /** Called after each change with what was there before it, and after each look that found none. */
  follow(changed: (before: ReadonlyMap<string, Item>) => void): void {
    this.#followers.push(changed)
  }

  /** Looks and writes in one turn; a throw leaves everything as it was. */
  change<Result>(doing: string, work: (turn: Turn<Item>) => Promise<Result>): Promise<Result> {
    const done = this.#changing.then(() => this.#change(doing, work))
    // One connection waits for the other gateways' turns, not all of the pool.
    this.#changing = done.catch(() => {})
    return done
  }

  async #change<Result>(doing: string, work: (turn: Turn<Item>) => Promise<Result>): Promise<Result> {
    const { database, table } = this.#options
    let found: View<Item> | undefined
    try {
      const { result, ...view } = await database.atOnce(doing, async (sql) => {
        const [row] = await sql.all<{ position: number }>(
          doing,
          `UPDATE ${table.name}_position SET position = position + 1 WHERE one = 1 RETURNING position`,
        )
        const position = row?.position ?? 0
        const { items } = await this.#read(sql)
        found = { position: position - 1, items }
        const changed = new Map(items)
        const result = await work({
          sql,
          items: changed,
          put: async (id, item) => {
            await sql.run(
              doing,
              `INSERT INTO ${table.name} (id, record, position) VALUES (?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET record = excluded.record, position = excluded.position`,
              ...[id, table.write(item), position],
            )
            changed.set(id, item)
          },
          remove: async (id) => {
            await sql.run(doing, `DELETE FROM ${table.name} WHERE id = ?`, id)
            changed.delete(id)
          },
        })
        return { result, position, items: changed }
      })
      this.#see(view)
      return result
    } catch (error) {
      // What another gateway did meanwhile may be why.
      if (found !== undefined) this.#see(found)
      throw error
    }
  }

  /** Takes over what other gateways changed. */
  async poll(): Promise<void> {
    const { database, table } = this.#options
    const { position } = this.#view
    const [row] = await database.all<{ position: number }>(
      `following ${table.name}`,
      `SELECT position FROM ${table.name}_position WHERE one = 1`,
    )
    const latest = row?.position ?? 0
    // The database was put back to an earlier state: nothing of the view holds.
    if (latest < position) this.#view = { position: -1, items: this.#view.items }
    if (latest !== position) this.#see(await this.#read(database))
    else this.#tell(this.#view.items)
  }

  async #pollUntilClosed(): Promise<void> {
    const { table, warn, pollMs = POLL_MS } = this.#options
    const { signal } = this.#closing
    let away = false
    while (!signal.aborted) {
      await sleep(pollMs, undefined, { signal, ref: false }).catch(() => {})
      if (signal.aborted) return
      try {
        await this.poll()
        away = false
      } catch (error) {
        if (!away) warn(`${table.name} are as they were last seen, until the database answers: ${(error as Error).message}`)
        away = true
      }
    }
  }

  /** One statement, so that records and counter are of one moment. */
  async #read(sql: Sql): Promise<View<Item>> {
    const { table } = this.#options
    const { position, items } = this.#view
    const rows = await sql.all<FeedRow>(
      `reading ${table.name}`,
      `SELECT c.position AS latest, r.id AS id, CASE WHEN r.position > ? THEN r.record END AS record
         FROM ${table.name}_position c LEFT JOIN ${table.name} r ON 1 = 1 WHERE c.one = 1 ORDER BY r.id`,
      position,
    )
    const read = new Map<string, Item>()
    for (const { id, record } of rows) {
      if (id === null) continue
      const item = record === null ? items.get(id) : table.read(record)
      if (item !== undefined) read.set(id, item)
    }
    return { position: rows[0]?.latest ?? 0, items: read }
  }

  /** A look that a change overtook is passed over. */
  #see(view: View<Item>): void {
    if (view.position <= this.#view.position) return
    const { items } = this.#view
    this.#view = view
    this.#tell(items)
  }

  #tell(before: ReadonlyMap<string, Item>): void {
    for (const changed of this.#followers) changed(before)
  }

  /** Changes that were begun come to their end. */
  async close(): Promise<void> {
    this.#closing.abort()
    await Promise.all([this.#polling, this.#changing])
  }
}
