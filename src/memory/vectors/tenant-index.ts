import type { VectorHit } from '../memory.ts'
import { Arena, Graph, type GraphOptions, mergeNearest, type Neighbour, type Point } from './hnsw-graph.ts'
import { hnswlib } from './hnsw-library.ts'

export interface IndexOptions {
  /** Up to this many points a scan answers; beyond, a graph is built, where its library loads. */
  readonly exactPoints: number
  readonly graph: GraphOptions
}

/** Points asked for per hit wanted: an edit has several, and some belong to edits that are not held. */
const OVERFETCH = 4
/** A search that has looked at this many points of edits that do not count gives what it has. */
const FETCH_LIMIT_POINTS = 4_096
/** Rebuilt when more than this share of the graph belongs to edits that only a further record could make live. */
const DEAD_SHARE = 0.5

/** Which edit a point counts for, if it counts. */
export type Owner = (seq: number) => string | undefined

/**
 * One tenant's vectors. `active` ones are those of edits that may be live: new points wait in an arena and are moved into the graph in the
 * background once there are too many to scan. `past` ones are of edits withdrawn or replaced before the last (re)build, looked at only
 * when a past moment is asked for.
 */
export class TenantIndex {
  readonly #options: IndexOptions
  readonly #dimensions: number
  readonly #waiting: Arena
  readonly #past: Arena
  readonly #pastSeqs = new Set<number>()
  readonly #seqs = new Set<number>()
  #graph: Graph | null
  /** Points put into the graph since it was last saved or read. */
  unsaved = 0

  constructor(dimensions: number, options: IndexOptions, graph: Graph | null = null) {
    this.#dimensions = dimensions
    this.#options = options
    this.#waiting = new Arena(dimensions)
    this.#past = new Arena(dimensions)
    this.#graph = graph
    for (const seq of graph?.seqs ?? []) this.#seqs.add(seq)
  }

  get graph(): Graph | null {
    return this.#graph
  }

  /** Edits (revisions) that have their vectors here. */
  get edits(): number {
    return this.#seqs.size
  }

  /** Edits put aside. */
  get pastEdits(): number {
    return this.#pastSeqs.size
  }

  has(seq: number): boolean {
    return this.#seqs.has(seq)
  }

  /** The vectors of one edit, in the order in which they were added; none where it has none here. */
  of(seq: number): readonly Float32Array[] {
    const places = [this.#waiting, this.#graph, this.#past]
    const found = places.map((place) => place?.of(seq) ?? []).find((points) => points.length > 0)
    return found?.map(({ vector }) => vector) ?? []
  }

  /** All vectors of one edit, valid ones. */
  add(seq: number, vectors: readonly Float32Array[], dormant: boolean): void {
    for (const vector of vectors) (dormant ? this.#past : this.#waiting).add({ seq, vector })
    this.#seqs.add(seq)
    if (dormant) this.#pastSeqs.add(seq)
  }

  get unsettled(): boolean {
    if (hnswlib === null) return false
    const total = this.#waiting.size + (this.#graph?.size ?? 0)
    return this.#waiting.size > 0 && total > this.#options.exactPoints && this.#graph?.writing !== true
  }

  /** Moves about `n` waiting points into the graph. */
  settle(n: number): void {
    this.#graph ??= Graph.empty(this.#dimensions, this.#options.graph)
    for (const point of this.#waiting.take(n)) {
      this.#graph.add(point)
      this.unsaved++
    }
  }

  /** An edit that was put aside may be live again: let searches of the present find it. */
  revive(seq: number): void {
    if (!this.#pastSeqs.delete(seq)) return
    for (const point of this.#past.of(seq)) this.#waiting.add(point)
  }

  /** Starts the graph anew without the points of dormant edits when they have become most of it; true when it did. */
  rebuildIfMostlyDead(isDormant: (seq: number) => boolean): boolean {
    const graph = this.#graph
    if (graph === null || graph.writing) return false
    const dead = new Set([...new Set(graph.seqs)].filter(isDormant))
    let deadPoints = 0
    for (const seq of graph.seqs) if (dead.has(seq)) deadPoints++
    if (deadPoints <= DEAD_SHARE * graph.size) return false
    for (const point of graph.points()) this.#sortOut(point, dead)
    this.#graph = null
    this.unsaved = 1
    return true
  }

  #sortOut(point: Point, dead: ReadonlySet<number>): void {
    if (!dead.has(point.seq)) this.#waiting.add(point)
    else {
      this.#past.add(point)
      this.#pastSeqs.add(point.seq)
    }
  }

  /** The `k` most similar edits that count, by the best of their points. `past`: look among those put aside, too. */
  search(query: Float32Array, k: number, owner: Owner, past: boolean): VectorHit[] {
    return bestPerEdit((n) => this.#nearest(query, n, past), k, owner)
  }

  /** As `search`, but by looking at every point: slow, and the truth that `search` is measured against. */
  exactSearch(query: Float32Array, k: number, owner: Owner): VectorHit[] {
    const all = new Arena(this.#dimensions)
    for (const points of [this.#graph?.points() ?? [], this.#waiting.points(), this.#past.points()]) {
      for (const point of points) if (owner(point.seq) !== undefined) all.add(point)
    }
    return bestPerEdit((n) => all.nearest(query, n), k, owner)
  }

  #nearest(query: Float32Array, n: number, past: boolean): Neighbour[] {
    const present = mergeNearest(this.#graph?.nearest(query, n) ?? [], this.#waiting.nearest(query, n), n)
    return past && this.#past.size > 0 ? mergeNearest(present, this.#past.nearest(query, n), n) : present
  }
}

/** Asks for ever more points until `k` edits that count are among them. */
function bestPerEdit(nearest: (n: number) => readonly Neighbour[], k: number, owner: Owner): VectorHit[] {
  for (let n = OVERFETCH * k; ; n *= 4) {
    const found = nearest(n)
    const best = new Map<string, number>()
    for (const { seq, similarity } of found) {
      const editId = owner(seq)
      if (editId !== undefined && !best.has(editId)) best.set(editId, similarity)
      if (best.size >= k) break
    }
    if (best.size >= k || found.length < n || n >= FETCH_LIMIT_POINTS) {
      return Array.from(best, ([editId, similarity]) => ({ editId, similarity }))
    }
  }
}
