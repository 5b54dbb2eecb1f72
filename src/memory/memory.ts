import type { Edit } from '../edit/edit.ts'

/** What the log knows of an edit at a moment. */
export type EditState = 'live' | 'superseded' | 'withdrawn' | 'not_yet_valid' | 'expired'

/** An edit as held: its content, when it landed, and with which batch. */
export interface HeldEdit {
  readonly edit: Edit
  readonly batchId: string
  /** Log sequence number of the record that landed this revision; larger is later. */
  readonly seq: number
  /** Milliseconds since the epoch. */
  readonly landedAt: number
  readonly state: EditState
  /** Id of the edit that supersedes it, when state is `superseded`. */
  readonly supersededBy?: string
}

export type LogKind = 'add' | 'withdraw' | 'restore'

export interface LogRecord {
  readonly seq: number
  readonly at: number
  readonly kind: LogKind
  readonly editId: string
  readonly batchId: string
  readonly edit?: Edit
}

export interface LandOptions {
  /** Absent: the batch goes by its content. */
  readonly batchId?: string
  readonly source: string
  readonly tenant: string
  readonly dryRun: boolean
}

/** What landing one edit of a batch did, or would do under `dryRun`. */
export interface LandingResult {
  readonly index: number
  readonly id: string
  readonly outcome: 'added' | 'revised' | 'restored' | 'unchanged'
  readonly state: EditState
  /** Live edits on the same (subject, relation) that this one supersedes. */
  readonly supersedes: readonly string[]
  /** Index of an earlier edit of this batch with the same content. */
  readonly duplicateOf?: number
  /** Ids of other edits of this batch with the same (subject, relation) and another target: the last one wins. */
  readonly conflictsWith: readonly string[]
}

export interface Landing {
  readonly batchId: string
  readonly dryRun: boolean
  /** True when this very batch had landed before: nothing was changed. */
  readonly replayed: boolean
  /** The tenant's, once it has landed. */
  readonly version: number
  readonly results: readonly LandingResult[]
}

export interface ListFilter {
  readonly tenant: string
  readonly state?: EditState
  readonly tag?: string
  /** Only edits that are for the served model of this name. */
  readonly model?: string
  readonly batchId?: string
  readonly subject?: string
  /** Every word must occur in the subject, an alias, the prompt or the target; of "fran*", a word that begins so. */
  readonly text?: string
  readonly limit: number
  /** Opaque; from the previous page. */
  readonly cursor?: string
}

export interface Page {
  readonly edits: readonly HeldEdit[]
  readonly nextCursor: string | null
  readonly total: number
}

export interface BatchSummary {
  readonly id: string
  readonly tenant: string
  readonly at: number
  readonly source: string
  readonly edits: number
  readonly live: number
}

/** One edit the indexes offer for a text, before the gate. */
export interface VectorHit {
  readonly editId: string
  /** Cosine in [-1, 1]. */
  readonly similarity: number
}

export interface IndexStatus {
  readonly tenant: string
  readonly indexed: number
  readonly pending: number
}

/**
 * The edits of all tenants: append-only log, live view, and derived indexes. Landing is durable and visible to the very next
 * `subjectCandidates` call when `land` resolves; vectors of large batches follow in the background (`status`).
 */
export interface Memory {
  /** Position in the log of the tenant's last change that is applied here; 0 for none. */
  version(tenant: string): number
  land(edits: readonly Edit[], options: LandOptions): Promise<Landing>
  /** Problems instead of a throw: ids that do not exist. All or nothing. */
  withdraw(tenant: string, ids: readonly string[], source: string): Promise<readonly HeldEdit[]>
  restore(tenant: string, ids: readonly string[], source: string): Promise<readonly HeldEdit[]>
  withdrawBatch(tenant: string, batchId: string, source: string): Promise<readonly HeldEdit[]>
  /** Takes back the latest withdrawal within the batch; what had been withdrawn before that, by itself, stays so. */
  restoreBatch(tenant: string, batchId: string, source: string): Promise<readonly HeldEdit[]>
  get(tenant: string, id: string, at?: number): HeldEdit | undefined
  history(tenant: string, id: string): readonly LogRecord[]
  list(filter: ListFilter): Page
  batches(tenant: string): readonly BatchSummary[]
  /** State of an edit at a moment (default now), also for edits since withdrawn or superseded: what `as_of` asks. */
  heldAt(tenant: string, id: string, at: number): boolean
  status(): readonly IndexStatus[]
  close(): Promise<void>
}
