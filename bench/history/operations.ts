/** What clients of several gateways asked and were answered, and what the database and the gateways hold in the end. Times are milliseconds of one clock. */

/** An edit by the tenant that owns it. `target` is what it says; no two landings of a history say the same. */
export interface LandedEdit {
  readonly id: string
  readonly target: string
}

/** `acknowledged`: 2xx. `refused`: 4xx, so it must not be in the log. `unknown`: anything else, a lost answer among it. */
export type Outcome = 'acknowledged' | 'refused' | 'unknown'

interface Called {
  readonly tenant: string
  /** Gateway and which start of it: `1#0`. Of the attempt that was answered. */
  readonly node: string
  /** Of the first attempt. */
  readonly invoked: number
  readonly completed: number
}

interface Write extends Called {
  readonly outcome: Outcome
  /** `palimpsest.memory_version`; null unless acknowledged. */
  readonly version: number | null
}

export interface Landing extends Write {
  readonly kind: 'land'
  readonly edits: readonly LandedEdit[]
}

/** A withdrawal or a restoration of edits; with `batch`, of those among them whose newest content came with it. */
export interface Toggle extends Write {
  readonly kind: 'withdraw' | 'restore'
  readonly ids: readonly string[]
  readonly batch: string | null
  readonly attempts: number
}

interface Read extends Called {
  /** The `Palimpsest-At-Least` that it was sent with. */
  readonly atLeast: number | null
}

/** An edit with its history. `history` holds the versions of its records; empty where the gateway knows of no such edit. */
export interface Lookup extends Read {
  readonly kind: 'lookup'
  readonly id: string
  readonly history: readonly number[]
}

/** Several edits of a tenant at one moment; those that are missing are not known to the gateway. */
export interface Listing extends Read {
  readonly kind: 'list'
  readonly asked: readonly string[]
  readonly seen: readonly HeldState[]
}

/** A question to the model about a subject: the targets that were written next to it. */
export interface Question extends Read {
  readonly kind: 'ask'
  readonly subject: string
  readonly targets: readonly string[]
}

export type Operation = Landing | Toggle | Lookup | Listing | Question

export interface HeldState {
  readonly id: string
  /** Of its newest content. */
  readonly version: number
  readonly state: string
}

/** A row of the log. `subject` and `target` are those of an `add`. */
export interface LogRow {
  readonly seq: number
  readonly at: number
  readonly tenant: string
  readonly kind: 'add' | 'withdraw' | 'restore'
  readonly id: string
  readonly batch: string
  readonly subject: string | null
  readonly target: string | null
}

export interface BatchRow {
  readonly n: number
  readonly tenant: string
  readonly id: string
}

/** All edits of a tenant on one gateway, after every fault has ended. */
export interface FinalState {
  readonly node: string
  readonly tenant: string
  readonly edits: readonly HeldState[]
  /** Versions of the records of some of the edits. */
  readonly histories: ReadonlyMap<string, readonly number[]>
}

export interface History {
  readonly operations: readonly Operation[]
  readonly log: readonly LogRow[]
  readonly batches: readonly BatchRow[]
  readonly finals: readonly FinalState[]
}
