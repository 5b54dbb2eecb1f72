import { setImmediate as yieldToLoop } from 'node:timers/promises'
import type { Embedder } from '../../engine/engine.ts'
import type { Logger } from '../../logger.ts'
import { Graph } from '../graph/graph.ts'
import { type Expected, GraphFiles } from '../graph/graph-file.ts'
import { usearch } from '../graph/graph-library.ts'
import { assertUnit } from '../graph/vector.ts'
import { contentOf, type LiveView, type Revision } from '../log/timeline.ts'
import type { IndexStatus, VectorHit } from '../memory.ts'
import { Indexer, Job, type LaneName } from './embedding-queue.ts'
import type { KeptVectors } from './embedding-store.ts'
import { embedKeys, RECIPE } from './index-texts.ts'
import { type IndexOptions, TenantIndex } from './tenant-index.ts'

export interface IndexesOptions extends IndexOptions {
  readonly folder: string
  /** Closed with the indexes. */
  readonly kept: KeptVectors
  readonly embedder: Embedder
  readonly log: Logger
  /** Now, in milliseconds since the epoch. */
  readonly moment: () => number
  /** Last record of the log. */
  readonly logSeq: () => number
}

/** Edits whose kept vectors are read between two turns of the event loop. */
const LOAD_EDITS = 1_024
/** A failed round is tried again after this time, doubled at each further failure up to the second number. */
const REST_MS = { first: 1_000, longest: 300_000 } as const
/** Changes after which, at the least, the share of dead points is counted again. */
const RECOUNT_CHANGES = 1_000

interface Tenant {
  readonly name: string
  readonly view: LiveView
  readonly index: TenantIndex
  readonly files: GraphFiles
  changes: number
}

/** The vector indexes of all tenants, each apart from the others: filled, saved, loaded and rebuilt in the background. */
export class Indexes {
  readonly #options: IndexesOptions
  readonly #kept: KeptVectors
  readonly #indexer: Indexer
  readonly #tenants = new Map<string, Tenant>()
  #maintenance: Promise<void> | null = null
  #round: Promise<void> | null = null
  readonly #stop = new AbortController()
  /** After a failed round: no other is begun before this ends. */
  #rest: NodeJS.Timeout | null = null
  #restMs: number = REST_MS.first
  /** Not before all tenants are open: until then a graph would be built of what is still being read, and make it take longer. */
  #isOpen = false

  constructor(options: IndexesOptions) {
    const { embedder, kept, log } = options
    this.#options = options
    this.#kept = kept
    this.#indexer = new Indexer({
      kept,
      dimensions: embedder.dimensions,
      log,
      place: (job, vectors) => this.#place(job, vectors),
      room: (tenant) => this.#room(tenant),
      idle: () => this.#maintain(),
    })
  }

  /** Loads a tenant's index, fills the gaps from kept embeddings, and queues what has none. */
  async open(name: string, view: LiveView): Promise<void> {
    const revisions = [...view.ids()].flatMap((id) => view.revisions(id)).sort((a, b) => a.seq - b.seq)
    const files = this.#files(name)
    const graph = await this.#load(name, view, revisions, files)
    const { dimensions } = this.#options.embedder
    const tenant = { name, view, index: new TenantIndex(dimensions, this.#options, graph), files, changes: RECOUNT_CHANGES }
    this.#tenants.set(name, tenant)
    const jobs: Job[] = []
    const missing = revisions.filter(({ seq }) => !tenant.index.has(seq))
    for await (const [page, kept] of this.#pages(name, missing)) {
      for (const job of page) {
        const vectors = job.texts.map((text) => kept.get(text))
        if (vectors.every((v) => v !== undefined)) this.#place(job, vectors)
        else jobs.push(job)
      }
    }
    // What another node is embedding just now comes from it.
    this.#indexer.enqueue(this.#kept.isShared ? 'others' : 'bulk', jobs)
  }

  /** All tenants are open: graphs are built from now on. */
  opened(): void {
    this.#isOpen = true
    this.#maintain()
  }

  /** What is kept for these, page by page; the next page is read while one is worked on. */
  async *#pages(
    name: string,
    revisions: readonly Revision[],
  ): AsyncGenerator<readonly [readonly Job[], ReadonlyMap<string, Float32Array>]> {
    const read = async (from: number) => {
      const page = revisions.slice(from, from + LOAD_EDITS).map((revision) => new Job(name, revision))
      return [page, await this.#kept.find(new Set(page.flatMap(({ texts }) => texts)))] as const
    }
    let next = read(0)
    for (let from = 0; from < revisions.length; from += LOAD_EDITS) {
      const page = await next
      next = read(from + LOAD_EDITS)
      yield page
      await yieldToLoop()
    }
    await next
  }

  /** See `MemoryStore.vectorsOf`. */
  vectorsOf(name: string, seq: number): readonly Float32Array[] {
    return this.#tenants.get(name)?.index.of(seq) ?? []
  }

  #files(name: string): GraphFiles {
    return new GraphFiles(this.#options.folder, name, this.#options.graph)
  }

  async #load(name: string, view: LiveView, revisions: readonly Revision[], files: GraphFiles): Promise<Graph | null> {
    const { log, moment, exactPoints } = this.#options
    const found = await files.load(this.#expected(view))
    if (found instanceof Graph) return found
    let points = 0
    const now = moment()
    for (const revision of revisions) if (!view.isDormant(revision, now)) points += embedKeys(revision.edit).length
    if (usearch === null) {
      if (points > exactPoints) log.warn({ tenant: name, points }, 'usearch does not load here: every vector is scanned')
      return null
    }
    // A tenant small enough to be scanned has no saved index to miss.
    if (found.reason !== 'missing' || points > exactPoints) {
      log.warn(
        { ...found, file: files.note, tenant: name },
        `the saved vector index is ${found.reason}; rebuilding it from kept embeddings`,
      )
    }
    return null
  }

  #expected(view: LiveView): Expected {
    const { embedder, logSeq } = this.#options
    const content = (seq: number) => {
      const revision = view.revision(seq)
      return revision === undefined ? '' : contentOf(revision.edit)
    }
    return { embedder: embedder.name, dimensions: embedder.dimensions, recipe: RECIPE, logSeq: logSeq(), contentOf: content }
  }

  #tenant(name: string, view: LiveView): Tenant {
    const known = this.#tenants.get(name)
    if (known !== undefined) return known
    const index = new TenantIndex(this.#options.embedder.dimensions, this.#options)
    const made = { name, view, index, files: this.#files(name), changes: 0 }
    this.#tenants.set(name, made)
    return made
  }

  #place({ tenant: name, seq }: Job, vectors: readonly Float32Array[]): void {
    const tenant = this.#tenants.get(name)
    const revision = tenant?.view.revision(seq)
    if (tenant === undefined || revision === undefined) return
    tenant.index.add(seq, vectors, tenant.view.isDormant(revision, this.#options.moment()))
    // During a long import, too: searches look at each waiting point.
    if (tenant.index.unsettled) this.#maintain()
  }

  /** Takes note of records just applied to the view: `added` need vectors, and edits akin to `changed` may be live again. */
  changed(name: string, view: LiveView, added: readonly Revision[], changed: readonly string[], lane: LaneName): void {
    const tenant = this.#tenant(name, view)
    tenant.changes += changed.length
    const now = this.#options.moment()
    if (tenant.index.pastEdits > 0)
      for (const revision of view.akin(changed)) if (!view.isDormant(revision, now)) tenant.index.revive(revision.seq)
    this.#indexer.enqueue(
      lane,
      added.map((revision) => new Job(name, revision)),
    )
    if (added.length === 0) this.#maintain()
  }

  search(name: string, query: Float32Array, k: number, at: number, exact: boolean): VectorHit[] {
    const { dimensions } = this.#options.embedder
    const { moment } = this.#options
    assertUnit(query, dimensions)
    const tenant = this.#tenants.get(name)
    if (tenant === undefined) return []
    const owner = (seq: number) => {
      const revision = tenant.view.revision(seq)
      return revision !== undefined && tenant.view.isLive(revision, at) ? revision.edit.id : undefined
    }
    return exact ? tenant.index.exactSearch(query, k, owner) : tenant.index.search(query, k, owner, at < moment())
  }

  status(): IndexStatus[] {
    return Array.from(this.#tenants.values(), ({ name, index }) => ({
      tenant: name,
      indexed: index.edits,
      pending: this.#indexer.pending(name),
    }))
  }

  /** See `MemoryStore.indexed`. */
  async indexed(version?: number): Promise<void> {
    await this.#indexer.done(version)
    if (version !== undefined) return
    this.#maintain()
    while (this.#maintenance !== null) await this.#maintenance
  }

  /** Resolves when a long import may go on: a round takes what waits, unless none succeeds. */
  async #room(name: string): Promise<void> {
    const index = this.#tenants.get(name)?.index
    while (index?.isFull && this.#round !== null) await this.#round
  }

  #maintain(): void {
    if (!this.#isOpen || this.#stop.signal.aborted || this.#rest !== null || this.#maintenance !== null) return
    this.#maintenance = this.#tidyAll().finally(() => {
      this.#maintenance = null
      // Points that came meanwhile.
      if ([...this.#tenants.values()].some((tenant) => tenant.index.unsettled)) this.#maintain()
    })
  }

  async #tidyAll(): Promise<void> {
    await yieldToLoop()
    for (const tenant of this.#tenants.values()) {
      await this.#recount(tenant)
      while (tenant.index.unsettled && this.#rest === null && !this.#stop.signal.aborted) {
        this.#round = this.#grow(tenant)
        await this.#round
        this.#round = null
      }
    }
  }

  async #recount(tenant: Tenant): Promise<void> {
    const { log, moment } = this.#options
    if (tenant.changes < Math.max(RECOUNT_CHANGES, (tenant.index.graph?.size ?? 0) / 8)) return
    tenant.changes = 0
    const dormant = (seq: number) => {
      const revision = tenant.view.revision(seq)
      return revision === undefined || tenant.view.isDormant(revision, moment())
    }
    if (!(await tenant.index.rebuildIfMostlyDead(dormant, this.#stop.signal))) return
    log.info({ tenant: tenant.name }, 'most of the vector index was of edits no longer held; rebuilding it without them')
    await tenant.files.drop()
  }

  /** A round. Where it fails, what it took is searched as before, and tried again after a while. */
  async #grow({ name, view, index, files }: Tenant): Promise<void> {
    const { signal } = this.#stop
    const points = index.begin()
    try {
      index.settled(await files.grow(index.graph, points, this.#expected(view), signal))
      this.#restMs = REST_MS.first
    } catch (error) {
      index.failed()
      if (signal.aborted) return
      this.#options.log.warn(
        { err: error, tenant: name, file: files.note, points: points.size },
        'the vector index could not be extended; these points are scanned, and it is tried again',
      )
      this.#rest = setTimeout(() => {
        this.#rest = null
        this.#maintain()
      }, this.#restMs).unref()
      this.#restMs = Math.min(2 * this.#restMs, REST_MS.longest)
    }
  }

  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#stop.abort()
    clearTimeout(this.#rest ?? undefined)
    await this.#indexer.close()
    await this.#maintenance
    for (const { index } of this.#tenants.values()) index.close()
    await this.#kept.close()
  }
}
