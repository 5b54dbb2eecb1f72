import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { Database, type Statement } from '../../storage/database.ts'
import { guarded, useWriteAheadLog } from '../../storage/sqlite.ts'

/**
 * Embeddings kept by text and embedder, so that no index is ever rebuilt by embedding again. Derived: lose the file and it fills up anew;
 * it is therefore a file of its own, apart from the log, and not forced to the disk at every commit.
 */
export class VectorTable {
  readonly file: string
  readonly #db: Database
  readonly #embedder: string
  readonly #dimensions: number
  readonly #select: Statement<{ readonly vector: Uint8Array }>
  readonly #insert: (rows: readonly (readonly [string, Float32Array])[]) => void

  /** Throws storage errors, of a damaged file too: the caller drops it with `dropVectorTable`. */
  constructor(file: string, embedder: string, dimensions: number) {
    this.file = file
    this.#embedder = embedder
    this.#dimensions = dimensions
    const db = guarded(file, 'opening the embeddings', () => new Database(file))
    this.#db = db
    try {
      const [select, insert] = guarded(file, 'opening the embeddings', () => prepare(db))
      this.#select = select
      this.#insert = (rows) =>
        db.atOnce(() => {
          for (const [text, v] of rows)
            insert.run(this.#key(text), embedder, new Uint8Array(v.buffer, v.byteOffset, v.byteLength))
        })
    } catch (error) {
      db.close()
      throw error
    }
  }

  #key(text: string): Buffer {
    return createHash('sha256').update(`${this.#embedder}\u0000${text}`).digest()
  }

  /** The kept vector; undefined when there is none of the right length. Its values are not checked here. */
  get(text: string): Float32Array | undefined {
    const bytes = guarded(this.file, 'reading an embedding', () => this.#select.get(this.#key(text))?.vector)
    if (bytes?.length !== this.#dimensions * Float32Array.BYTES_PER_ELEMENT) return undefined
    // A copy: the bytes may lie at an offset that a Float32Array cannot have.
    return new Float32Array(new Uint8Array(bytes).buffer)
  }

  put(rows: readonly (readonly [string, Float32Array])[]): void {
    if (rows.length > 0) guarded(this.file, `keeping ${rows.length} embeddings`, () => this.#insert(rows))
  }

  close(): void {
    this.#db.close()
  }
}

function prepare(db: Database): [Statement<{ readonly vector: Uint8Array }>, Statement] {
  useWriteAheadLog(db, false)
  db.exec('CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, embedder TEXT NOT NULL, vector BLOB NOT NULL) STRICT')
  return [
    db.prepare('SELECT vector FROM vectors WHERE key = ?'),
    db.prepare('INSERT OR REPLACE INTO vectors (key, embedder, vector) VALUES (?, ?, ?)'),
  ]
}

/** Deletes the file and SQLite's two beside it. */
export function dropVectorTable(file: string): void {
  for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true })
}
