import type { Neighbour, Point } from './arena.ts'
import { type GraphOptions, type NativeIndex, newIndex, release, view } from './graph-library.ts'
import { RowFile } from './row-file.ts'

/** Calls of the library that are worth no thread of their own. */
const THREADS = 1

/** Where a graph is, and what its points are. */
export interface GraphSource {
  readonly graph: string
  readonly rows: string
  /** Log record of each label, 0, 1, 2 …; the points of one edit follow one another. */
  readonly seqs: Float64Array
}

/**
 * A navigable graph over unit vectors, for more of them than a scan takes. It never changes: it is a file mapped into memory, and a new file is
 * made with what is to be added. In it each number of a vector is one byte, so what it finds is weighed by the exact vectors. Who is live is
 * asked after the search.
 */
export class Graph {
  readonly dimensions: number
  readonly seqs: Float64Array
  /** Edits that have points here. */
  readonly edits: number
  readonly #index: NativeIndex
  readonly #rows: RowFile
  /** Labels by rising record, those of one record by rising label; null where they are in this order anyhow. */
  readonly #order: Uint32Array | null

  /** Only files whose checksum has been verified: damaged bytes can end the process. Throws where they cannot be mapped. */
  constructor({ graph, rows, seqs }: GraphSource, dimensions: number, options: GraphOptions) {
    this.dimensions = dimensions
    this.seqs = seqs
    this.#index = newIndex(dimensions, options)
    view(this.#index, graph)
    if (this.#index.size() !== seqs.length) throw new Error(`holds ${this.#index.size()} vectors, expected ${seqs.length}`)
    this.#rows = new RowFile(rows, dimensions)
    this.#order = orderOf(seqs)
    this.edits = this.#countEdits()
  }

  get size(): number {
    return this.seqs.length
  }

  #label(place: number): number {
    return this.#order === null ? place : (this.#order[place] ?? 0)
  }

  #seqAt(place: number): number {
    return this.seqs[this.#label(place)] ?? Number.POSITIVE_INFINITY
  }

  #countEdits(): number {
    let count = 0
    for (let place = 0; place < this.size; place++) if (place === 0 || this.#seqAt(place) !== this.#seqAt(place - 1)) count++
    return count
  }

  /** The first place whose record is not before `seq`. */
  #placeOf(seq: number): number {
    let [low, high] = [0, this.size]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#seqAt(middle) < seq) low = middle + 1
      else high = middle
    }
    return low
  }

  has(seq: number): boolean {
    return this.#seqAt(this.#placeOf(seq)) === seq
  }

  /** The points of one edit. */
  of(seq: number): Point[] {
    const found: Point[] = []
    for (let place = this.#placeOf(seq); this.#seqAt(place) === seq; place++)
      found.push({ seq, vector: this.#rows.vector(this.#label(place)) })
    return found
  }

  nearest(query: Float32Array, n: number): Neighbour[] {
    const { keys } = this.#index.search(query, Math.min(n, this.size), THREADS)
    const found = Array.from(keys, (key): Neighbour => {
      const label = Number(key)
      return { seq: this.seqs[label] ?? -1, similarity: this.#rows.cosine(label, query) }
    })
    return found.sort((a, b) => b.similarity - a.similarity)
  }

  /** All points, page by page. A point's vector holds until the next page is asked for. */
  pages(): Generator<Point[]> {
    return this.#rows.pages(this.size)
  }

  /** Lets go of the files; nothing may be asked any more. */
  close(): void {
    this.#rows.close()
    release(this.#index)
  }
}

function orderOf(seqs: Float64Array): Uint32Array | null {
  if (seqs.every((seq, label) => label === 0 || (seqs[label - 1] ?? 0) <= seq)) return null
  const order = Uint32Array.from(seqs.keys())
  return order.sort((a, b) => (seqs[a] ?? 0) - (seqs[b] ?? 0) || a - b)
}
