import type { Embedder } from '../../engine/engine.ts'
import type { Logger } from '../../logger.ts'
import type { VectorTable } from './embedding-table.ts'
import { vectorFault } from './hnsw-graph.ts'

/** The texts that edits are made of, embedded once in the life of the data folder. A table that fails costs time, never an answer. */
export class KeptVectors {
  readonly #embedder: Embedder
  readonly #table: VectorTable
  readonly #log: Logger

  constructor(embedder: Embedder, table: VectorTable, log: Logger) {
    this.#embedder = embedder
    this.#table = table
    this.#log = log
  }

  /** Vectors from the table, else from the embedder, by their text. One that is unusable is among them, but not kept. */
  async embed(
    texts: ReadonlySet<string>,
    priority: 'query' | 'import',
    signal?: AbortSignal,
  ): Promise<Map<string, Float32Array>> {
    const out = new Map<string, Float32Array>()
    for (const text of texts) {
      const kept = this.get(text)
      if (kept !== undefined) out.set(text, kept)
    }
    const missing = [...texts].filter((text) => !out.has(text))
    if (missing.length === 0) return out
    const made = await this.#embedder.embed(missing, priority, signal)
    const rows: [string, Float32Array][] = []
    for (const [i, text] of missing.entries()) {
      const vector = made[i]
      if (vector === undefined) continue
      out.set(text, vector)
      if (vectorFault(vector, this.#embedder.dimensions) === null) rows.push([text, vector])
    }
    this.#put(rows)
    return out
  }

  /** The text's vector from the table, if it is there and sound. */
  get(text: string): Float32Array | undefined {
    try {
      const vector = this.#table.get(text)
      return vector !== undefined && vectorFault(vector, this.#embedder.dimensions) === null ? vector : undefined
    } catch (error) {
      this.#log.warn({ err: error, file: this.#table.file }, 'a kept embedding cannot be read; embedding anew')
      return undefined
    }
  }

  #put(rows: readonly [string, Float32Array][]): void {
    try {
      this.#table.put(rows)
    } catch (error) {
      this.#log.warn(
        { err: error, file: this.#table.file },
        'embeddings could not be kept; they will be made again at the next start',
      )
    }
  }
}
