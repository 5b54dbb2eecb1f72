import type { Edit } from '../edit/edit.ts'
import { isOver, type Job } from './job.ts'

export interface Claim {
  /** Attempts after which a job that ended early waits for somebody to resume it. */
  readonly mostAttempts: number
  /** Of the model served here. */
  readonly baseSha256: string
}

/** How the work on a claimed job stands: it goes on, somebody cancelled the job, or another gateway has it. */
export type Standing = 'held' | 'cancelled' | 'lost'

/** Where hand-offs are on record: a folder of this gateway's own, or a database that gateways share. What a job works with lies in files here. */
export interface JobStore {
  /** Whether other gateways take jobs in and work on them. */
  readonly isShared: boolean
  /** On this machine. */
  readonly dir: string
  folder(id: string): string
  get(id: string): Job | undefined
  /** Oldest first. */
  all(): Job[]
  /** With what its edits say now: later revisions do not change a job. `check` sees what is on record in that turn; its throw refuses. */
  add(job: Job, edits: readonly Edit[], check: (jobs: readonly Job[]) => void): Promise<void>
  /** Looks and writes in one turn; a throw leaves the job as it was. */
  change(id: string, work: (job: Job | undefined) => Job): Promise<Job>
  /** Whether `claim` may find one. */
  hasWaiting(): boolean
  /** The next job, for this gateway to work on: `running`, one attempt more, its edits in its folder. null: there is none. */
  claim(claim: Claim): Promise<Job | null>
  /** Of a claimed job. */
  edits(id: string): Edit[]
  /** Of a claimed job: seen here at once, on record when it resolves. One that no longer runs is held no more. */
  save(job: Job): Promise<void>
  /** Of a claimed job: seen here; nobody else need know how far a bar is. */
  show(job: Job): void
  /** Of a job that this gateway claimed. */
  standing(id: string): Standing
  /** `changed` is called when other gateways may have changed a job. */
  follow(changed: () => void): void
  /** Removes the oldest of those that are over until `most` are left; adapters are kept elsewhere, and stay. */
  prune(most: number, isNeeded: (job: Job) => boolean): Promise<void>
  /** Once the work has `ended`, resolves when everything said so far is on record, or could not be written. */
  close(ended: Promise<void>): Promise<void>
}

/** Of those that are over and not needed, the ones beyond the latest `most`. */
export function outdated(jobs: readonly Job[], most: number, isNeeded: (job: Job) => boolean): readonly Job[] {
  const over = jobs.filter((job) => isOver(job) && !isNeeded(job))
  return over.sort((a, b) => (a.updated < b.updated ? 1 : -1)).slice(most)
}

/** The oldest first. */
export function byAge(jobs: Iterable<Job>): Job[] {
  return [...jobs].sort((a, b) => (a.created < b.created ? -1 : 1))
}
