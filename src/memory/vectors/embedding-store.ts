import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Embedder } from '../../engine/engine.ts'
import type { Logger } from '../../logger.ts'
import type { SqlDatabase } from '../../storage/sql.ts'
import { guarded } from '../../storage/sqlite.ts'
import { SqliteSql } from '../../storage/sqlite-sql.ts'
import { dropVectorFile, VectorTable } from './embedding-table.ts'
import { vectorFault } from './hnsw-graph.ts'

interface KeptOptions {
  /** Where this node's own table is. */
  readonly folder: string
  readonly embedder: Embedder
  /** Has the table of all nodes; absent: there is one node. */
  readonly shared?: SqlDatabase | undefined
  readonly log: Logger
}

/**
 * The texts that edits are made of, embedded once for all nodes. This node's table is asked first, so that a request never waits for the one of
 * all nodes where it has been asked before. A table that fails costs time, never an answer.
 */
export class KeptVectors {
  readonly #embedder: Embedder
  readonly #own: VectorTable
  readonly #shared: VectorTable | undefined
  readonly #log: Logger
  readonly #faulty = new Set<VectorTable>()

  private constructor(embedder: Embedder, own: VectorTable, shared: VectorTable | undefined, log: Logger) {
    this.#embedder = embedder
    this.#own = own
    this.#shared = shared
    this.#log = log
  }

  /** Throws storage errors. */
  static async open({ folder, embedder, shared, log }: KeptOptions): Promise<KeptVectors> {
    const all = shared && (await VectorTable.open(shared, embedder.name, embedder.dimensions))
    return new KeptVectors(embedder, await ownTable(folder, embedder, log), all, log)
  }

  /** Whether other nodes keep theirs there, too. */
  get isShared(): boolean {
    return this.#shared !== undefined
  }

  /** Vectors from the tables, else from the embedder, by their text. One that is unusable is among them, but not kept. */
  async embed(
    texts: ReadonlySet<string>,
    priority: 'query' | 'import',
    signal?: AbortSignal,
  ): Promise<Map<string, Float32Array>> {
    const out = await this.find(texts)
    const missing = [...texts].filter((text) => !out.has(text))
    if (missing.length === 0) return out
    const made = await this.#embedder.embed(missing, priority, signal)
    const fresh = new Map<string, Float32Array>()
    for (const [i, text] of missing.entries()) {
      const vector = made[i]
      if (vector === undefined) continue
      out.set(text, vector)
      if (vectorFault(vector, this.#embedder.dimensions) === null) fresh.set(text, vector)
    }
    for (const table of this.#tables()) await this.#put(table, fresh)
    return out
  }

  /** Vectors from the tables, of those texts whose are there and sound. */
  async find(texts: ReadonlySet<string>): Promise<Map<string, Float32Array>> {
    const out = await this.#sound(this.#own, texts)
    const missing = [...texts].filter((text) => !out.has(text))
    if (missing.length === 0 || this.#shared === undefined) return out
    const found = await this.#sound(this.#shared, missing)
    await this.#put(this.#own, found)
    return new Map([...out, ...found])
  }

  #tables(): VectorTable[] {
    return this.#shared === undefined ? [this.#own] : [this.#own, this.#shared]
  }

  async #sound(table: VectorTable, texts: Iterable<string>): Promise<Map<string, Float32Array>> {
    try {
      const found = await table.find(texts)
      this.#faulty.delete(table)
      return new Map([...found].filter(([, vector]) => vectorFault(vector, this.#embedder.dimensions) === null))
    } catch (error) {
      this.#tell(table, error, 'kept embeddings cannot be read; embedding anew')
      return new Map()
    }
  }

  async #put(table: VectorTable, vectors: ReadonlyMap<string, Float32Array>): Promise<void> {
    try {
      await table.put(vectors)
    } catch (error) {
      this.#tell(table, error, 'embeddings could not be kept; they will be made again where they are missing')
    }
  }

  /** Once, until the table works again. */
  #tell(table: VectorTable, error: unknown, message: string): void {
    if (!this.#faulty.has(table)) this.#log.warn({ err: error, table: table.name }, message)
    this.#faulty.add(table)
  }

  /** The shared table is whose it was. */
  close(): Promise<void> {
    return this.#own.close()
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
