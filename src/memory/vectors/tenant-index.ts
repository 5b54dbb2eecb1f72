import { setImmediate as yieldToLoop } from 'node:timers/promises'
import { Arena, mergeNearest, Nearest, type Neighbour, type Point } from '../graph/arena.ts'
import type { Graph } from '../graph/graph.ts'
import { type GraphOptions, usearch } from '../graph/graph-library.ts'
import { cosine } from '../graph/vector.ts'
import type { VectorHit } from '../memory.ts'
import { inSlices } from '../slices.ts'

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
/** Points that one round takes, at most, or those of an edit more: 200 MB of them. */
const ROUND_POINTS = 131_072
/**
 * Points that may wait for a round: this share of the graph, since a round writes all of it again; within these bounds, the upper being what a
 * scan takes 1.5 ms for.
 */
const WAITING = { share: 1 / 32, least: 256, most: 4_096 } as const

/**
 * Points that may wait while a round is under way, before an import waits for it: the first number, 12 ms of a scan, or this share of the graph
 * up to a whole round. A round writes the graph that it began with again: two million points write theirs 11 times over so, and would
 * 92 times in rounds of 10,900.
 */
const WAITING_BEHIND = { least: 32_768, share: 1 / 8 } as const

/** Which edit a point counts for, if it counts. */
export type Owner = (seq: number) => string | undefined

/**
 * One tenant's vectors. Those of edits that may be live are in the graph, in an arena while a new graph is built with them, or in those that wait
 * for that. `past` ones are of edits withdrawn or replaced before the last (re)build, looked at only when a past moment is asked for.
 */
export class TenantIndex {
  readonly #options: IndexOptions
  readonly #dimensions: number
  /** Each for one round. */
  #waiting: Arena[] = []
  #building: Arena | null = null
  readonly #past: Arena[] = []
  readonly #pastSeqs = new Set<number>()
  /** Edits that nothing is indexed of. */
  readonly #bare = new Set<number>()
  #graph: Graph | null

  constructor(dimensions: number, options: IndexOptions, graph: Graph | null = null) {
    this.#dimensions = dimensions
    this.#options = options
    this.#graph = graph
  }

  get graph(): Graph | null {
    return this.#graph
  }

  /** Arenas that are searched for the present. */
  get #arenas(): Arena[] {
    return this.#building === null ? this.#waiting : [this.#building, ...this.#waiting]
  }

  /** Whether an import is to wait for the round that is under way. */
  get isFull(): boolean {
    const share = Math.min(ROUND_POINTS, WAITING_BEHIND.share * (this.#graph?.size ?? 0))
    return pointsIn(this.#waiting) > Math.max(WAITING_BEHIND.least, share)
  }

  /** Edits (revisions) that have their vectors here. */
  get edits(): number {
    const elsewhere = (this.#graph?.edits ?? 0) + this.#pastSeqs.size + this.#bare.size
    return this.#arenas.reduce((sum, { edits }) => sum + edits, elsewhere)
  }

  /** Edits put aside. */
  get pastEdits(): number {
    return this.#pastSeqs.size
  }

  has(seq: number): boolean {
    if (this.#pastSeqs.has(seq) || this.#bare.has(seq)) return true
    return this.#graph?.has(seq) === true || this.#arenas.some((arena) => arena.has(seq))
  }

  /** The vectors of one edit, in the order in which they were added; none where it has none here. */
  of(seq: number): readonly Float32Array[] {
    for (const place of [...this.#arenas, this.#graph, ...this.#past]) {
      const points = place?.of(seq) ?? []
      if (points.length > 0) return points.map(({ vector }) => vector)
    }
    return []
  }

  /** All vectors of one edit, valid ones. */
  add(seq: number, vectors: readonly Float32Array[], dormant: boolean): void {
    for (const vector of vectors) put(dormant ? this.#past : this.#waiting, { seq, vector }, this.#dimensions)
    if (vectors.length === 0) this.#bare.add(seq)
    else if (dormant) this.#pastSeqs.add(seq)
  }

  /** Whether a round is due. */
  get unsettled(): boolean {
    if (usearch === null || this.#building !== null) return false
    const { exactPoints } = this.#options
    const inGraph = this.#graph?.size ?? 0
    const waiting = pointsIn(this.#waiting)
    const least = Math.min(exactPoints, WAITING.least)
    const spared = inGraph === 0 ? 0 : Math.max(least, Math.min(WAITING.most, WAITING.share * inGraph))
    return waiting > spared && inGraph + waiting > exactPoints
  }

  /** Begins a round: these points are to be put into a new graph, and are searched where they are until then. */
  begin(): Arena {
    this.#building = this.#waiting.shift() ?? new Arena(this.#dimensions)
    return this.#building
  }

  settled(graph: Graph): void {
    this.#graph?.close()
    this.#graph = graph
    this.#building = null
  }

  failed(): void {
    if (this.#building !== null) this.#waiting.unshift(this.#building)
    this.#building = null
  }

  /** An edit that was put aside may be live again: let searches of the present find it. */
  revive(seq: number): void {
    if (!this.#pastSeqs.delete(seq)) return
    for (const arena of this.#past) for (const point of arena.of(seq)) put(this.#waiting, point, this.#dimensions)
  }

  /** Gives the graph up, without the points of dormant edits, when they have become most of it; true when it did. No round may be under way. */
  async rebuildIfMostlyDead(isDormant: (seq: number) => boolean, signal: AbortSignal): Promise<boolean> {
    const graph = this.#graph
    if (graph === null) return false
    const dead = new Set<number>()
    let deadPoints = 0
    await inSlices(graph.seqs, (seq) => {
      if (!dead.has(seq) && !isDormant(seq)) return
      dead.add(seq)
      deadPoints++
    })
    if (deadPoints <= DEAD_SHARE * graph.size) return false
    const [living, past]: [Arena[], Arena[]] = [[], []]
    for (const page of graph.pages()) {
      for (const point of page) put(dead.has(point.seq) ? past : living, point, this.#dimensions)
      await yieldToLoop()
      if (signal.aborted) return false
    }
    this.#graph = null
    graph.close()
    this.#waiting = [...living, ...this.#waiting]
    this.#past.push(...past)
    for (const seq of dead) this.#pastSeqs.add(seq)
    // Meanwhile restored.
    for (const seq of dead) if (!isDormant(seq)) this.revive(seq)
    return true
  }

  /** The `k` most similar edits that count, by the best of their points. `past`: look among those put aside, too. */
  search(query: Float32Array, k: number, owner: Owner, past: boolean): VectorHit[] {
    return bestPerEdit((n) => this.#nearest(query, n, past), k, owner)
  }

  /** As `search`, but by looking at every point: slow, and the truth that `search` is measured against. */
  exactSearch(query: Float32Array, k: number, owner: Owner): VectorHit[] {
    return bestPerEdit((n) => this.#exactNearest(query, n, owner), k, owner)
  }

  #exactNearest(query: Float32Array, n: number, owner: Owner): Neighbour[] {
    const best = new Nearest(n)
    const look = ({ seq, vector }: Point) => {
      const similarity = cosine(vector, 0, query)
      if (similarity > best.bar && owner(seq) !== undefined) best.offer({ seq, similarity })
    }
    for (const page of this.#graph?.pages() ?? []) page.forEach(look)
    for (const arena of [...this.#arenas, ...this.#past]) for (const point of arena.points()) look(point)
    return best.found
  }

  #nearest(query: Float32Array, n: number, past: boolean): Neighbour[] {
    const places = [this.#graph, ...this.#arenas, ...(past ? this.#past : [])]
    return mergeNearest(
      places.map((place) => place?.nearest(query, n) ?? []),
      n,
    )
  }

  close(): void {
    this.#graph?.close()
    this.#graph = null
  }
}

function pointsIn(arenas: readonly Arena[]): number {
  return arenas.reduce((sum, { size }) => sum + size, 0)
}

/** Into the last arena, or a new one where that is full; an edit's points, added together, stay together. */
function put(arenas: Arena[], point: Point, dimensions: number): void {
  let last = arenas.at(-1)
  if (last === undefined || (last.size >= ROUND_POINTS && !last.has(point.seq))) {
    last = new Arena(dimensions)
    arenas.push(last)
  }
  last.add(point)
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
