import type { Edit } from '../edit/edit.ts'
import type { Embedder } from '../engine/engine.ts'
import type { Logger } from '../logger.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import { GRAPH_OPTIONS, type GraphOptions } from './graph/graph-library.ts'
import type { FeedStatus } from './log/feed.ts'
import type { HeldEdit, Memory, VectorHit } from './memory.ts'

/** One landed change; `added` holds the edits whose content is new (none for a withdrawal or restoration). */
export interface Change {
  readonly tenant: string
  readonly added: readonly HeldEdit[]
  /** The tenant's. */
  readonly version: number
}

/** An edit that the log holds, and that a change to come will add. */
export interface Coming {
  readonly tenant: string
  readonly edit: Edit
}

/** What reading an edit file again did: ids by outcome. */
export interface SyncResult {
  readonly added: readonly string[]
  readonly revised: readonly string[]
  readonly withdrawn: readonly string[]
  readonly restored: readonly string[]
  readonly unchanged: number
}

export interface MemoryLimits {
  /** Up to this many vectors of a tenant are scanned exactly; beyond, a graph is built. */
  readonly exactPoints: number
  /** Landings of up to this many edits are embedded at once, ahead of imports. */
  readonly promptEdits: number
  readonly graph: GraphOptions
}

export const MEMORY_LIMITS: MemoryLimits = { exactPoints: 2_000, promptEdits: 64, graph: GRAPH_OPTIONS }

export interface MemoryOptions {
  /** Created if need be; held exclusively until `close`, unless there is a `database`. */
  readonly dataDir: string
  /** Where the log and the embeddings are instead, shared with other nodes; the folder then only keeps saved indexes. Stays open at `close`. */
  readonly database?: SqlDatabase
  readonly embedder: Embedder
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly limits?: Partial<MemoryLimits>
  readonly log: Logger
}

/** The memory of one data folder or database, with what its neighbours need beyond the contract. */
export interface MemoryStore extends Memory {
  /** Now, but never before the latest record, should the clock have been set back. */
  moment(): number
  /** Makes the memory hold what an edit file says; `source` is the file. All of it, or nothing and a throw. Each edit names its tenant. */
  sync(source: string, edits: readonly Edit[]): Promise<SyncResult>
  /** Edit files of which edits are held, to be synced with [] when the file is gone. */
  sources(): string[]
  /** How far this node has followed the log, and whether it can. */
  feed(): FeedStatus
  /** Waits up to `ms` until the log is applied here up to `version`; false where it is not by then. */
  reached(version: number, ms: number): Promise<boolean>
  /** Called with each edit before the change that adds it is applied here, between turns of the event loop: what can be done of it by then is. */
  onComing(listener: (coming: Coming) => void): void
  /** Called after each change applied here, before `land` resolves. Returns the way to unsubscribe. */
  onChange(listener: (change: Change) => void): () => void
  /** Every edit ever landed in its newest content, whatever its state. */
  all(tenant: string): readonly HeldEdit[]
  tenants(): string[]
  /** The `k` edits live at `at` (default now) most similar to a unit vector, most similar first. */
  search(tenant: string, vector: Float32Array, k: number, at?: number): VectorHit[]
  /** As `search`, looking at every vector. */
  exactSearch(tenant: string, vector: Float32Array, k: number, at?: number): VectorHit[]
  /**
   * With a version: resolves when small landings up to it are in the vector index. Without: when nothing is left to embed, build or save.
   * Resolves also when embedding fails, which the log tells and `status` shows.
   */
  indexed(version?: number): Promise<void>
  /** The vectors of the edit that this record landed, one for each of its `embedKeys`; none where they are not in the vector index yet. */
  vectorsOf(tenant: string, seq: number): readonly Float32Array[]
  /** Tells others on this machine where this process serves (see `holder`); nobody where the folder is not held. */
  setUrl(url: string): void
}
