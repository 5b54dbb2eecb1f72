import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { migrate, type Schema } from '../../storage/migrate.ts'
import type { SqlDatabase } from '../../storage/sql.ts'

const SCHEMA: Schema = {
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

/**
 * Keys come as a list in JSON: the number of values of a statement is limited, and a statement should be a constant. Over PostgreSQL all come in
 * one row, keys and vectors end to end in the same order: a new node reads hundreds of thousands, and each row of its own costs as much again.
 */
const SELECT = {
  sqlite: 'SELECT key, vector FROM vectors WHERE key IN (SELECT unhex(value) FROM json_each(?)) AND length(vector) = ?',
  postgres: `SELECT string_agg(key, '') AS keys, string_agg(vector, '') AS vectors FROM vectors
    WHERE key IN (SELECT decode(value, 'hex') FROM json_array_elements_text(?) AS value) AND length(vector) = ?`,
} as const
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
    await migrate(database, SCHEMA)
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
    const { dialect } = this.#database
    const doing = 'reading embeddings'
    const bytes = this.#dimensions * Float32Array.BYTES_PER_ELEMENT
    const values = [JSON.stringify(keys), bytes] as const
    if (dialect === 'sqlite') {
      const rows = await this.#database.all<KeptRow>(doing, SELECT.sqlite, ...values)
      return rows.map(({ key, vector }) => [Buffer.from(key).toString('hex'), floats(vector)])
    }
    const [row] = await this.#database.all<{ keys: Buffer | null; vectors: Buffer }>(doing, SELECT.postgres, ...values)
    if (row === undefined || row.keys === null) return []
    const hex = row.keys.toString('hex')
    const all = floats(row.vectors)
    return Array.from({ length: row.keys.length / KEY_BYTES }, (_, i) => [
      hex.slice(2 * i * KEY_BYTES, 2 * (i + 1) * KEY_BYTES),
      all.subarray(i * this.#dimensions, (i + 1) * this.#dimensions),
    ])
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

/** A copy: the bytes may lie at an offset that a Float32Array cannot have. */
function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(new Uint8Array(bytes).buffer)
}

/** Deletes the file and SQLite's two beside it. */
export function dropVectorFile(file: string): void {
  for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true })
}
