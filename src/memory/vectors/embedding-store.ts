import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Embedder } from '../../engine/engine.ts'
import type { Logger } from '../../logger.ts'
import type { SqlDatabase } from '../../storage/sql.ts'
import { guarded } from '../../storage/sqlite.ts'
import { SqliteSql } from '../../storage/sqlite-sql.ts'
import { vectorFault } from '../graph/vector.ts'
import { dropVectorFile, VectorTable } from './embedding-table.ts'

interface KeptOptions {
  /** Where the table is, unless it is shared. */
  readonly folder: string
  readonly embedder: Embedder
  /** Has the table of all nodes; absent: there is one node. */
  readonly shared?: SqlDatabase | undefined
  readonly log: Logger
}

/**
 * The texts that edits are made of, embedded once: for all nodes where they share a database, else for this one. A table that fails costs time,
 * never an answer.
 */
export class KeptVectors {
  readonly #embedder: Embedder
  readonly #table: VectorTable
  readonly #log: Logger
  /** Whether other nodes keep theirs there, too. */
  readonly isShared: boolean
  #isFaulty = false

  private constructor(embedder: Embedder, table: VectorTable, isShared: boolean, log: Logger) {
    this.#embedder = embedder
    this.#table = table
    this.isShared = isShared
    this.#log = log
  }

  /** Throws storage errors. */
  static async open({ folder, embedder, shared, log }: KeptOptions): Promise<KeptVectors> {
    const table =
      shared === undefined
        ? await ownTable(folder, embedder, log)
        : await VectorTable.open(shared, embedder.name, embedder.dimensions)
    return new KeptVectors(embedder, table, shared !== undefined, log)
  }

  /** Vectors from the table, else from the embedder, by their text. One that is unusable is among them, but not kept. */
  async embed(
    texts: ReadonlySet<string>,
    priority: 'query' | 'import',
    signal?: AbortSignal,
  ): Promise<Map<string, Float32Array>> {
    const out = await this.find(texts)
    const missing = [...texts].filter((text) => !out.has(text))
    if (missing.length === 0) return out
    const made = await this.#embedder.embed(missing, priority, signal)
    // Whoever stopped has left, and may have closed the table.
    signal?.throwIfAborted()
    const fresh = new Map<string, Float32Array>()
    for (const [i, text] of missing.entries()) {
      const vector = made[i]
      if (vector === undefined) continue
      out.set(text, vector)
      if (this.#isSound(vector)) fresh.set(text, vector)
    }
    await this.#put(fresh)
    return out
  }

  /** Vectors from the table, of those texts whose are there and sound. */
  async find(texts: Iterable<string>): Promise<Map<string, Float32Array>> {
    try {
      const found = await this.#table.find(texts)
      this.#isFaulty = false
      for (const [text, vector] of found) if (!this.#isSound(vector)) found.delete(text)
      return found
    } catch (error) {
      this.#tell(error, 'kept embeddings cannot be read; embedding anew')
      return new Map()
    }
  }

  #isSound(vector: Float32Array): boolean {
    return vectorFault(vector, this.#embedder.dimensions) === null
  }

  async #put(vectors: ReadonlyMap<string, Float32Array>): Promise<void> {
    try {
      await this.#table.put(vectors)
    } catch (error) {
      this.#tell(error, 'embeddings could not be kept; they will be made again where they are missing')
    }
  }

  /** Once, until the table works again. */
  #tell(error: unknown, message: string): void {
    if (!this.#isFaulty) this.#log.warn({ err: error, table: this.#table.name }, message)
    this.#isFaulty = true
  }

  /** A shared database is whose it was. */
  async close(): Promise<void> {
    if (!this.isShared) await this.#table.close()
  }
}

/** A damaged file is dropped: it is derived. */
async function ownTable(folder: string, { name, dimensions }: Embedder, log: Logger): Promise<VectorTable> {
  const file = join(folder, 'vectors.db')
  guarded(folder, 'making the index folder', () => mkdirSync(folder, { recursive: true }))
  const open = async () => {
    const database = new SqliteSql(file, { durable: false })
    try {
      return await VectorTable.open(database, name, dimensions)
    } catch (error) {
      await database.close()
      throw error
    }
  }
  try {
    return await open()
  } catch {
    log.warn({ file, reason: 'corrupt' }, 'the kept embeddings cannot be read; making them again')
    dropVectorFile(file)
    return open()
  }
}
