import { rm } from 'node:fs/promises'
import { setImmediate as yieldToLoop } from 'node:timers/promises'
import type { Embedder } from '../../engine/engine.ts'
import type { Logger } from '../../logger.ts'
import type { LiveView, Revision } from '../log/timeline.ts'
import type { IndexStatus, VectorHit } from '../memory.ts'
import { Indexer, type Job, type LaneName } from './embedding-queue.ts'
import type { KeptVectors } from './embedding-store.ts'
import { type Expected, indexFile, loadGraph, saveGraph } from './hnsw-file.ts'
import { assertUnit, Graph } from './hnsw-graph.ts'
import { hnswlib } from './hnsw-library.ts'
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

/** Points moved into a graph between two turns of the event loop: some milliseconds, the time of a token or less. */
const SETTLE_POINTS = 4
/** Edits whose kept vectors are read between two turns of the event loop. */
const LOAD_EDITS = 1_024
/** Points gained since the last save that make another one worth while, and the share of the graph they must be: it is written whole. */
const SAVE_POINTS = 2_000
const SAVE_SHARE = 1 / 8
/** Changes after which, at the least, the share of dead points is counted again. */
const RECOUNT_CHANGES = 1_000

interface Tenant {
  readonly name: string
  readonly view: LiveView
  readonly index: TenantIndex
  changes: number
}

/** The vector indexes of all tenants, each apart from the others: filled, saved, loaded and rebuilt in the background. */
export class Indexes {
  readonly #options: IndexesOptions
  readonly #kept: KeptVectors
  readonly #indexer: Indexer
  readonly #tenants = new Map<string, Tenant>()
  #maintenance: Promise<void> | null = null
  /** Not before all tenants are open: until then a graph would be built of what is still being read, and make it take longer. */
  #isOpen = false
  #closed = false

  constructor(options: IndexesOptions) {
    const { embedder, kept, log } = options
    this.#options = options
    this.#kept = kept
    this.#indexer = new Indexer({
      kept,
      dimensions: embedder.dimensions,
      log,
      place: (job, vectors) => this.#place(job, vectors),
      idle: () => this.#maintain(),
    })
  }

  /** Loads a tenant's index, fills the gaps from kept embeddings, and queues what has none. */
  async open(name: string, view: LiveView): Promise<void> {
    const revisions = [...view.ids()].flatMap((id) => view.revisions(id)).sort((a, b) => a.seq - b.seq)
    const graph = await this.#load(name, view, revisions)
    const { dimensions } = this.#options.embedder
    const tenant = { name, view, index: new TenantIndex(dimensions, this.#options, graph), changes: RECOUNT_CHANGES }
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
      const page = revisions.slice(from, from + LOAD_EDITS).map((revision) => jobOf(name, revision))
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

  async #load(name: string, view: LiveView, revisions: readonly Revision[]): Promise<Graph | null> {
    const { folder, log, moment, exactPoints } = this.#options
    const found = await loadGraph(folder, name, this.#expected(view), this.#options.graph)
    if (found instanceof Graph) return found
    let points = 0
    const now = moment()
    for (const revision of revisions) if (!view.isDormant(revision, now)) points += embedKeys(revision.edit).length
    if (hnswlib === null) {
      if (points > exactPoints)
        log.warn(
          { tenant: name, points },
          'hnswlib-node does not load here: every vector is scanned; npm rebuild with a C++ compiler mends it',
        )
      return null
    }
    // A tenant small enough to be scanned has no saved index to miss.
    if (found.reason !== 'missing' || points > exactPoints) {
      log.warn(
        { ...found, file: indexFile(folder, name), tenant: name },
        `the saved vector index is ${found.reason}; rebuilding it from kept embeddings`,
      )
    }
    return null
  }

  #expected(view: LiveView): Expected {
    const { embedder, logSeq } = this.#options
    const textsOf = (seq: number) => {
      const revision = view.revision(seq)
      return revision === undefined ? [] : embedKeys(revision.edit)
    }
    return { embedder: embedder.name, dimensions: embedder.dimensions, recipe: RECIPE, logSeq: logSeq(), textsOf }
  }

  #tenant(name: string, view: LiveView): Tenant {
    const known = this.#tenants.get(name)
    if (known !== undefined) return known
    const made = { name, view, index: new TenantIndex(this.#options.embedder.dimensions, this.#options), changes: 0 }
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
      added.map((revision) => jobOf(name, revision)),
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

  #maintain(): void {
    if (!this.#isOpen || this.#closed || this.#maintenance !== null) return
    this.#maintenance = this.#tidyAll().finally(() => {
      this.#maintenance = null
      // Points that came while an index was being written.
      if (!this.#indexer.busy && [...this.#tenants.values()].some((t) => t.index.unsettled)) this.#maintain()
    })
  }

  async #tidyAll(): Promise<void> {
    await yieldToLoop()
    for (const tenant of this.#tenants.values()) {
      await this.#recount(tenant)
      while (tenant.index.unsettled && !this.#closed) {
        tenant.index.settle(SETTLE_POINTS)
        if (this.#worthSaving(tenant)) await this.#save(tenant)
        await yieldToLoop()
      }
      if (this.#worthSaving(tenant) && !this.#closed) await this.#save(tenant)
    }
  }

  /** So that an import that is broken off has not all to build again, and a long one does not write without end. */
  #worthSaving({ index }: Tenant): boolean {
    return index.unsaved >= Math.max(SAVE_POINTS, SAVE_SHARE * (index.graph?.size ?? 0))
  }

  async #recount(tenant: Tenant): Promise<void> {
    const { folder, log, moment } = this.#options
    if (tenant.changes < Math.max(RECOUNT_CHANGES, (tenant.index.graph?.size ?? 0) / 8)) return
    tenant.changes = 0
    const dormant = (seq: number) => {
      const revision = tenant.view.revision(seq)
      return revision === undefined || tenant.view.isDormant(revision, moment())
    }
    if (!tenant.index.rebuildIfMostlyDead(dormant)) return
    log.info({ tenant: tenant.name }, 'most of the vector index was of edits no longer held; rebuilding it without them')
    const file = indexFile(folder, tenant.name)
    for (const old of [file, `${file}.json`]) await rm(old, { force: true })
  }

  async #save(tenant: Tenant): Promise<void> {
    const { folder, log } = this.#options
    const { index } = tenant
    if (index.graph === null) return
    const unsaved = index.unsaved
    try {
      await saveGraph(folder, tenant.name, index.graph, this.#expected(tenant.view))
      index.unsaved -= unsaved
    } catch (error) {
      log.warn(
        { err: error, tenant: tenant.name, file: indexFile(folder, tenant.name) },
        'the vector index could not be saved; it will be rebuilt at the next start',
      )
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#indexer.close()
    await this.#maintenance
    for (const tenant of this.#tenants.values()) if (tenant.index.unsaved > 0) await this.#save(tenant)
    await this.#kept.close()
  }
}

/** Its texts are made when they are first asked for: all those of a batch at once would hold up everybody. */
function jobOf(tenant: string, { seq, edit }: Revision): Job {
  let texts: readonly string[] | undefined
  return {
    tenant,
    seq,
    get texts() {
      texts ??= embedKeys(edit)
      return texts
    },
  }
}
