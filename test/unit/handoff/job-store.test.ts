import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import { FolderJobs } from '../../../src/handoff/folder-jobs.ts'
import { type Job, type Stage, THRESHOLDS } from '../../../src/handoff/job.ts'
import type { JobStore } from '../../../src/handoff/job-store.ts'
import { SharedJobs } from '../../../src/handoff/shared-jobs.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { cutDatabase } from '../../support/databases/cut-database.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'
import { fact } from '../../support/memory-data.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000 })

const BASE = 'b'.repeat(64)
const CLAIM = { mostAttempts: 3, baseSha256: BASE }
const POLL_MS = 20
const LEASE_MS = 300
const root = mkdtempSync(join(tmpdir(), 'palimpsest-job-store-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const opened: JobStore[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close(Promise.resolve())))
})
const kept = <Store extends JobStore>(store: Store): Store => {
  opened.push(store)
  return store
}

let dirs = 0
const newDir = () => {
  const dir = join(root, `${++dirs}`)
  mkdirSync(dir)
  return dir
}

const jobOf = (id: string, minute = 0, more: Partial<Job> = {}): Job => {
  const at = new Date(Date.UTC(2026, 0, 1, 0, minute)).toISOString()
  return {
    ...{ id, tenant: 'acme', method: 'memit', state: 'queued', created: at, updated: at, edits: ['e1'], plan: [1] },
    base: { name: 'model', sha256: BASE, tokenizer: 't' },
    settings: {
      ...{ thresholds: THRESHOLDS, sample_edits: 1, unrelated_questions: 0, fluency_openings: 0, ability_questions: 0 },
      ...{ answer_tokens: 8, seed: 1, threads: 1, device: 'cpu', dtype: 'float32', memory_bytes: null },
      ...{ hparams: {}, statistics: {}, data: null },
    },
    ...{ stages: [], progress: null, estimate_s: null, attempts: 0, pid: null, fault: null, adapter: null, notes: [] },
    ...more,
  }
}
const EDITS = [fact(1)]
const anything = () => {}
const progress = (done: number) => ({ stage: 1, phase: 'targets', done, of: 4, seconds_left: null })

function contract(open: () => Promise<{ readonly store: JobStore; readonly again: () => Promise<JobStore> }>): void {
  test('keeps what was taken in, with its edits, over a restart', async () => {
    const { store, again } = await open()
    await store.add(jobOf('late', 2), EDITS, anything)
    await store.add(jobOf('early', 1), EDITS, anything)
    const later = await again()
    expect(later.all()).toEqual([jobOf('early', 1), jobOf('late', 2)])
    expect((await later.claim(CLAIM))?.id).toBe('early')
    expect(later.edits('early')).toEqual(EDITS)
  })

  test('gives out the oldest first, each once, as an attempt', async () => {
    const { store } = await open()
    expect([store.hasWaiting(), await store.claim(CLAIM)]).toEqual([false, null])
    await store.add(jobOf('second', 2), EDITS, anything)
    await store.add(jobOf('first', 1), EDITS, anything)
    expect(store.hasWaiting()).toBe(true)
    const first = (await store.claim(CLAIM)) as Job
    expect(first).toMatchObject({ id: 'first', state: 'running', attempts: 1 })
    expect(store.get('first')?.state).toBe('running')
    await store.save({ ...first, state: 'done' })
    expect((await store.claim(CLAIM))?.id).toBe('second')
    expect(await store.claim(CLAIM)).toBeNull()
  })

  test('a refusal leaves nothing, of a new job and of a change', async () => {
    const { store, again } = await open()
    await store.add(jobOf('a'), EDITS, anything)
    const refuse = (seen: readonly Job[]) => {
      throw new Error(`there are ${seen.length}`)
    }
    await expect(store.add(jobOf('b'), EDITS, refuse)).rejects.toThrow('there are 1')
    await expect(
      store.change('a', (job) => {
        throw new Error(`it is ${job?.state}`)
      }),
    ).rejects.toThrow('it is queued')
    expect((await again()).all()).toEqual([jobOf('a')])
  })

  test('shows what is said of the job at work, and keeps how it ended', async () => {
    const { store, again } = await open()
    await store.add(jobOf('a'), EDITS, anything)
    const job = (await store.claim(CLAIM)) as Job
    store.show({ ...job, progress: progress(1) })
    expect(store.get('a')?.progress?.done).toBe(1)
    expect(store.standing('a')).toBe('held')
    const saved = store.save({ ...job, progress: progress(2) })
    await Promise.all([saved, store.save({ ...job, state: 'done', adapter: 'a' })])
    expect(store.standing('a')).toBe('held')
    expect((await again()).get('a')).toMatchObject({ state: 'done', adapter: 'a', attempts: 1 })
  })

  test('a cancelled job is given out no more; a resumed one is', async () => {
    const { store } = await open()
    await store.add(jobOf('a'), EDITS, anything)
    await store.change('a', (job) => ({ ...(job as Job), state: 'cancelled' }))
    expect(await store.claim(CLAIM)).toBeNull()
    await store.change('a', (job) => ({ ...(job as Job), state: 'queued' }))
    expect((await store.claim(CLAIM))?.id).toBe('a')
  })

  test('the latest that are over stay, with those that are needed and those that are not over', async () => {
    const { store, again } = await open()
    for (const [minute, id] of ['needed', 'old', 'new'].entries())
      await store.add(jobOf(id, minute, { state: 'done' }), EDITS, anything)
    await store.add(jobOf('waits', 0), EDITS, anything)
    await store.prune(1, ({ id }) => id === 'needed')
    expect(
      store
        .all()
        .map(({ id }) => id)
        .sort(),
    ).toEqual(['needed', 'new', 'waits'])
    expect((await again()).get('old')).toBeUndefined()
    expect(existsSync(store.folder('old'))).toBe(false)
  })
}

describe('hand-offs of a folder', () => {
  contract(async () => {
    const dir = newDir()
    const open = async () => kept(new FolderJobs(dir, () => {}))
    return { store: await open(), again: open }
  })
})

describe.each(DIALECTS)('hand-offs of a shared database of %s', (dialect) => {
  const { open, again } = databases(dialect)
  const jobs = async (database: SqlDatabase, more: { warn?: (message: string) => void; dir?: string } = {}) =>
    kept(await SharedJobs.open({ database, dir: newDir(), warn: () => {}, pollMs: POLL_MS, leaseMs: LEASE_MS, ...more }))
  contract(async () => {
    const database = await open()
    return { store: await jobs(database), again: () => jobs(again(database)) }
  })

  const pair = async () => {
    const database = await open()
    const line = cutDatabase(database)
    return { database, line, one: await jobs(line), other: await jobs(again(database)) }
  }
  const claimed = async (store: JobStore) => (await store.claim(CLAIM)) as Job

  test('two gateways that look for work at once get a job each', async () => {
    const { one, other } = await pair()
    await one.add(jobOf('a', 1), EDITS, anything)
    await one.add(jobOf('b', 2), EDITS, anything)
    await vi.waitFor(() => expect(other.all()).toHaveLength(2))
    const got = await Promise.all([one.claim(CLAIM), other.claim(CLAIM)])
    expect(got.map((job) => job?.id).sort()).toEqual(['a', 'b'])
    expect(other.edits(got[1]?.id ?? '')).toEqual(EDITS)
  })

  test('a gateway takes up only what is for its model', async () => {
    const { one } = await pair()
    await one.add(jobOf('a'), EDITS, anything)
    expect(await one.claim({ ...CLAIM, baseSha256: 'c'.repeat(64) })).toBeNull()
  })

  test('progress and end are seen from the other; work longer than a lease keeps the job', async () => {
    const { one, other } = await pair()
    await one.add(jobOf('a'), EDITS, anything)
    const job = await claimed(one)
    await one.save({ ...job, progress: progress(3) })
    await vi.waitFor(() => expect(other.get('a')?.progress?.done).toBe(3))
    await sleep(2 * LEASE_MS)
    expect(await other.claim(CLAIM)).toBeNull()
    await one.save({ ...job, state: 'done' })
    await vi.waitFor(() => expect(other.get('a')?.state).toBe('done'))
  })

  test('cancelled on the other, it is told; resumed at once, it waits until the work on it has ended', async () => {
    const { one, other } = await pair()
    await one.add(jobOf('a'), EDITS, anything)
    const job = await claimed(one)
    const told = vi.fn()
    one.follow(told)
    await vi.waitFor(() => expect(other.get('a')?.state).toBe('running'))
    await other.change('a', (now) => ({ ...(now as Job), state: 'cancelled' }))
    await vi.waitFor(() => expect(one.standing('a')).toBe('cancelled'))
    expect(told).toHaveBeenCalled()
    await one.save({ ...job, progress: progress(1) })
    await other.change('a', (now) => ({ ...(now as Job), state: 'queued' }))
    expect(await other.claim(CLAIM)).toBeNull()
    await one.save({ ...job, state: 'cancelled' })
    expect(await claimed(other)).toMatchObject({ id: 'a', attempts: 2 })
  })

  test('of a gateway that is gone, it is taken up when the lease has run out; what that one still says is refused', async () => {
    const { line, one, other } = await pair()
    await one.add(jobOf('a'), EDITS, anything)
    const job = await claimed(one)
    await vi.waitFor(() => expect(other.get('a')?.state).toBe('running'))
    line.cut()
    expect(await other.claim(CLAIM)).toBeNull()
    await vi.waitFor(async () => expect(await other.claim(CLAIM)).toMatchObject({ id: 'a', attempts: 2 }), { timeout: 5_000 })
    line.mend()
    await vi.waitFor(() => expect(one.standing('a')).toBe('lost'))
    await expect(one.save({ ...job, state: 'done' })).rejects.toThrow('lost')
    expect(other.standing('a')).toBe('held')
    expect(other.get('a')?.state).toBe('running')
  })

  test('what outlasts the database being away is written when it is back', async () => {
    const { line, one, other } = await pair()
    await one.add(jobOf('a'), EDITS, anything)
    const job = await claimed(one)
    line.cut()
    const saved = one.save({ ...job, state: 'done' })
    await sleep(LEASE_MS / 3)
    line.mend()
    await saved
    await vi.waitFor(() => expect(other.get('a')?.state).toBe('done'))
  })

  test('after too many attempts it waits for somebody to resume it, and says so', async () => {
    const { line, one, other, database } = await pair()
    await one.add(jobOf('a', 0, { attempts: 2 }), EDITS, anything)
    await claimed(one)
    line.cut()
    const said: string[] = []
    const third = await jobs(again(database), { warn: (message) => said.push(message) })
    await vi.waitFor(
      async () => {
        expect(await third.claim(CLAIM)).toBeNull()
        expect(third.get('a')?.state).toBe('interrupted')
      },
      { timeout: 5_000 },
    )
    expect(said).toEqual(['hand-off a ended 3 times; resume it by hand'])
    await vi.waitFor(() => expect(other.get('a')?.state).toBe('interrupted'))
    expect(await other.claim(CLAIM)).toBeNull()
  })

  test('stages are taken over where their files are, and made anew elsewhere', async () => {
    const { database, one } = await pair()
    const dir = newDir()
    const stage: Stage = {
      ...{ edits: 1, file: 'stage.gguf', sha256: createHash('sha256').update('made').digest('hex'), bytes: 4, rank: 1 },
      ...{ seconds: 1, paused_s: 0, peak_bytes: 1, measures: [], failures: [], ok: true },
    }
    for (const id of ['here', 'there']) await one.add(jobOf(id, 0, { stages: [stage] }), EDITS, anything)
    mkdirSync(join(dir, 'here'))
    writeFileSync(join(dir, 'here/stage.gguf'), 'made')
    const store = await jobs(again(database), { dir })
    const here = await claimed(store)
    await store.save({ ...here, state: 'done' })
    const both = [here, await claimed(store)]
    expect(both.map(({ id, stages }) => [id, stages.length]).sort()).toEqual([
      ['here', 1],
      ['there', 0],
    ])
  })

  test('a folder that takes nothing fails the job by name, and gives it back', async () => {
    const { one } = await pair()
    await one.add(jobOf('a'), EDITS, anything)
    writeFileSync(one.folder('a'), 'a file in the place of the folder')
    await expect(one.claim(CLAIM)).rejects.toThrow()
    await vi.waitFor(() => expect(one.get('a')).toMatchObject({ state: 'failed', fault: { code: 'storage_failed' } }))
  })
})
