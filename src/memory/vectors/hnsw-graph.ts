import { PalimpsestError } from '../../errors.ts'
import { type HierarchicalNSW, newIndex } from './hnsw-library.ts'

/** A stored vector near a query. `seq`: the log record whose edit it belongs to. */
export interface Neighbour {
  readonly seq: number
  /** Cosine in [-1, 1]. */
  readonly similarity: number
}

/** A vector and the log record of its edit. */
export interface Point {
  readonly seq: number
  readonly vector: Float32Array
}

/** HNSW's knobs (Malkov & Yashunin 2016): neighbours per node, breadth of search while building, and while searching. */
export interface GraphOptions {
  readonly neighbours: number
  readonly buildBreadth: number
  readonly searchBreadth: number
}

export const GRAPH_OPTIONS: GraphOptions = { neighbours: 24, buildBreadth: 200, searchBreadth: 128 }

/** How far from 1 a unit vector's length may be, rounding in half precision allowed for. */
const UNIT_TOLERANCE = 1e-2
const FIRST_CAPACITY = 4_096
/** Fixed, so that equal input builds an equal graph. */
const LEVEL_SEED = 100

/** Throws unless `vector` is a unit vector of this length: the graph library ends the process on a hole and is poisoned by a NaN. */
export function assertUnit(vector: Float32Array, dimensions: number): void {
  const what = vectorFault(vector, dimensions)
  if (what !== null)
    throw new PalimpsestError('engine_failed', `The embedder gave an unusable vector: ${what}. Check its model file.`)
}

/** What keeps a vector out of an index, or null. */
export function vectorFault(vector: Float32Array | undefined, dimensions: number): string | null {
  if (!(vector instanceof Float32Array) || vector.length !== dimensions)
    return `expected ${dimensions} numbers, got ${vector?.length ?? 'nothing'}`
  let square = 0
  for (const x of vector) square += x * x
  if (!Number.isFinite(square)) return 'it has a number that is not finite'
  return Math.abs(Math.sqrt(square) - 1) > UNIT_TOLERANCE ? `expected length 1, got ${Math.sqrt(square).toFixed(4)}` : null
}

/** The `n` nearest of both lists, each sorted by falling similarity. */
export function mergeNearest(a: readonly Neighbour[], b: readonly Neighbour[], n: number): Neighbour[] {
  return [...a, ...b].sort((x, y) => y.similarity - x.similarity).slice(0, n)
}

/** Vectors in one flat array, searched one by one: exact, and fast enough for some thousands. */
export class Arena {
  readonly dimensions: number
  #data = new Float32Array(0)
  #seqs: number[] = []

  constructor(dimensions: number) {
    this.dimensions = dimensions
  }

  get size(): number {
    return this.#seqs.length
  }

  add({ seq, vector }: Point): void {
    assertUnit(vector, this.dimensions)
    const offset = this.#seqs.length * this.dimensions
    if (offset + this.dimensions > this.#data.length) {
      const grown = new Float32Array(Math.max(64 * this.dimensions, 2 * this.#data.length))
      grown.set(this.#data)
      this.#data = grown
    }
    this.#data.set(vector, offset)
    this.#seqs.push(seq)
  }

  /** Removes at least `n` points (or all) from the end; those of one edit, added together, leave together. */
  take(n: number): Point[] {
    let from = Math.max(0, this.#seqs.length - n)
    while (from > 0 && this.#seqs[from - 1] === this.#seqs[from]) from--
    const out = this.#points(from)
    this.#seqs.length = from
    if (from === 0) this.#data = new Float32Array(0)
    return out
  }

  points(): Point[] {
    return this.#points(0)
  }

  /** The points of one edit, which were added together. */
  of(seq: number): Point[] {
    const from = this.#seqs.indexOf(seq)
    if (from < 0) return []
    let to = from
    while (this.#seqs[to] === seq) to++
    return this.#points(from, to)
  }

  #points(from: number, to: number = this.#seqs.length): Point[] {
    const d = this.dimensions
    return this.#seqs.slice(from, to).map((seq, i) => ({ seq, vector: this.#data.slice((from + i) * d, (from + i + 1) * d) }))
  }

  nearest(query: Float32Array, n: number): Neighbour[] {
    const best: Neighbour[] = []
    let bar = Number.NEGATIVE_INFINITY
    for (let i = 0; i < this.#seqs.length; i++) {
      const similarity = cosine(dot(this.#data, i * this.dimensions, query))
      if (similarity <= bar && best.length >= n) continue
      insert(best, { seq: this.#seqs[i] ?? -1, similarity }, n)
      if (best.length >= n) bar = best.at(-1)?.similarity ?? bar
    }
    return best
  }
}

/** Scalar product of two vectors by themselves; 0 where one is missing. */
export function product(a: Float32Array | undefined, b: Float32Array | undefined): number {
  return a === undefined || b === undefined ? 0 : dot(a, 0, b)
}

/** A product of unit vectors without what rounding added beyond the ends. */
function cosine(product: number): number {
  return Math.max(-1, Math.min(1, product))
}

/** Four sums side by side: about twice the speed of one in V8. */
function dot(data: Float32Array, offset: number, query: Float32Array): number {
  let a = 0
  let b = 0
  let c = 0
  let d = 0
  const whole = query.length & ~3
  for (let i = 0; i < whole; i += 4) {
    const j = offset + i
    a += (data[j] as number) * (query[i] as number)
    b += (data[j + 1] as number) * (query[i + 1] as number)
    c += (data[j + 2] as number) * (query[i + 2] as number)
    d += (data[j + 3] as number) * (query[i + 3] as number)
  }
  for (let i = whole; i < query.length; i++) a += (data[offset + i] as number) * (query[i] as number)
  return a + b + c + d
}

/** Into a list sorted by falling similarity, kept at most `n` long. */
function insert(best: Neighbour[], neighbour: Neighbour, n: number): void {
  let low = 0
  let high = best.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((best[middle]?.similarity ?? 0) >= neighbour.similarity) low = middle + 1
    else high = middle
  }
  best.splice(low, 0, neighbour)
  if (best.length > n) best.pop()
}

/**
 * A navigable graph over unit vectors (hnswlib, inner product), for more vectors than a scan takes. Points are added, never removed: who
 * is live is asked after the search. Labels are 0, 1, 2 … in order of adding, the record of each in `seqs`.
 */
export class Graph {
  readonly dimensions: number
  readonly options: GraphOptions
  readonly seqs: number[]
  readonly #hnsw: HierarchicalNSW
  /** While the graph is being written a point added would corrupt the file: `add` refuses. */
  #writing = false

  private constructor(hnsw: HierarchicalNSW, dimensions: number, seqs: number[], options: GraphOptions) {
    this.#hnsw = hnsw
    this.dimensions = dimensions
    this.seqs = seqs
    this.options = options
    hnsw.setEf(options.searchBreadth)
  }

  static empty(dimensions: number, options: GraphOptions): Graph {
    const hnsw = newIndex(dimensions)
    hnsw.initIndex({
      maxElements: FIRST_CAPACITY,
      m: options.neighbours,
      efConstruction: options.buildBreadth,
      randomSeed: LEVEL_SEED,
    })
    return new Graph(hnsw, dimensions, [], options)
  }

  /** Only bytes whose checksum has been verified may be read: others can end the process. */
  static async read(file: string, dimensions: number, seqs: number[], options: GraphOptions): Promise<Graph> {
    const hnsw = newIndex(dimensions)
    await hnsw.readIndex(file)
    if (hnsw.getCurrentCount() !== seqs.length)
      throw new Error(`holds ${hnsw.getCurrentCount()} vectors, expected ${seqs.length}`)
    return new Graph(hnsw, dimensions, seqs, options)
  }

  get size(): number {
    return this.seqs.length
  }

  get writing(): boolean {
    return this.#writing
  }

  add({ seq, vector }: Point): void {
    assertUnit(vector, this.dimensions)
    if (this.#writing) throw new Error('a graph that is being written takes no points')
    const label = this.seqs.length
    if (label >= this.#hnsw.getMaxElements()) this.#hnsw.resizeIndex(Math.ceil(1.5 * label) + 1)
    this.#hnsw.addPoint(Array.from(vector), label)
    this.seqs.push(seq)
  }

  nearest(query: Float32Array, n: number): Neighbour[] {
    const count = Math.min(n, this.seqs.length)
    if (count === 0) return []
    const { neighbors, distances } = this.#hnsw.searchKnn(Array.from(query), count)
    const found = neighbors.map((label, i) => ({ seq: this.seqs[label] ?? -1, similarity: cosine(1 - (distances[i] ?? 1)) }))
    return found.sort((a, b) => b.similarity - a.similarity)
  }

  *points(): Generator<Point> {
    for (const [label, seq] of this.seqs.entries()) yield { seq, vector: Float32Array.from(this.#hnsw.getPoint(label)) }
  }

  async write(file: string): Promise<void> {
    this.#writing = true
    try {
      await this.#hnsw.writeIndex(file)
    } finally {
      this.#writing = false
    }
  }
}
