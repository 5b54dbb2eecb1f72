import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writeDurably } from '../adapters/record.ts'
import type { Edit } from '../edit/edit.ts'
import { type Job, readJob } from './job.ts'
import { byAge, type JobStore, outdated, type Standing } from './job-store.ts'

const RECORD = 'job.json'
const EDITS = 'edits.json'

/** Jobs of a data folder that one gateway holds: `handoffs/ID/job.json`, written whole or not at all, beside what the job works with. */
export class FolderJobs implements JobStore {
  readonly isShared = false
  readonly dir: string
  readonly #jobs = new Map<string, Job>()
  readonly #writing = new Map<string, Promise<void>>()

  /** What was running when the process ended is `interrupted`. What can't be read is left alone and logged. */
  constructor(dir: string, warn: (message: string) => void) {
    this.dir = dir
    if (!existsSync(dir)) return
    for (const id of readdirSync(dir).sort()) {
      if (id.startsWith('.')) continue
      try {
        const job = readJob(readFileSync(join(dir, id, RECORD), 'utf8'))
        this.#jobs.set(id, job.state === 'running' ? { ...job, state: 'interrupted', progress: null } : job)
      } catch (error) {
        warn(`handoffs/${id} can't be read: ${error instanceof Error ? error.message.slice(0, 200) : error}`)
      }
    }
  }

  folder(id: string): string {
    return join(this.dir, id)
  }

  get(id: string): Job | undefined {
    return this.#jobs.get(id)
  }

  all(): Job[] {
    return byAge(this.#jobs.values())
  }

  async add(job: Job, edits: readonly Edit[], check: (jobs: readonly Job[]) => void): Promise<void> {
    check(this.all())
    mkdirSync(this.folder(job.id), { recursive: true })
    await writeDurably(join(this.folder(job.id), EDITS), `${JSON.stringify(edits)}\n`)
    await this.save(job)
  }

  async change(id: string, work: (job: Job | undefined) => Job): Promise<Job> {
    const job = work(this.#jobs.get(id))
    await this.save(job)
    return job
  }

  hasWaiting(): boolean {
    return this.#next() !== undefined
  }

  #next(): Job | undefined {
    return this.all().find(({ state }) => state === 'queued')
  }

  async claim(): Promise<Job | null> {
    const next = this.#next()
    if (next === undefined) return null
    const job: Job = { ...next, state: 'running', attempts: next.attempts + 1, fault: null }
    await this.save(job)
    return job
  }

  edits(id: string): Edit[] {
    return JSON.parse(readFileSync(join(this.folder(id), EDITS), 'utf8')) as Edit[]
  }

  save(job: Job): Promise<void> {
    this.#jobs.set(job.id, job)
    const before = this.#writing.get(job.id) ?? Promise.resolve()
    const written = before
      .catch(() => {})
      .then(() => writeDurably(join(this.folder(job.id), RECORD), `${JSON.stringify(this.#jobs.get(job.id), null, 2)}\n`))
    this.#writing.set(job.id, written)
    return written
  }

  show(job: Job): void {
    this.#jobs.set(job.id, job)
  }

  standing(): Standing {
    return 'held'
  }

  follow(): void {}

  async prune(most: number, isNeeded: (job: Job) => boolean): Promise<void> {
    for (const { id } of outdated(this.all(), most, isNeeded)) {
      this.#jobs.delete(id)
      await this.#writing.get(id)?.catch(() => {})
      this.#writing.delete(id)
      await rm(this.folder(id), { recursive: true, force: true })
    }
  }

  async close(ended: Promise<void>): Promise<void> {
    await ended
    await Promise.allSettled(this.#writing.values())
  }
}
