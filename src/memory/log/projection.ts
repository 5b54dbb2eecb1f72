import { createHash } from 'node:crypto'
import type { Edit } from '../../edit/edit.ts'
import type { HeldEdit, LogKind } from '../memory.ts'
import type { Batch, BatchKind, Entry, LogPage, Position, TenantRecord } from './edit-log.ts'
import { LiveView } from './timeline.ts'

/** A record still without its number. */
export interface Draft {
  readonly kind: LogKind
  readonly editId: string
  readonly edit?: Edit
}

const NO_BATCHES: ReadonlyMap<string, Batch> = new Map()

/** What the log amounts to, as far as it has been applied: a view and the batches of each tenant. */
export class Records {
  readonly #now: () => number
  readonly #views = new Map<string, LiveView>()
  readonly #batches = new Map<string, Map<string, Batch>>()
  readonly #versions = new Map<string, number>()
  #position: Position = { seq: 0, batches: 0 }
  #lastAt = Number.NEGATIVE_INFINITY

  /** `now`: milliseconds since the epoch. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Behind the last batch applied. */
  get position(): Position {
    return this.#position
  }

  /** The last record applied. */
  get seq(): number {
    return this.#position.seq
  }

  /** The tenant's last record applied; 0 where there is none. */
  version(tenant: string): number {
    return this.#versions.get(tenant) ?? 0
  }

  /** Now, but never before the latest record, should the clock have been set back. */
  now(): number {
    return Math.max(this.#now(), this.#lastAt)
  }

  /** A moment as asked; "now" by the clock means now by the log. */
  moment(at: number | undefined): number {
    return at === undefined || at >= this.#now() ? Math.max(at ?? 0, this.now()) : at
  }

  /** An empty view for a tenant of whom nothing is recorded. */
  view(tenant: string): LiveView {
    return this.#views.get(tenant) ?? new LiveView()
  }

  tenants(): string[] {
    return [...this.#views.keys()]
  }

  batches(tenant: string): ReadonlyMap<string, Batch> {
    return this.#batches.get(tenant) ?? NO_BATCHES
  }

  /** Edits as held now, in the order of `ids`; unknown ones left out. */
  held(tenant: string, ids: Iterable<string>): HeldEdit[] {
    const at = this.now()
    const view = this.view(tenant)
    return Array.from(ids, (id) => view.held(id, at)).filter((held) => held !== undefined)
  }

  /** A batch under an id of our own. */
  batch(tenant: string, kind: BatchKind, source: string, edits: number): Batch {
    const id = createHash('sha256').update(`${kind} ${this.seq} ${tenant} ${source}`).digest('hex').slice(0, 16)
    return { id: `${kind}_${id}`, tenant, at: this.now(), source, kind, edits, digest: '' }
  }

  /** Numbers the records; `before` others come first in the same transaction. */
  entry(batch: Batch, drafts: readonly Draft[], before = 0): Entry {
    const { tenant, at, id: batchId } = batch
    const first = this.seq + before + 1
    return { batch, records: drafts.map((draft, i) => ({ seq: first + i, at, tenant, batchId, ...draft })) }
  }

  /** Takes the page's batches that it had not taken before; returns those. */
  apply({ entries, position }: LogPage): readonly Entry[] {
    const last = this.#position.batches
    const fresh = entries.slice(Math.max(0, last - (position.batches - entries.length)))
    for (const { batch, records, keys } of fresh) {
      this.#noteBatch(batch)
      for (const [i, record] of records.entries()) this.#apply(record, keys?.[i])
    }
    if (position.batches > last) this.#position = position
    return fresh
  }

  #noteBatch(batch: Batch): void {
    const batches = this.#batches.get(batch.tenant) ?? new Map<string, Batch>()
    this.#batches.set(batch.tenant, batches.set(batch.id, batch))
  }

  #apply(record: TenantRecord, key?: string): void {
    const view = this.view(record.tenant)
    view.apply(record, key)
    this.#views.set(record.tenant, view)
    this.#versions.set(record.tenant, record.seq)
    this.#lastAt = Math.max(this.#lastAt, record.at)
  }
}
