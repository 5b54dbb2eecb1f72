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

/** Points of one block of an arena. */
const BLOCK_POINTS = 4_096
/** The first block begins with so many, so that a small tenant takes little. */
const FIRST_POINTS = 64

/** Vectors in blocks, searched one by one: exact, and fast enough for some thousands. */
export class Arena {
  readonly dimensions: number
  readonly #blocks: Float32Array[] = []
  #seqs: number[] = []
  /** Place of the first point of each edit. */
  readonly #firsts = new Map<number, number>()

  constructor(dimensions: number) {
    this.dimensions = dimensions
  }

  get size(): number {
    return this.#seqs.length
  }

  add({ seq, vector }: Point): void {
    assertUnit(vector, this.dimensions)
    const at = this.#seqs.length
    this.#roomFor(at).set(vector, (at % BLOCK_POINTS) * this.dimensions)
    this.#seqs.push(seq)
    if (!this.#firsts.has(seq)) this.#firsts.set(seq, at)
  }

  #roomFor(at: number): Float32Array {
    const n = Math.floor(at / BLOCK_POINTS)
    const needed = (at % BLOCK_POINTS) + 1
    const had = this.#blocks[n]
    if (had !== undefined && had.length >= needed * this.dimensions) return had
    const points = n > 0 ? BLOCK_POINTS : Math.min(BLOCK_POINTS, Math.max(FIRST_POINTS, 2 * needed))
    const block = new Float32Array(points * this.dimensions)
    if (had !== undefined) block.set(had)
    this.#blocks[n] = block
    return block
  }

  /** Removes at least `n` points (or all) from the end; those of one edit, added together, leave together. */
  take(n: number): Point[] {
    let from = Math.max(0, this.#seqs.length - n)
    while (from > 0 && this.#seqs[from - 1] === this.#seqs[from]) from--
    const out = this.#points(from)
    this.#seqs.length = from
    for (const { seq } of out) this.#firsts.delete(seq)
    this.#blocks.length = Math.ceil(from / BLOCK_POINTS)
    return out
  }

  points(): Point[] {
    return this.#points(0)
  }

  /** The points of one edit, which were added together. */
  of(seq: number): Point[] {
    const from = this.#firsts.get(seq)
    return from === undefined ? [] : this.#points(from, from + run(this.#seqs, from))
  }

  #points(from: number, to: number = this.#seqs.length): Point[] {
    const d = this.dimensions
    return this.#seqs.slice(from, to).map((seq, i) => {
      const offset = ((from + i) % BLOCK_POINTS) * d
      const block = this.#blocks[Math.floor((from + i) / BLOCK_POINTS)] as Float32Array
      return { seq, vector: block.slice(offset, offset + d) }
    })
  }

  nearest(query: Float32Array, n: number): Neighbour[] {
    const best: Neighbour[] = []
    let bar = Number.NEGATIVE_INFINITY
    for (const [b, block] of this.#blocks.entries()) {
      const first = b * BLOCK_POINTS
      const end = Math.min(BLOCK_POINTS, this.#seqs.length - first)
      for (let i = 0; i < end; i++) {
        const similarity = cosine(dot(block, i * this.dimensions, query))
        if (similarity <= bar && best.length >= n) continue
        insert(best, { seq: this.#seqs[first + i] ?? -1, similarity }, n)
        if (best.length >= n) bar = best.at(-1)?.similarity ?? bar
      }
    }
    return best
  }
}

/** How many entries from `from` on are equal. */
function run(seqs: readonly number[], from: number): number {
  let to = from
  while (to < seqs.length && seqs[to] === seqs[from]) to++
  return to - from
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
  /** Label of the first point of each edit; its others follow. */
  readonly #firsts = new Map<number, number>()
  /** While the graph is being written a point added would corrupt the file: `add` refuses. */
  #writing = false

  private constructor(hnsw: HierarchicalNSW, dimensions: number, seqs: number[], options: GraphOptions) {
    this.#hnsw = hnsw
    this.dimensions = dimensions
    this.seqs = seqs
    this.options = options
    for (const [label, seq] of seqs.entries()) this.#note(seq, label)
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
    this.#note(seq, label)
  }

  #note(seq: number, label: number): void {
    if (!this.#firsts.has(seq)) this.#firsts.set(seq, label)
  }

  nearest(query: Float32Array, n: number): Neighbour[] {
    const count = Math.min(n, this.seqs.length)
    if (count === 0) return []
    const { neighbors, distances } = this.#hnsw.searchKnn(Array.from(query), count)
    const found = neighbors.map((label, i) => ({ seq: this.seqs[label] ?? -1, similarity: cosine(1 - (distances[i] ?? 1)) }))
    return found.sort((a, b) => b.similarity - a.similarity)
  }

  *points(): Generator<Point> {
    for (const label of this.seqs.keys()) yield this.#point(label)
  }

  /** The points of one edit, which were added together. */
  of(seq: number): Point[] {
    const from = this.#firsts.get(seq)
    return from === undefined ? [] : Array.from({ length: run(this.seqs, from) }, (_, i) => this.#point(from + i))
  }

  #point(label: number): Point {
    return { seq: this.seqs[label] ?? -1, vector: Float32Array.from(this.#hnsw.getPoint(label)) }
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
