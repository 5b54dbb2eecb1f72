import { join } from 'node:path'
import type { Edit } from '../edit/edit.ts'
import { PalimpsestError } from '../errors.ts'
import { planSync } from './files/file-diff.ts'
import { type Holding, hold } from './holding.ts'
import { Listeners } from './listeners.ts'
import { EditLog, type Entry, type LogPage } from './log/edit-log.ts'
import { Feed, type FeedStatus, type Plan, type Planned } from './log/feed.ts'
import { assertLandable, idByContent, landingResults, newContents, type Stated, stated } from './log/landing.ts'
import { type Draft, Records } from './log/projection.ts'
import { latestFirst, listEdits } from './log/query.ts'
import type { LiveView } from './log/timeline.ts'
import type {
  BatchSummary,
  HeldEdit,
  IndexStatus,
  Landing,
  LandOptions,
  ListFilter,
  LogRecord,
  Page,
  VectorHit,
} from './memory.ts'
import {
  type Change,
  type Coming,
  MEMORY_LIMITS,
  type MemoryLimits,
  type MemoryOptions,
  type MemoryStore,
  type SyncResult,
} from './memory-store.ts'
import { noSuchEdits, otherBatch } from './refusals.ts'
import { inSlices } from './slices.ts'
import { KeptVectors } from './vectors/embedding-store.ts'
import { Indexes } from './vectors/vector-indexes.ts'

/** Opens the memory in `database`, else in `dataDir`. Throws `folder_in_use`, `storage_failed`, `storage_full`, `storage_unavailable`. */
export async function openMemory(options: MemoryOptions): Promise<MemoryStore> {
  const holding = hold(options)
  let kept: KeptVectors | undefined
  let store: Store | undefined
  try {
    const log = await EditLog.open(holding.database)
    kept = await KeptVectors.open({ ...options, folder: indexFolder(options), shared: options.database })
    store = new Store(options, log, kept, holding)
    await store.load()
    return store
  } catch (error) {
    if (store !== undefined) await store.close()
    else {
      await kept?.close()
      await holding.release()
    }
    throw error
  }
}

const indexFolder = ({ dataDir }: MemoryOptions) => join(dataDir, 'index')

class Store implements MemoryStore {
  readonly #records: Records
  readonly #feed: Feed
  readonly #limits: MemoryLimits
  readonly #indexes: Indexes
  readonly #holding: Holding
  readonly #listeners: Listeners<Change>
  readonly #heralds: Listeners<Coming>
  /** What each edit file said when it was last read, as tenant and id. */
  readonly #said = new Map<string, Set<string>>()
  #isLoaded = false
  #closing: Promise<void> | null = null

  constructor(options: MemoryOptions, log: EditLog, kept: KeptVectors, holding: Holding) {
    this.#holding = holding
    this.#listeners = new Listeners(options.log)
    this.#heralds = new Listeners(options.log)
    this.#limits = { ...MEMORY_LIMITS, ...options.limits }
    const records = new Records(options.now)
    this.#records = records
    this.#feed = new Feed({
      log,
      applied: () => records.position,
      apply: (page, isOwn) => this.#apply(page, isOwn),
      announce: (page) => this.#announce(page),
      now: options.now,
      say: options.log,
    })
    this.#indexes = new Indexes({
      ...this.#limits,
      folder: indexFolder(options),
      kept,
      embedder: options.embedder,
      log: options.log,
      moment: () => records.now(),
      logSeq: () => records.seq,
    })
  }

  async load(): Promise<void> {
    await this.#feed.catchUp()
    for (const tenant of this.tenants()) {
      const view = this.#records.view(tenant)
      await this.#indexes.open(tenant, view)
      // So that nobody waits for the first list: of 100,000 edits it takes a third of a second.
      latestFirst(view, this.moment())
    }
    this.#indexes.opened()
    this.#isLoaded = true
    this.#feed.follow()
  }

  version(tenant: string): number {
    return this.#records.version(tenant)
  }

  feed(): FeedStatus {
    return this.#feed.status
  }

  reached(version: number, ms: number): Promise<boolean> {
    return this.#feed.reached(version, ms)
  }

  moment(): number {
    return this.#records.now()
  }

  /** What a listener can do beforehand, it does in slices; the change itself is visible at once. */
  async #announce({ entries }: LogPage): Promise<void> {
    if (!this.#isLoaded) return
    for (const { batch, records } of entries)
      await inSlices(records, ({ edit }) => {
        if (edit !== undefined) this.#heralds.tell({ tenant: batch.tenant, edit })
      })
  }

  /** In the log already; now visible, then told. */
  #apply(page: LogPage, isOwn: (entry: Entry) => boolean): void {
    const fresh = this.#records.apply(page)
    if (this.#isLoaded) for (const entry of fresh) if (entry.records.length > 0) this.#tell(entry, isOwn(entry))
  }

  #tell({ batch: { tenant }, records }: Entry, isOwn: boolean): void {
    const view = this.#records.view(tenant)
    const added = records.map((r) => view.revision(r.seq)).filter((r) => r !== undefined)
    const lane = !isOwn ? 'others' : added.length <= this.#limits.promptEdits ? 'fresh' : 'bulk'
    const ids = records.map((r) => r.editId)
    this.#indexes.changed(tenant, view, added, ids, lane)
    this.#listeners.tell({
      tenant,
      version: this.version(tenant),
      added: this.#records.held(tenant, new Set(added.map((r) => r.edit.id))),
    })
  }

  #assertOpen(): void {
    if (this.#closing !== null)
      throw new PalimpsestError('shutting_down', 'The memory is being closed. Send the request again once the server is back.')
  }

  /** In this node's turn, once all that was written before is applied. Throws storage errors. */
  async #write<Answer>(plan: Plan<Answer>): Promise<Answer> {
    this.#assertOpen()
    return this.#feed.append(plan)
  }

  async land(edits: readonly Edit[], options: LandOptions): Promise<Landing> {
    const { tenant, dryRun } = options
    this.#assertOpen()
    assertLandable(edits, tenant)
    const { batch, digest } = await stated(edits)
    if (dryRun) {
      const last = this.#records.seq
      const view = await this.#records.view(tenant).excerpt(batch, last)
      const { entries, answer } = await this.#plan(batch, digest, options, view)
      for (const { records, keys } of entries) await inSlices(records, (record, i) => view.apply(record, keys[i]))
      return answer(view)
    }
    return this.#write(async () => {
      const { entries, answer } = await this.#plan(batch, digest, options, this.#records.view(tenant))
      return { entries, answer: () => answer(this.#records.view(tenant)) }
    })
  }

  /** What landing the batch writes over `view`, and what it did, asked of a view in which that is applied. */
  async #plan(batch: readonly Stated[], digest: string, { batchId, source, tenant, dryRun }: LandOptions, view: LiveView) {
    const at = this.moment()
    const batches = this.#records.batches(tenant)
    const id = batchId ?? (await idByContent(view, batches, batch, digest))
    const known = batches.get(id)
    if (known !== undefined && known.digest !== digest) throw otherBatch(id, known)
    const answer = async (landed: LiveView): Promise<Landing> => {
      const version = this.version(tenant)
      const results = await landingResults(landed, batch, id, at)
      return { batchId: id, dryRun, replayed: known !== undefined, version, results }
    }
    if (known !== undefined) return { entries: [], answer }
    const fresh = await newContents(view, batch)
    const drafts = fresh.map(({ edit }): Draft => ({ kind: 'add', editId: edit.id, edit }))
    const about = { id, tenant, at, source, kind: 'add', edits: batch.length, digest } as const
    const entry = { ...this.#records.entry(about, drafts), keys: fresh.map(({ key }) => key) }
    return { entries: [entry], answer }
  }

  withdraw(tenant: string, ids: readonly string[], source: string): Promise<readonly HeldEdit[]> {
    return this.#toggle(tenant, () => ids, source, 'withdraw')
  }

  restore(tenant: string, ids: readonly string[], source: string): Promise<readonly HeldEdit[]> {
    return this.#toggle(tenant, () => ids, source, 'restore')
  }

  #toggle(tenant: string, ids: () => readonly string[], source: string, kind: 'withdraw' | 'restore') {
    return this.#write((): Planned<readonly HeldEdit[]> => {
      const unique = [...new Set(ids())]
      const view = this.#records.view(tenant)
      const unknown = unique.filter((id) => view.newest(id) === undefined)
      if (unknown.length > 0) throw noSuchEdits(unknown)
      const drafts = unique
        .filter((id) => (view.withdrawal(id) === undefined) === (kind === 'withdraw'))
        .map((editId): Draft => ({ kind, editId }))
      const entry = this.#records.entry(this.#records.batch(tenant, kind, source, drafts.length), drafts)
      return { entries: drafts.length > 0 ? [entry] : [], answer: () => this.#records.held(tenant, unique) }
    })
  }

  withdrawBatch(tenant: string, batchId: string, source: string): Promise<readonly HeldEdit[]> {
    return this.#toggle(tenant, () => this.#idsOf(tenant, batchId), source, 'withdraw')
  }

  restoreBatch(tenant: string, batchId: string, source: string): Promise<readonly HeldEdit[]> {
    return this.#toggle(tenant, () => this.#withdrawnTogether(tenant, batchId), source, 'restore')
  }

  /** Edits of the batch that its latest withdrawal withdrew. */
  #withdrawnTogether(tenant: string, batchId: string): string[] {
    const view = this.#records.view(tenant)
    const withdrawn = this.#idsOf(tenant, batchId).flatMap((id) => view.withdrawal(id) ?? [])
    const latest = withdrawn.reduce(
      (last, record) => (record.seq > last.seq ? record : last),
      withdrawn[0] ?? { seq: 0, batchId: '' },
    )
    return withdrawn.filter((record) => record.batchId === latest.batchId).map(({ editId }) => editId)
  }

  /** Edits whose newest content came with the batch. */
  #idsOf(tenant: string, batchId: string): string[] {
    if (!this.#records.batches(tenant).has(batchId)) {
      throw new PalimpsestError('batch_not_found', `There is no batch "${batchId}". List the batches to see their ids.`, {
        param: 'batch',
      })
    }
    const view = this.#records.view(tenant)
    return [...view.ids()].filter((id) => view.newest(id)?.batchId === batchId)
  }

  async sync(source: string, edits: readonly Edit[]): Promise<SyncResult> {
    return this.#write((): Planned<SyncResult> => {
      const byTenant = new Map<string, Edit[]>(this.tenants().map((tenant) => [tenant, []]))
      for (const edit of edits)
        byTenant
          .set(edit.tenant, byTenant.get(edit.tenant) ?? [])
          .get(edit.tenant)
          ?.push(edit)
      const plans = Array.from(byTenant, ([tenant, own]) => this.#planSync(source, tenant, own))
      const entries: Entry[] = []
      let before = 0
      for (const { tenant, drafts } of plans) {
        if (drafts.length > 0)
          entries.push(this.#records.entry(this.#records.batch(tenant, 'sync', source, drafts.length), drafts, before))
        before += drafts.length
      }
      const answer = () => {
        this.#said.set(source, new Set(edits.map((edit) => saidKey(edit.tenant, edit.id))))
        return {
          added: plans.flatMap((p) => p.added),
          revised: plans.flatMap((p) => p.revised),
          withdrawn: plans.flatMap((p) => p.withdraw),
          restored: plans.flatMap((p) => p.restore),
          unchanged: plans.reduce((sum, p) => sum + p.unchanged, 0),
        }
      }
      return { entries, answer }
    })
  }

  #planSync(source: string, tenant: string, edits: readonly Edit[]) {
    assertLandable(edits, tenant)
    const view = this.#records.view(tenant)
    const before = this.#said.get(source)
    const others = [...this.#said].filter(([file]) => file !== source).map(([, said]) => said)
    const plan = planSync({ view, batchOf: (id) => this.#records.batches(tenant).get(id) }, source, edits, {
      before: (id) => before?.has(saidKey(tenant, id)) ?? false,
      elsewhere: (id) => others.some((said) => said.has(saidKey(tenant, id))),
    })
    const ids = plan.add.map((edit) => edit.id)
    const isNew = (id: string) => view.newest(id) === undefined
    // Withdrawals first: what comes instead of a vanished edit then supersedes nothing.
    const drafts: Draft[] = [
      ...plan.withdraw.map((editId): Draft => ({ kind: 'withdraw', editId })),
      ...plan.restore.map((editId): Draft => ({ kind: 'restore', editId })),
      ...plan.add.map((edit): Draft => ({ kind: 'add', editId: edit.id, edit })),
    ]
    return { tenant, ...plan, drafts, added: ids.filter(isNew), revised: ids.filter((id) => !isNew(id)) }
  }

  sources(): string[] {
    const out = new Set<string>()
    for (const tenant of this.tenants()) {
      const view = this.#records.view(tenant)
      const batches = this.#records.batches(tenant)
      for (const id of view.ids()) {
        const batch = batches.get(view.newest(id)?.batchId ?? '')
        if (batch?.kind === 'sync' && view.withdrawal(id) === undefined) out.add(batch.source)
      }
    }
    return [...out]
  }

  get(tenant: string, id: string, at?: number): HeldEdit | undefined {
    return this.#records.view(tenant).held(id, this.#records.moment(at))
  }

  heldAt(tenant: string, id: string, at: number): boolean {
    return this.get(tenant, id, at)?.state === 'live'
  }

  history(tenant: string, id: string): readonly LogRecord[] {
    return this.#records.view(tenant).history(id)
  }

  list(filter: ListFilter): Page {
    return listEdits(this.#records.view(filter.tenant), filter, this.moment())
  }

  batches(tenant: string): readonly BatchSummary[] {
    const live = new Map<string, number>()
    for (const { state, batchId } of latestFirst(this.#records.view(tenant), this.moment()))
      if (state === 'live') live.set(batchId, (live.get(batchId) ?? 0) + 1)
    const landed = [...this.#records.batches(tenant).values()].filter((b) => b.kind === 'add' || b.kind === 'sync')
    return landed.map(({ id, at, source, edits }) => ({ id, tenant, at, source, edits, live: live.get(id) ?? 0 }))
  }

  onComing(listener: (coming: Coming) => void): void {
    this.#heralds.add(listener)
  }

  onChange(listener: (change: Change) => void): () => void {
    return this.#listeners.add(listener)
  }

  all(tenant: string): readonly HeldEdit[] {
    return this.#records.held(tenant, this.#records.view(tenant).ids())
  }

  tenants(): string[] {
    return this.#records.tenants()
  }

  search(tenant: string, vector: Float32Array, k: number, at?: number): VectorHit[] {
    return this.#indexes.search(tenant, vector, k, this.#records.moment(at), false)
  }

  exactSearch(tenant: string, vector: Float32Array, k: number, at?: number): VectorHit[] {
    return this.#indexes.search(tenant, vector, k, this.#records.moment(at), true)
  }

  vectorsOf(tenant: string, seq: number): readonly Float32Array[] {
    return this.#indexes.vectorsOf(tenant, seq)
  }

  indexed(version?: number): Promise<void> {
    return this.#indexes.indexed(version)
  }

  status(): readonly IndexStatus[] {
    return this.#indexes.status()
  }

  setUrl(url: string): void {
    this.#holding.setUrl(url)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    await this.#feed.close()
    await this.#indexes.close()
    await this.#holding.release()
  }
}

function saidKey(tenant: string, id: string): string {
  return `${tenant}\u0000${id}`
}
