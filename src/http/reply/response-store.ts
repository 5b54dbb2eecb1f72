import { migrate, type Schema } from '../../storage/migrate.ts'
import type { SqlDatabase } from '../../storage/sql.ts'
import type { Earlier } from '../../wire/openai/responses/request.ts'

type Items = NonNullable<Awaited<ReturnType<Earlier['conversation']>>>

interface Kept {
  /** The Response object as it was sent. */
  readonly response: object
  /** Of this request and its answer; earlier ones are found through `previous`. */
  readonly items: Items
  readonly previous: string | null
}

const tables = (sequence: string): readonly string[] => [
  `CREATE TABLE responses (
    seq ${sequence}, tenant TEXT NOT NULL, id TEXT NOT NULL, previous TEXT, body TEXT NOT NULL, items TEXT NOT NULL, bytes BIGINT NOT NULL,
    UNIQUE (tenant, id)
  )`,
  `CREATE TABLE response_items (
    tenant TEXT NOT NULL, id TEXT NOT NULL, response BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, id)
  )`,
  'CREATE INDEX response_items_of ON response_items (response)',
]

export const RESPONSES_SCHEMA: Schema = {
  port: 'responses',
  oldestReader: 1,
  steps: [{ sqlite: tables('INTEGER PRIMARY KEY'), postgres: tables('BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY') }],
}

const KEEPING = 'keeping a response'
const READING = 'reading a response'
/** Room is made once this part of the limit has been written, and as much more is freed: the limit itself is never passed. */
const SLACK = 1 / 16
const ITEM = 'SELECT body FROM response_items WHERE tenant = ? AND id = ?'

/** Those of the conversation that ended with a response, latest first. */
const CHAIN = `
  WITH RECURSIVE chain (id, previous, items, depth) AS (
    SELECT id, previous, items, 0 FROM responses WHERE tenant = ? AND id = ?
    UNION ALL
    SELECT r.id, r.previous, r.items, c.depth + 1 FROM responses r JOIN chain c ON r.id = c.previous WHERE r.tenant = ?
  )
  SELECT previous, items FROM chain ORDER BY depth`

/** All but the latest that fit into so many bytes. */
const OVER = 'SELECT seq FROM (SELECT seq, sum(bytes) OVER (ORDER BY seq DESC) AS total FROM responses) t WHERE total > ?'

/**
 * The latest responses of all tenants, for `previous_response_id`, `item_reference` and `GET /v1/responses/ID`, within a number of bytes, the
 * oldest dropped first. In the memory of one gateway, where a restart forgets them, or in a database that gateways share.
 */
export class ResponseStore implements Earlier {
  readonly #database: SqlDatabase
  readonly #limitBytes: number
  #ready: Promise<void> | undefined
  #writtenBytes: number

  constructor(database: SqlDatabase, limitBytes: number) {
    this.#database = database
    this.#limitBytes = limitBytes
    // What is there already is not known: the first write looks.
    this.#writtenBytes = limitBytes
  }

  #opened(): Promise<void> {
    this.#ready ??= migrate(this.#database, RESPONSES_SCHEMA).catch((error) => {
      this.#ready = undefined
      throw error
    })
    return this.#ready
  }

  async keep(tenant: string, id: string, { response, items, previous }: Kept): Promise<void> {
    await this.#opened()
    const body = JSON.stringify(response)
    const text = JSON.stringify(items)
    // Items are kept twice, to be found by id too.
    const bytes = Buffer.byteLength(body) + 2 * Buffer.byteLength(text)
    if (bytes > this.#limitBytes * (1 - SLACK)) return
    await this.#database.atOnce(KEEPING, async (sql) => {
      this.#writtenBytes += bytes
      if (this.#writtenBytes > this.#limitBytes * SLACK) {
        const room = this.#limitBytes * (1 - SLACK) - bytes
        await sql.run(KEEPING, `DELETE FROM response_items WHERE response IN (${OVER})`, Math.floor(room))
        await sql.run(KEEPING, `DELETE FROM responses WHERE seq IN (${OVER})`, Math.floor(room))
        this.#writtenBytes = bytes
      }
      const [row] = await sql.all<{ seq: number }>(
        KEEPING,
        'INSERT INTO responses (tenant, id, previous, body, items, bytes) VALUES (?, ?, ?, ?, ?, ?) RETURNING seq',
        ...[tenant, id, previous, body, text, bytes],
      )
      for (const item of items) {
        if (!('id' in item) || typeof item.id !== 'string') continue
        await sql.run(
          KEEPING,
          `INSERT INTO response_items (tenant, id, response, body) VALUES (?, ?, ?, ?)
             ON CONFLICT (tenant, id) DO UPDATE SET response = excluded.response, body = excluded.body`,
          ...[tenant, item.id, row?.seq ?? null, JSON.stringify(item)],
        )
      }
    })
  }

  async response(tenant: string, id: string): Promise<object | undefined> {
    await this.#opened()
    const [row] = await this.#database.all<{ body: string }>(
      READING,
      'SELECT body FROM responses WHERE tenant = ? AND id = ?',
      ...[tenant, id],
    )
    return row && JSON.parse(row.body)
  }

  async drop(tenant: string, id: string): Promise<boolean> {
    await this.#opened()
    return this.#database.atOnce('forgetting a response', async (sql) => {
      const [row] = await sql.all<{ seq: number }>(
        READING,
        'DELETE FROM responses WHERE tenant = ? AND id = ? RETURNING seq',
        ...[tenant, id],
      )
      if (row !== undefined) await sql.run('forgetting a response', 'DELETE FROM response_items WHERE response = ?', row.seq)
      return row !== undefined
    })
  }

  /** Undefined too where an earlier part of the conversation has been dropped: half of it would be answered as if it were the whole. */
  async conversation(tenant: string, id: string): Promise<Items | undefined> {
    await this.#opened()
    const rows = await this.#database.all<{ previous: string | null; items: string }>(READING, CHAIN, tenant, id, tenant)
    if (rows.at(-1)?.previous !== null) return undefined
    return rows.reverse().flatMap(({ items }): Items => JSON.parse(items))
  }

  async item(tenant: string, id: string): Promise<Items[number] | undefined> {
    await this.#opened()
    const [row] = await this.#database.all<{ body: string }>(READING, ITEM, tenant, id)
    return row && JSON.parse(row.body)
  }
}
