import { assertUnit, cosine } from './vector.ts'

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

/** Points of one block of an arena. */
export const BLOCK_POINTS = 4_096
/** The first block begins with so many, so that a small tenant takes little. */
const FIRST_POINTS = 64

/** Vectors in blocks, searched one by one: exact, and fast enough for some thousands. */
export class Arena {
  readonly dimensions: number
  /** Of `BLOCK_POINTS` points each, the last perhaps of fewer. Shared, so that a thread that builds a graph of them is sent no copy. */
  readonly blocks: Float32Array[] = []
  readonly seqs: number[] = []
  /** Place of the first point of each edit. */
  readonly #firsts = new Map<number, number>()

  constructor(dimensions: number) {
    this.dimensions = dimensions
  }

  get size(): number {
    return this.seqs.length
  }

  /** Edits that have points here. */
  get edits(): number {
    return this.#firsts.size
  }

  has(seq: number): boolean {
    return this.#firsts.has(seq)
  }

  add({ seq, vector }: Point): void {
    assertUnit(vector, this.dimensions)
    const at = this.seqs.length
    this.#roomFor(at).set(vector, (at % BLOCK_POINTS) * this.dimensions)
    this.seqs.push(seq)
    if (!this.#firsts.has(seq)) this.#firsts.set(seq, at)
  }

  #roomFor(at: number): Float32Array {
    const n = Math.floor(at / BLOCK_POINTS)
    const needed = (at % BLOCK_POINTS) + 1
    const had = this.blocks[n]
    if (had !== undefined && had.length >= needed * this.dimensions) return had
    const points = n > 0 ? BLOCK_POINTS : Math.min(BLOCK_POINTS, Math.max(FIRST_POINTS, 2 * needed))
    const block = new Float32Array(new SharedArrayBuffer(points * this.dimensions * Float32Array.BYTES_PER_ELEMENT))
    if (had !== undefined) block.set(had)
    this.blocks[n] = block
    return block
  }

  *points(): Generator<Point> {
    for (const at of this.seqs.keys()) yield this.#point(at)
  }

  /** The points of one edit, which were added together. */
  of(seq: number): Point[] {
    const from = this.#firsts.get(seq)
    if (from === undefined) return []
    let to = from
    while (this.seqs[to] === seq) to++
    return Array.from({ length: to - from }, (_, i) => this.#point(from + i))
  }

  #point(at: number): Point {
    const offset = (at % BLOCK_POINTS) * this.dimensions
    const block = this.blocks[Math.floor(at / BLOCK_POINTS)] as Float32Array
    return { seq: this.seqs[at] ?? -1, vector: block.slice(offset, offset + this.dimensions) }
  }

  nearest(query: Float32Array, n: number): Neighbour[] {
    const best = new Nearest(n)
    for (const [b, block] of this.blocks.entries()) {
      const first = b * BLOCK_POINTS
      const end = Math.min(BLOCK_POINTS, this.seqs.length - first)
      for (let i = 0; i < end; i++) {
        const similarity = cosine(block, i * this.dimensions, query)
        if (similarity > best.bar) best.offer({ seq: this.seqs[first + i] ?? -1, similarity })
      }
    }
    return best.found
  }
}

/** The `n` nearest of those offered, by falling similarity. */
export class Nearest {
  readonly #n: number
  readonly found: Neighbour[] = []
  /** What is not nearer than this is not among them. */
  bar = Number.NEGATIVE_INFINITY

  constructor(n: number) {
    this.#n = n
  }

  offer(neighbour: Neighbour): void {
    let low = 0
    let high = this.found.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.found[middle]?.similarity ?? 0) >= neighbour.similarity) low = middle + 1
      else high = middle
    }
    this.found.splice(low, 0, neighbour)
    if (this.found.length > this.#n) this.found.pop()
    if (this.found.length === this.#n) this.bar = this.found.at(-1)?.similarity ?? this.bar
  }
}

/** The `n` nearest of all lists. */
export function mergeNearest(lists: readonly (readonly Neighbour[])[], n: number): Neighbour[] {
  const filled = lists.filter(({ length }) => length > 0)
  if (filled.length === 1) return filled.flat()
  return filled
    .flat()
    .sort((x, y) => y.similarity - x.similarity)
    .slice(0, n)
}
