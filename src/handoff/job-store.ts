import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writeDurably } from '../adapters/record.ts'
import type { Edit } from '../edit/edit.ts'
import { isOver, type Job, readJob } from './job.ts'

const RECORD = 'job.json'
const EDITS = 'edits.json'

/** Jobs on disk: `handoffs/ID/job.json`, written whole or not at all, beside what the job works with. */
export class JobStore {
  readonly dir: string
  readonly #jobs = new Map<string, Job>()
  readonly #writing = new Map<string, Promise<void>>()

  /** What was running when the process ended is `interrupted`. What can't be read is left alone, and said. */
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

  /** Oldest first. */
  all(): Job[] {
    return [...this.#jobs.values()].sort((a, b) => (a.created < b.created ? -1 : 1))
  }

  /** With what its edits say now: later revisions do not change a job. */
  async add(job: Job, edits: readonly Edit[]): Promise<void> {
    mkdirSync(this.folder(job.id), { recursive: true })
    await writeDurably(join(this.folder(job.id), EDITS), `${JSON.stringify(edits)}\n`)
    await this.save(job)
  }

  edits(id: string): Edit[] {
    return JSON.parse(readFileSync(join(this.folder(id), EDITS), 'utf8')) as Edit[]
  }

  /** Seen at once; on the disk when it resolves. */
  save(job: Job): Promise<void> {
    this.#jobs.set(job.id, job)
    const before = this.#writing.get(job.id) ?? Promise.resolve()
    const written = before
      .catch(() => {})
      .then(() => writeDurably(join(this.folder(job.id), RECORD), `${JSON.stringify(this.#jobs.get(job.id), null, 2)}\n`))
    this.#writing.set(job.id, written)
    return written
  }

  /** Seen by whoever asks; the disk need not know how far a bar is. */
  show(job: Job): void {
    this.#jobs.set(job.id, job)
  }

  /** Removes the oldest of those that are over until `most` are left; adapters are kept elsewhere, and stay. */
  async prune(most: number, isNeeded: (job: Job) => boolean): Promise<void> {
    const over = this.all().filter((job) => isOver(job) && !isNeeded(job))
    over.sort((a, b) => (a.updated < b.updated ? 1 : -1))
    for (const { id } of over.slice(most)) {
      this.#jobs.delete(id)
      await this.#writing.get(id)?.catch(() => {})
      this.#writing.delete(id)
      await rm(this.folder(id), { recursive: true, force: true })
    }
  }

  /** Resolves when everything said so far is on the disk, or could not be written. */
  async flush(): Promise<void> {
    await Promise.allSettled(this.#writing.values())
  }
}
