import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { migrate, type Schema } from '../../storage/migrate.ts'
import type { SqlDatabase } from '../../storage/sql.ts'

export const EMBEDDINGS_SCHEMA: Schema = {
  port: 'embeddings',
  oldestReader: 1,
  steps: [
    {
      // Files from before tables had versions have it already.
      sqlite: ['CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, embedder TEXT NOT NULL, vector BLOB NOT NULL) STRICT'],
      postgres: ['CREATE TABLE vectors (key BYTEA PRIMARY KEY, embedder TEXT NOT NULL, vector BYTEA NOT NULL)'],
    },
  ],
}

/** Keys come as a list in JSON: the number of values of a statement is limited, and a statement should be a constant. */
const SELECT = 'SELECT key, vector FROM vectors WHERE key IN (SELECT unhex(value) FROM json_each(?)) AND length(vector) = ?'
/** Of COPY, which takes no values. Keys are hexadecimal digits. */
const selectOf = (keys: readonly string[], bytes: number) =>
  `SELECT key, vector FROM vectors
    WHERE key IN (SELECT decode(value, 'hex') FROM json_array_elements_text('${JSON.stringify(keys)}') AS value) AND length(vector) = ${bytes}`
/** Over PostgreSQL, many rows in one trip. */
const INSERT = {
  sqlite: 'INSERT OR REPLACE INTO vectors (key, embedder, vector) VALUES (?, ?, ?)',
  postgres: `INSERT INTO vectors (key, embedder, vector)
    SELECT decode(key, 'hex'), ?, decode(vector, 'base64') FROM json_to_recordset(?) AS r(key TEXT, vector TEXT) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET vector = excluded.vector`,
} as const

/** Rows that one statement writes, and keys that one reads. */
const ROWS = 512
const KEYS = { sqlite: 512, postgres: 4_096 } as const
const KEY_BYTES = 32
const NOTHING = new Uint8Array()

interface KeptRow {
  readonly key: Uint8Array
  readonly vector: Uint8Array
}

/**
 * Embeddings kept by text and embedder, so that no index is ever rebuilt by embedding again. Derived: lose it and it fills up anew; over
 * SQLite it is therefore a file of its own, apart from the log, and not forced to the disk at every commit.
 */
export class VectorTable {
  readonly #database: SqlDatabase
  readonly #embedder: string
  readonly #dimensions: number

  private constructor(database: SqlDatabase, embedder: string, dimensions: number) {
    this.#database = database
    this.#embedder = embedder
    this.#dimensions = dimensions
  }

  /** Throws storage errors, of a damaged file too: the caller drops it with `dropVectorFile`. */
  static async open(database: SqlDatabase, embedder: string, dimensions: number): Promise<VectorTable> {
    await migrate(database, EMBEDDINGS_SCHEMA)
    return new VectorTable(database, embedder, dimensions)
  }

  get name(): string {
    return this.#database.name
  }

  #key(text: string): string {
    return createHash('sha256').update(`${this.#embedder}\u0000${text}`).digest('hex')
  }

  /** The kept vectors of the right length, by their text. Their values are not checked here. */
  async find(texts: Iterable<string>): Promise<Map<string, Float32Array>> {
    const found = new Map<string, Float32Array>()
    const byKey = [...new Set(texts)].map((text) => [this.#key(text), text] as const)
    const most = KEYS[this.#database.dialect]
    for (let from = 0; from < byKey.length; from += most) {
      const asked = new Map(byKey.slice(from, from + most))
      for (const [key, vector] of await this.#read([...asked.keys()])) {
        const text = asked.get(key)
        if (text !== undefined) found.set(text, vector)
      }
    }
    return found
  }

  async #read(keys: readonly string[]): Promise<(readonly [key: string, Float32Array])[]> {
    const doing = 'reading embeddings'
    const bytes = this.#dimensions * Float32Array.BYTES_PER_ELEMENT
    const rows =
      (await this.#database.copy?.(doing, selectOf(keys, bytes), keys.length, [KEY_BYTES, bytes])) ??
      (await this.#database.all<KeptRow>(doing, SELECT, JSON.stringify(keys), bytes)).map(({ key, vector }) => [key, vector])
    // Copied, since the bytes may lie at an offset that a Float32Array cannot have; all into one, since each of its own costs as much again.
    const all = new Float32Array(keys.length * this.#dimensions)
    const allBytes = new Uint8Array(all.buffer)
    return Array.from(rows, ([key = NOTHING, vector = NOTHING], i) => {
      allBytes.set(vector, i * bytes)
      const hex = Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('hex')
      return [hex, all.subarray(i * this.#dimensions, (i + 1) * this.#dimensions)]
    })
  }

  async put(vectors: ReadonlyMap<string, Float32Array>): Promise<void> {
    const doing = `keeping ${vectors.size} embeddings`
    const rows = Array.from(vectors, ([text, v]) => ({
      key: this.#key(text),
      vector: Buffer.from(v.buffer, v.byteOffset, v.byteLength),
    }))
    if (rows.length === 0) return
    if (this.#database.dialect === 'sqlite')
      return this.#database.runAll(
        doing,
        rows.map(({ key, vector }) => [INSERT.sqlite, Buffer.from(key, 'hex'), this.#embedder, vector]),
      )
    for (let from = 0; from < rows.length; from += ROWS) {
      const some = rows.slice(from, from + ROWS).map(({ key, vector }) => ({ key, vector: vector.toString('base64') }))
      await this.#database.run(doing, INSERT.postgres, this.#embedder, JSON.stringify(some))
    }
  }

  close(): Promise<void> {
    return this.#database.close()
  }
}

/** Deletes the file and SQLite's two beside it. */
export function dropVectorFile(file: string): void {
  for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true })
}
