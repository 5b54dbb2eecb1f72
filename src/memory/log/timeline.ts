import type { Edit } from '../../edit/edit.ts'
import { supersessionKey } from '../../edit/relation.ts'
import type { EditState, HeldEdit, LogRecord } from '../memory.ts'
import { inSlices } from '../slices.ts'

/** One content of an edit: an `add` record, seen from the live view. */
export interface Revision {
  readonly seq: number
  readonly at: number
  readonly batchId: string
  readonly edit: Edit
  /** Equal for edits of which the later supersedes the earlier. */
  readonly key: string
}

interface Entry {
  readonly records: LogRecord[]
  readonly revisions: Revision[]
}

interface Verdict {
  readonly revision: Revision
  readonly state: EditState
  readonly supersededBy?: string
}

/** Edits whose every field but the id is equal have equal content. */
export function contentOf(edit: Edit): string {
  const { subject, aliases, prompt, targetNew, targetTrue, relation, paraphrases, tags, tenant, models } = edit
  const { kind, always, examples, counterexamples } = edit
  const may = [targetTrue, relation, edit.validFrom, edit.validTo, edit.source].map((v) => v ?? null)
  // What came later last and only where given: the digests of batches that landed before there was any stay as they are.
  const later = [...(models === undefined ? [] : [models]), { kind, always, examples, counterexamples }]
  const isFact = kind === undefined && examples === undefined && counterexamples === undefined
  const said = [tenant, subject, prompt, targetNew, aliases, paraphrases, tags, may]
  return JSON.stringify([...said, ...(isFact ? later.slice(0, -1) : later)])
}

/** When a revision's statement begins to be true. */
function start(revision: Revision): number {
  return revision.edit.validFrom ?? revision.at
}

/**
 * What one tenant's log amounts to, at any moment. Nothing is ever removed from it: being held is a question asked of the records.
 *
 * A revision is held at moment D when it is the newest that had landed by then (before the first landing: the newest of all, which its
 * `validFrom` may date back), D lies in [validFrom ?? landing, validTo), the edit is not withdrawn at D, and no later record of the same
 * supersession key meets these same conditions at D.
 */
export class LiveView {
  readonly #entries = new Map<string, Entry>()
  readonly #byKey = new Map<string, Revision[]>()
  readonly #bySeq = new Map<number, Revision>()
  /** Supersession keys under which records came or went; undefined until someone watches. */
  #touched: Set<string> | undefined
  /** What is live of a key by all records, until it is asked for another time. */
  readonly #live = new Map<string, Live>()
  #lastAt = Number.NEGATIVE_INFINITY

  get size(): number {
    return this.#entries.size
  }

  /** Records must come in the order of the log. `key`: the edit's supersession key, where it is known already. */
  apply(record: LogRecord, key?: string): void {
    const revisions = record.edit === undefined ? [] : [this.#revision(record, record.edit, key)]
    const known = this.#entries.get(record.editId)
    // Lists of one, not empty ones pushed to: those get room for seventeen.
    const entry = known ?? { records: [record], revisions }
    if (known === undefined) this.#entries.set(record.editId, entry)
    else {
      known.records.push(record)
      known.revisions.push(...revisions)
    }
    this.#lastAt = Math.max(this.#lastAt, record.at)
    this.#touch(entry)
  }

  #revision({ seq, at, batchId }: LogRecord, edit: Edit, key = supersessionKey(edit)): Revision {
    const revision = { seq, at, batchId, edit, key }
    this.#bySeq.set(seq, revision)
    const group = this.#byKey.get(revision.key)
    if (group === undefined) this.#byKey.set(revision.key, [revision])
    else group.push(revision)
    return revision
  }

  /**
   * A view of its own of these edits and of all that share a key with one of them, by the records up to `last`: they never change, so what is
   * applied meanwhile, to this view or to that, is not seen in the other.
   */
  async excerpt(stated: readonly { readonly edit: Edit; readonly key: string }[], last: number): Promise<LiveView> {
    const ids = new Set<string>()
    const keys = new Set<string>()
    const note = (key: string) => {
      if (!keys.has(key)) for (const other of this.sharing(key)) ids.add(other)
      keys.add(key)
    }
    const own = new Set<string>()
    await inSlices(stated, ({ edit: { id }, key }) => {
      note(key)
      if (own.has(id)) return
      own.add(id)
      ids.add(id)
      for (const revision of this.revisions(id)) note(revision.key)
    })
    const records = (await inSlices(ids, (id) => this.history(id).filter(({ seq }) => seq <= last))).flat()
    const view = new LiveView()
    await inSlices(
      records.sort((a, b) => a.seq - b.seq),
      (record) => view.apply(record, this.#bySeq.get(record.seq)?.key),
    )
    return view
  }

  /** The set into which go, from now on, the keys of all edits whose state a record may have changed; the watcher empties it. */
  watch(): Set<string> {
    this.#touched ??= new Set()
    return this.#touched
  }

  /** Of an edit's revisions only the last was in force, and only the one before it may be again. */
  #touch({ revisions }: Entry): void {
    for (const { key } of revisions.slice(-2)) {
      this.#live.delete(key)
      this.#touched?.add(key)
    }
  }

  /** Ids of the edits of which a revision has this key. */
  *sharing(key: string): Generator<string> {
    for (const { edit } of this.#byKey.get(key) ?? []) yield edit.id
  }

  ids(): IterableIterator<string> {
    return this.#entries.keys()
  }

  revisions(id: string): readonly Revision[] {
    return this.#entries.get(id)?.revisions ?? []
  }

  revision(seq: number): Revision | undefined {
    return this.#bySeq.get(seq)
  }

  newest(id: string): Revision | undefined {
    return this.#entries.get(id)?.revisions.at(-1)
  }

  history(id: string): readonly LogRecord[] {
    return this.#entries.get(id)?.records ?? []
  }

  /** The record that withdrew the edit, while it is withdrawn by everything logged so far. */
  withdrawal(id: string): LogRecord | undefined {
    const last = this.#entries.get(id)?.records.at(-1)
    return last?.kind === 'withdraw' ? last : undefined
  }

  /** The edit as held, or as refused, at moment `at`; undefined where nothing was known of it then. */
  held(id: string, at: number): HeldEdit | undefined {
    const entry = this.#entries.get(id)
    const verdict = entry && this.#judge(entry, at, Number.POSITIVE_INFINITY)
    if (verdict === undefined) return undefined
    const { revision, ...rest } = verdict
    return { edit: revision.edit, batchId: revision.batchId, seq: revision.seq, landedAt: revision.at, ...rest }
  }

  /** Whether exactly this revision is live at `at`. */
  isLive(revision: Revision, at: number): boolean {
    return (
      this.#openAt(revision, at, Number.POSITIVE_INFINITY) &&
      this.#superseder(revision, at, Number.POSITIVE_INFINITY) === undefined
    )
  }

  /** The edit that was live on `revision`'s key just before it landed and gave way to it then; undefined where there was none. */
  supersededAtLanding(revision: Revision): string | undefined {
    const { at, seq } = revision
    if (!this.#openAt(revision, at, seq + 1)) return undefined
    const earlier = this.#liveOf(revision.key, at, seq, Number.NEGATIVE_INFINITY)
    return earlier?.edit.id === revision.edit.id ? undefined : earlier?.edit.id
  }

  /** True when no passing of time, only a further record, can make the revision live: search for the present may leave it out. */
  isDormant(revision: Revision, now: number): boolean {
    const { id, validTo } = revision.edit
    if (this.newest(id) !== revision || this.withdrawal(id) !== undefined) return true
    if (validTo !== undefined && validTo <= now) return true
    const later = this.#liveOf(revision.key, now, Number.POSITIVE_INFINITY, revision.seq)
    return later !== undefined && later.edit.validTo === undefined
  }

  /** Revisions that share a supersession key with any revision of these edits, their own included, each once. */
  *akin(ids: Iterable<string>): Generator<Revision> {
    const keys = new Set<string>()
    for (const id of new Set(ids)) for (const { key } of this.revisions(id)) keys.add(key)
    for (const key of keys) yield* this.#byKey.get(key) ?? []
  }

  #judge(entry: Entry, at: number, before: number): Verdict | undefined {
    const revision = this.#inForce(entry, at, before)
    if (revision === undefined) return undefined
    const state = this.#ownState(entry, revision, at, before)
    if (state !== 'live') return { revision, state }
    const superseder = this.#superseder(revision, at, before)
    return superseder === undefined ? { revision, state } : { revision, state: 'superseded', supersededBy: superseder.edit.id }
  }

  /** The content that stood for the edit at `at`, by the records before sequence number `before`. */
  #inForce(entry: Entry, at: number, before: number): Revision | undefined {
    const { revisions } = entry
    const landed = lastOf(revisions, (one) => one.seq < before && one.at <= at)
    if (landed !== undefined) return landed
    const newest = lastOf(revisions, ({ seq }) => seq < before)
    return newest !== undefined && start(newest) <= at ? newest : undefined
  }

  /** The revision's state with supersession left aside. */
  #ownState(entry: Entry, revision: Revision, at: number, before: number): Exclude<EditState, 'superseded'> {
    if (lastOf(entry.records, (one) => one.seq < before && one.at <= at)?.kind === 'withdraw') return 'withdrawn'
    if (at < start(revision)) return 'not_yet_valid'
    return revision.edit.validTo !== undefined && at >= revision.edit.validTo ? 'expired' : 'live'
  }

  #openAt(revision: Revision, at: number, before: number): boolean {
    const entry = this.#entries.get(revision.edit.id)
    if (entry === undefined || this.#inForce(entry, at, before) !== revision) return false
    return this.#ownState(entry, revision, at, before) === 'live'
  }

  #superseder(revision: Revision, at: number, before: number): Revision | undefined {
    return this.#liveOf(revision.key, at, before, revision.seq)
  }

  /** The one revision of a key that is live at `at`, among records after `after` and before `before`: the latest that is open. */
  #liveOf(key: string, at: number, before: number, after: number): Revision | undefined {
    if (before === Number.POSITIVE_INFINITY) {
      const { revision } = this.#liveNow(key, at)
      return revision !== undefined && revision.seq > after ? revision : undefined
    }
    const group = this.#byKey.get(key) ?? []
    for (let i = countOf(group, ({ seq }) => seq < before) - 1; i >= 0; i--) {
      const revision = group[i]
      if (revision === undefined || revision.seq <= after) return undefined
      if (this.#openAt(revision, at, before)) return revision
    }
    return undefined
  }

  /** By all records. Kept, since each of the edits of a key asks. */
  #liveNow(key: string, at: number): Live {
    const known = this.#live.get(key)
    if (known !== undefined && known.at <= at && (at < known.until || at === known.at)) return known
    const group = this.#byKey.get(key) ?? []
    let until = at < this.#lastAt ? at : Number.POSITIVE_INFINITY
    let open: Revision | undefined
    for (let i = group.length - 1; i >= 0 && open === undefined; i--) {
      const revision = group[i]
      if (revision === undefined) break
      if (this.#openAt(revision, at, Number.POSITIVE_INFINITY)) open = revision
      const turns = [start(revision), open?.edit.validTo ?? Number.NEGATIVE_INFINITY]
      for (const turn of turns) if (turn > at) until = Math.min(until, turn)
    }
    const live: Live = { revision: open, at, until }
    this.#live.set(key, live)
    return live
  }
}

interface Live {
  /** Undefined: none is. */
  readonly revision: Revision | undefined
  /** It holds from `at` up to `until`, or at that moment alone where the two are equal. */
  readonly at: number
  readonly until: number
}

/** How many fit, of those in the log's order, whose numbers and times rise: the first so many. */
function countOf<One>(all: readonly One[], fits: (one: One) => boolean): number {
  let [low, high] = [0, all.length]
  const last = all[high - 1]
  if (last === undefined || fits(last)) return high
  while (low < high) {
    const middle = (low + high) >> 1
    if (fits(all[middle] as One)) low = middle + 1
    else high = middle
  }
  return low
}

function lastOf<One>(all: readonly One[], fits: (one: One) => boolean): One | undefined {
  return all[countOf(all, fits) - 1]
}
