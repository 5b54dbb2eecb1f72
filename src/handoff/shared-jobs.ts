import { randomUUID } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { writeDurably } from '../adapters/record.ts'
import type { Edit } from '../edit/edit.ts'
import { PalimpsestError } from '../errors.ts'
import { isWhole } from '../storage/file-hash.ts'
import { migrate, type Schema } from '../storage/migrate.ts'
import { fillShared, SharedRecords, type SharedTable, sharedTable } from '../storage/shared-records.ts'
import { DATABASE_NOW, type Sql, type SqlDatabase } from '../storage/sql.ts'
import { Stopped } from './fault.ts'
import type { FolderJobs } from './folder-jobs.ts'
import { type Job, readJob } from './job.ts'
import { byAge, type Claim, type JobStore, outdated, type Standing } from './job-store.ts'

const tables = sharedTable(
  'handoff_jobs',
  "edits TEXT NOT NULL DEFAULT '[]'",
  'holder TEXT',
  'lease_until BIGINT NOT NULL DEFAULT 0',
)

export const HANDOFF_SCHEMA: Schema = { port: 'handoffs', oldestReader: 1, steps: [{ sqlite: tables, postgres: tables }] }

const TABLE: SharedTable<Job> = { name: 'handoff_jobs', read: readJob, write: (job) => JSON.stringify(job) }

const EDITS = 'edits.json'
/** A gateway that says nothing for this long has lost its job. */
const LEASE_MS = 30_000
/** Several fit into a lease, so that a slow database costs no job. */
const RENEWALS_A_LEASE = 6
/** Between two tries of a write while the database is away. */
const RETRY_MS = 1_000
const CLAIMING = 'taking up a hand-off'
const WORKING = 'noting how a hand-off stands'

export interface SharedJobsOptions {
  readonly database: SqlDatabase
  /** `handoffs/` in the data folder: what jobs work with here. */
  readonly dir: string
  readonly warn: (message: string) => void
  readonly pollMs?: number
  readonly leaseMs?: number
}

/**
 * Jobs of a database that gateways share. One gateway at a time holds a job, by a lease that it renews while it works; when the lease has run
 * out, another takes the job up. What the former holder still writes then is refused.
 */
export class SharedJobs implements JobStore {
  readonly isShared = true
  readonly dir: string
  readonly #options: SharedJobsOptions
  readonly #records: SharedRecords<Job>
  /** This process among the holders. */
  readonly #holder = randomUUID()
  readonly #followers: (() => void)[] = []
  /** The job that is worked on here, as it was last said. */
  #held: Job | null = null
  #writing: Promise<void> = Promise.resolve()
  #renewal: NodeJS.Timeout | undefined
  /** The last job that was taken from this gateway. */
  #lost: string | null = null
  #closed = false

  private constructor(options: SharedJobsOptions, records: SharedRecords<Job>) {
    this.dir = options.dir
    this.#options = options
    this.#records = records
    records.follow((before) => {
      this.#tell()
      for (const id of before.keys()) if (!records.items.has(id)) void this.#forgetFiles(id)
    })
  }

  static async open(options: SharedJobsOptions): Promise<SharedJobs> {
    const { database, warn, pollMs } = options
    await migrate(database, HANDOFF_SCHEMA)
    const records = await SharedRecords.open({ database, table: TABLE, warn, ...(pollMs !== undefined && { pollMs }) })
    return new SharedJobs(options, records)
  }

  folder(id: string): string {
    return join(this.dir, id)
  }

  get(id: string): Job | undefined {
    return this.#held?.id === id ? this.#held : this.#records.items.get(id)
  }

  all(): Job[] {
    return byAge([...this.#records.items.values()].map((job) => (this.#held?.id === job.id ? this.#held : job)))
  }

  async add(job: Job, edits: readonly Edit[], check: (jobs: readonly Job[]) => void): Promise<void> {
    const doing = 'taking in a hand-off'
    await this.#records.change(doing, async ({ sql, items, put }) => {
      check(byAge(items.values()))
      await put(job.id, job)
      await sql.run(doing, 'UPDATE handoff_jobs SET edits = ? WHERE id = ?', JSON.stringify(edits), job.id)
    })
  }

  change(id: string, work: (job: Job | undefined) => Job): Promise<Job> {
    return this.#records.change('changing a hand-off', async ({ items, put }) => {
      const job = work(items.get(id))
      await put(id, job)
      return job
    })
  }

  hasWaiting(): boolean {
    return this.#unfinished().length > 0
  }

  /** What waits, and what another gateway works on: whether its lease has run out, the database knows. */
  #unfinished(): Job[] {
    return byAge(this.#records.items.values()).filter(
      ({ id, state }) => state === 'queued' || state === 'interrupted' || (state === 'running' && id !== this.#held?.id),
    )
  }

  async claim(claim: Claim): Promise<Job | null> {
    const { database } = this.#options
    const rows = await database.all<{ id: string }>(CLAIMING, `SELECT id FROM handoff_jobs WHERE ${free(database)}`)
    const unheld = new Set(rows.map(({ id }) => id))
    for (const { id } of this.#unfinished().filter((job) => unheld.has(job.id) && isFor(job, claim))) {
      const job = await this.#claim(id, claim)
      if (job !== null) return job
    }
    return null
  }

  async #claim(id: string, claim: Claim): Promise<Job | null> {
    const { leaseMs = LEASE_MS, warn } = this.#options
    // Hashed before the turn, in which the others wait.
    const finished = await this.#stagesHere(this.#records.items.get(id))
    const claimed = await this.#records.change(CLAIMING, async ({ sql, items, put }) => {
      const lock = sql.dialect === 'postgres' ? ' FOR UPDATE SKIP LOCKED' : ''
      const [row] = await sql.all<{ edits: string }>(
        CLAIMING,
        `SELECT edits FROM handoff_jobs WHERE id = ? AND (${free(sql)})${lock}`,
        id,
      )
      const found = items.get(id)
      if (row === undefined || found === undefined || !isFor(found, claim)) return null
      // The gateway that worked on it is gone, and it was so too often.
      const isExhausted = found.state === 'running' && found.attempts >= claim.mostAttempts
      const job: Job = isExhausted
        ? { ...found, state: 'interrupted', progress: null, pid: null }
        : { ...found, state: 'running', attempts: found.attempts + 1, fault: null, stages: found.stages.slice(0, finished) }
      await put(id, job)
      await sql.run(
        CLAIMING,
        `UPDATE handoff_jobs SET holder = ?, lease_until = ${DATABASE_NOW[sql.dialect]} + ? WHERE id = ?`,
        ...[isExhausted ? null : this.#holder, isExhausted ? 0 : leaseMs, id],
      )
      return { job, edits: row.edits }
    })
    if (claimed === null) return null
    const { job, edits } = claimed
    if (job.state !== 'running') {
      warn(`hand-off ${id} ended ${job.attempts} times; resume it by hand`)
      return null
    }
    this.#held = job
    this.#lost = null
    this.#renewal = setInterval(() => void this.#renew(id), leaseMs / RENEWALS_A_LEASE).unref()
    try {
      mkdirSync(this.folder(id), { recursive: true })
      await writeDurably(join(this.folder(id), EDITS), `${edits}\n`)
      return job
    } catch (error) {
      const message = `${this.folder(id)} can't be written: ${(error as Error).message}`
      const fault = { code: 'storage_failed', message, change: `Mend that, then: palimpsest handoff resume ${id}` }
      await this.save({ ...job, state: 'failed', fault })
      throw error
    }
  }

  /** Stages that need not be made again here, since their files are on this machine. */
  async #stagesHere(job: Job | undefined): Promise<number> {
    const stages = job?.stages ?? []
    for (const [index, { file, sha256 }] of stages.entries())
      if (!(await isWhole(join(this.folder(job?.id ?? ''), file), sha256))) return index
    return stages.length
  }

  async #renew(id: string): Promise<void> {
    const { database, leaseMs = LEASE_MS } = this.#options
    const renewed = await database
      .run(
        WORKING,
        `UPDATE handoff_jobs SET lease_until = ${DATABASE_NOW[database.dialect]} + ? WHERE id = ? AND holder = ?`,
        ...[leaseMs, id, this.#holder],
      )
      // While the database is away, nobody else can take the job up either.
      .catch(() => null)
    if (renewed === 0 && this.#held?.id === id) this.#lose(id)
  }

  edits(id: string): Edit[] {
    return JSON.parse(readFileSync(join(this.folder(id), EDITS), 'utf8')) as Edit[]
  }

  save(job: Job): Promise<void> {
    if (this.#held?.id !== job.id) return Promise.reject(new Stopped('lost'))
    this.#held = job
    const written = this.#writing.then(() => this.#write(job.id))
    this.#writing = written.catch(() => {})
    return written
  }

  /** As it was last said; tried again while the database is away, so that hours of work outlast minutes of that. */
  async #write(id: string): Promise<void> {
    for (;;) {
      const job = this.#held
      // A later word on it has been written already.
      if (job?.id !== id) return
      try {
        const isHeld = await this.#writeOnce(job)
        if (isHeld && job.state !== 'running') this.#letGo()
        if (isHeld) return
        this.#lose(id)
        throw new Stopped('lost')
      } catch (error) {
        const isAway = error instanceof PalimpsestError && error.code === 'storage_unavailable'
        if (!isAway || this.#closed) throw error
        await sleep(RETRY_MS)
      }
    }
  }

  /** False: another gateway has the job. */
  #writeOnce(job: Job): Promise<boolean> {
    return this.#records.change(WORKING, async ({ sql, items, put }) => {
      const [row] = await sql.all<{ holder: string | null }>(WORKING, 'SELECT holder FROM handoff_jobs WHERE id = ?', job.id)
      if (row?.holder !== this.#holder) return false
      // Else it was cancelled elsewhere, and may wait for its next attempt already.
      if (items.get(job.id)?.state === 'running') await put(job.id, job)
      if (job.state !== 'running') await sql.run(WORKING, 'UPDATE handoff_jobs SET holder = NULL WHERE id = ?', job.id)
      return true
    })
  }

  #letGo(): void {
    clearInterval(this.#renewal)
    this.#held = null
  }

  #lose(id: string): void {
    this.#letGo()
    this.#lost = id
    this.#tell()
  }

  show(job: Job): void {
    if (this.#held?.id === job.id) this.#held = job
  }

  standing(id: string): Standing {
    if (this.#lost === id) return 'lost'
    const job = this.#records.items.get(id)
    if (job === undefined) return 'lost'
    // Once this gateway has said that it is over, it is so by its own word.
    return this.#held?.id === id && this.#held.state === 'running' && job.state !== 'running' ? 'cancelled' : 'held'
  }

  follow(changed: () => void): void {
    this.#followers.push(changed)
  }

  #tell(): void {
    for (const changed of this.#followers) changed()
  }

  async prune(most: number, isNeeded: (job: Job) => boolean): Promise<void> {
    if (outdated(this.all(), most, isNeeded).length === 0) return
    await this.#records.change('removing old hand-offs', async ({ items, remove }) => {
      for (const { id } of outdated([...items.values()], most, isNeeded)) await remove(id)
    })
  }

  async #forgetFiles(id: string): Promise<void> {
    await rm(this.folder(id), { recursive: true, force: true }).catch((error: Error) =>
      this.#options.warn(`handoffs/${id} can't be removed: ${error.message}`),
    )
  }

  async close(ended: Promise<void>): Promise<void> {
    // From now on what cannot be written is tried once: the lease tells the others.
    this.#closed = true
    await ended
    clearInterval(this.#renewal)
    await this.#writing
    await this.#records.close()
  }
}

function isFor({ base, state, attempts }: Job, { baseSha256, mostAttempts }: Claim): boolean {
  if (base.sha256 !== baseSha256) return false
  return state === 'queued' || state === 'running' || (state === 'interrupted' && attempts < mostAttempts)
}

/** Nobody works on it, or whoever did has not said so for too long. */
function free(sql: Pick<SqlDatabase, 'dialect'>): string {
  return `holder IS NULL OR lease_until < ${DATABASE_NOW[sql.dialect]}`
}

function editsOf(from: FolderJobs, id: string): Edit[] {
  try {
    return from.edits(id)
  } catch (cause) {
    const folder = from.folder(id)
    throw new PalimpsestError('storage_failed', `${join(folder, EDITS)} can't be read: put it back, or remove ${folder}.`, {
      cause,
    })
  }
}

/** Moves the records of a folder into a table that is empty; what jobs work with stays where it is. */
export async function fillJobs(sql: Sql, from: FolderJobs): Promise<number> {
  const jobs = new Map(from.all().map((job) => [job.id, job]))
  await fillShared(sql, TABLE, jobs)
  for (const id of jobs.keys())
    await sql.run('filling handoff_jobs', 'UPDATE handoff_jobs SET edits = ? WHERE id = ?', JSON.stringify(editsOf(from, id)), id)
  return jobs.size
}
