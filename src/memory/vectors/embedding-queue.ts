import { setTimeout as sleep, setImmediate as yieldToLoop } from 'node:timers/promises'
import { orAborted } from '../../engine/scheduling/or-aborted.ts'
import type { Logger } from '../../logger.ts'
import { vectorFault } from '../graph/vector.ts'
import type { Revision } from '../log/timeline.ts'
import type { KeptVectors } from './embedding-store.ts'
import { embedKeys } from './index-texts.ts'

/** An edit whose texts need vectors. Its texts are made when they are first asked for: all those of a batch at once would hold up everybody. */
export class Job {
  readonly tenant: string
  readonly #revision: Revision
  #texts: readonly string[] | undefined

  constructor(tenant: string, revision: Revision) {
    this.tenant = tenant
    this.#revision = revision
  }

  /** The record that landed it. */
  get seq(): number {
    return this.#revision.seq
  }

  get texts(): readonly string[] {
    this.#texts ??= embedKeys(this.#revision.edit)
    return this.#texts
  }
}

/**
 * `fresh`: small landings, embedded like a question. `bulk`: imports, in the gaps. `others`: what another node landed, and embeds; its vectors
 * are looked for. None waits for another.
 */
export type LaneName = 'fresh' | 'bulk' | 'others'

interface Lane {
  readonly priority: 'query' | 'import'
  readonly sliceEdits: number
  jobs: Job[]
  /** Jobs before this position are done: taking each slice off the front would move a long import's whole list each time. */
  next: number
  readonly pending: Set<number>
  running: Promise<void> | null
  /** Its last slice failed, and is to be tried again. */
  isFailing: boolean
}

interface Waiter {
  readonly version: number | undefined
  readonly resolve: () => void
}

/** Between two looks for vectors that another node makes, doubled while none come. */
const LOOK_MS = { first: 50, longest: 1_000 }
/** Silence after which this node makes them. */
const PATIENCE_MS = 5_000
/** A failed slice is tried again after this time, doubled at each further failure up to the second number. */
const RETRY_MS = { first: 500, longest: 60_000 }
/** An edit that fails this often by itself, while others succeed, is left without vectors until the next start. */
const ATTEMPTS = 3

export interface IndexerOptions {
  readonly kept: KeptVectors
  readonly dimensions: number
  /** Takes an edit's checked vectors. */
  readonly place: (job: Job, vectors: readonly Float32Array[]) => void
  /** Waited for before each slice of an import: resolves when the index takes more. */
  readonly room: (tenant: string) => Promise<void>
  /** Called whenever a lane has run empty. */
  readonly idle: () => void
  readonly log: Logger
}

/** Gives edits their vectors, from the table or the embedder, off the request path. */
export class Indexer {
  readonly #options: IndexerOptions
  readonly #lanes: Record<LaneName, Lane> = {
    fresh: { priority: 'query', sliceEdits: 8, jobs: [], next: 0, pending: new Set(), running: null, isFailing: false },
    bulk: { priority: 'import', sliceEdits: 16, jobs: [], next: 0, pending: new Set(), running: null, isFailing: false },
    others: { priority: 'import', sliceEdits: 128, jobs: [], next: 0, pending: new Set(), running: null, isFailing: false },
  }
  readonly #pendingOf = new Map<string, number>()
  readonly #failures = new Map<number, { count: number; successesBefore: number }>()
  readonly #stop = new AbortController()
  #waiters: Waiter[] = []
  #successes = 0

  constructor(options: IndexerOptions) {
    this.#options = options
  }

  enqueue(name: LaneName, jobs: readonly Job[]): void {
    const lane = this.#lanes[name]
    for (const job of jobs) {
      lane.jobs.push(job)
      lane.pending.add(job.seq)
      this.#pendingOf.set(job.tenant, this.pending(job.tenant) + 1)
    }
    if (jobs.length > 0) lane.running ??= name === 'others' ? this.#look(lane) : this.#run(lane)
  }

  /** Edits of a tenant that have no vectors yet. */
  pending(tenant: string): number {
    return this.#pendingOf.get(tenant) ?? 0
  }

  get busy(): boolean {
    return Object.values(this.#lanes).some((lane) => lane.pending.size > 0)
  }

  /**
   * Resolves when every small landing up to `version` has its vectors; without a version, when nothing is left to do. It also resolves
   * when the embedder fails (the log says so, `pending` still counts them): what has landed stays landed.
   */
  done(version?: number): Promise<void> {
    // It may have failed before the landing was answered.
    if (version !== undefined && this.#lanes.fresh.isFailing) return Promise.resolve()
    return new Promise((resolve) => {
      this.#waiters.push({ version, resolve })
      this.#release(false)
    })
  }

  #release(all: boolean): void {
    const fresh = [...this.#lanes.fresh.pending]
    const ready = ({ version }: Waiter) => all || (version === undefined ? !this.busy : fresh.every((seq) => seq > version))
    const released = this.#waiters.filter(ready)
    this.#waiters = this.#waiters.filter((waiter) => !released.includes(waiter))
    for (const waiter of released) waiter.resolve()
  }

  async #run(lane: Lane): Promise<void> {
    let waitMs = RETRY_MS.first
    // Not in the caller's turn: a landing returns before its embedding begins.
    await yieldToLoop()
    while (lane.next < lane.jobs.length && !this.#stop.signal.aborted) {
      const alone = this.#failures.has(lane.jobs[lane.next]?.seq ?? -1)
      const slice = lane.jobs.slice(lane.next, lane.next + (alone ? 1 : lane.sliceEdits))
      lane.next += slice.length
      if (lane.priority === 'import') await this.#options.room(slice[0]?.tenant ?? '')
      try {
        await this.#index(slice, lane)
        waitMs = RETRY_MS.first
        lane.isFailing = false
      } catch (error) {
        if (this.#stop.signal.aborted) break
        lane.isFailing = true
        this.#putBack(slice, lane, error)
        this.#release(true)
        await sleep(waitMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => undefined)
        waitMs = Math.min(2 * waitMs, RETRY_MS.longest)
      }
      this.#release(false)
      await yieldToLoop()
    }
    lane.jobs = []
    lane.next = 0
    lane.running = null
    this.#options.idle()
  }

  /** Takes vectors that another node has made. Where none come for a while, it is gone, and this one makes them. */
  async #look(lane: Lane): Promise<void> {
    const { signal } = this.#stop
    let waitMs = LOOK_MS.first
    let silentMs = 0
    while (lane.next < lane.jobs.length && !signal.aborted) {
      const slice = lane.jobs.slice(lane.next, lane.next + lane.sliceEdits)
      lane.next += slice.length
      const kept = await this.#options.kept.find(new Set(slice.flatMap(({ texts }) => texts)))
      const left = slice.filter((job) => !this.#placed(job, kept, lane))
      this.#release(false)
      if (left.length === slice.length) silentMs += waitMs
      else silentMs = 0
      if (silentMs > PATIENCE_MS) {
        this.#hand(left, lane)
        continue
      }
      if (left.length === 0) continue
      lane.next -= left.length
      lane.jobs.splice(lane.next, left.length, ...left)
      waitMs = silentMs === 0 ? LOOK_MS.first : Math.min(2 * waitMs, LOOK_MS.longest)
      await sleep(waitMs, undefined, { signal, ref: false }).catch(() => undefined)
    }
    lane.jobs = []
    lane.next = 0
    lane.running = null
    this.#options.idle()
  }

  #placed(job: Job, kept: ReadonlyMap<string, Float32Array>, lane: Lane): boolean {
    const own = job.texts.map((text) => kept.get(text))
    if (!own.every((vector) => vector !== undefined)) return false
    this.#options.place(job, own)
    this.#finish(job, lane)
    return true
  }

  #hand(jobs: readonly Job[], from: Lane): void {
    for (const job of jobs) this.#finish(job, from)
    this.enqueue('bulk', jobs)
  }

  /** Each failed edit is tried alone, after the others; one that is itself at fault is given up. */
  #putBack(slice: readonly Job[], lane: Lane, error: unknown): void {
    this.#options.log.error({ err: error, edits: slice.length }, 'embedding failed; it will be tried again')
    for (const job of slice) {
      const failure = this.#failures.get(job.seq) ?? { count: 0, successesBefore: this.#successes }
      failure.count++
      this.#failures.set(job.seq, failure)
      if (slice.length === 1 && failure.count >= ATTEMPTS && this.#successes > failure.successesBefore)
        this.#giveUp(job, lane, 'embedding failed')
      else lane.jobs.push(job)
    }
  }

  #giveUp(job: Job, lane: Lane, why: string): void {
    this.#options.log.error(
      { tenant: job.tenant, record: job.seq, why },
      'an edit stays out of the vector index; its subject still finds it',
    )
    this.#finish(job, lane)
  }

  #finish(job: Job, lane: Lane): void {
    this.#failures.delete(job.seq)
    if (!lane.pending.delete(job.seq)) return
    this.#pendingOf.set(job.tenant, this.pending(job.tenant) - 1)
  }

  async #index(slice: readonly Job[], lane: Lane): Promise<void> {
    const texts = new Set(slice.flatMap((job) => job.texts))
    const { signal } = this.#stop
    // Closing does not wait for an embedder that has no end.
    const vectors = await orAborted(this.#options.kept.embed(texts, lane.priority, signal), signal)
    for (const job of slice) {
      const own = job.texts.map((text) => vectors.get(text))
      const fault = own.map((vector) => vectorFault(vector, this.#options.dimensions)).find((f) => f !== null)
      if (fault !== undefined) {
        this.#giveUp(job, lane, `unusable vector: ${fault}`)
        continue
      }
      this.#options.place(job, own as Float32Array[])
      this.#successes++
      this.#finish(job, lane)
    }
  }

  /** Leaves the slice in hand; it and whatever is left is found missing, and made, at the next start. */
  async close(): Promise<void> {
    this.#stop.abort()
    await Promise.all(Object.values(this.#lanes).map((lane) => lane.running))
    this.#release(true)
  }
}
