import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { client } from '../../../src/cli/client/client.ts'
import type { Job } from '../../../src/handoff/job.ts'
import type { Handoffs } from '../../../src/handoff/queue.ts'
import { SharedJobs } from '../../../src/handoff/shared-jobs.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { cutDatabase } from '../../support/databases/cut-database.ts'
import { databases } from '../../support/databases/databases.ts'
import { serve } from '../fakes.ts'
import { modelOf, standInHandoffs } from './handoff-fakes.ts'

const POLL_MS = 20
const LEASE_MS = 1_000

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

const FACTS = Array.from({ length: 10 }, (_, i) => ({
  ...{ id: `e${i}`, subject: `Person ${i}`, prompt: `Person ${i} works for`, target_new: `Firm ${i}`, target_true: `Old ${i}` },
  ...{ paraphrases: [`The employer of Person ${i} is`], tags: ['staff'] },
}))
const JOB = {
  ...{ method: 'memit', edits: { tag: 'staff' }, fluency_openings: 1, ability_questions: 2, unrelated_questions: 2 },
}

// biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
type Call = (method: string, path: string, body?: unknown) => Promise<any>

/** A gateway over a database that others share. */
async function gateway(database: SqlDatabase, editor: boolean): Promise<{ readonly call: Call; readonly handoffs: Handoffs }> {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-shared-'))
  const store = await SharedJobs.open({ ...{ database, dir, leaseMs: LEASE_MS, pollMs: POLL_MS }, warn: () => {} })
  let made: Handoffs | undefined
  const served = await serve({
    ...{ engine: modelOf('base.gguf'), database, pollMs: POLL_MS, limits: { handoffCancelMs: 5_000 } },
    handoffs: (one, dataDir) => {
      made = standInHandoffs(one, dataDir, editor, store)
      return made
    },
  })
  const handoffs = made as unknown as Handoffs
  const http = client(served.base, {}, null)
  closers.push(async () => {
    await handoffs.close()
    await served.close()
    rmSync(dir, { recursive: true, force: true })
  })
  const call: Call = (method, path, body) => http.json(method, path, body)
  await call('POST', '/v1/edits', FACTS)
  handoffs.start()
  return { call, handoffs }
}

const until = (call: Call, id: string, holds: (job: Job) => boolean) =>
  vi.waitFor(
    async () => {
      const job: Job = await call('GET', `/v1/handoffs/${id}`)
      if (!holds(job)) throw new Error(`${id} is ${job.state}: ${job.fault?.message}`)
      return job
    },
    { timeout: 30_000, interval: 20 },
  )

describe('gateways that share a PostgreSQL', { timeout: 60_000 }, () => {
  const { open, again } = databases('postgres')

  test('one without an editor takes a job in, another works on it, and its adapter answers on both', async () => {
    const database = await open()
    const without = await gateway(database, false)
    const other = await gateway(again(database), true)
    expect(await without.call('POST', '/v1/handoffs', { ...JOB, id: 'job' })).toMatchObject({ state: 'queued' })
    const job = await until(without.call, 'job', ({ state }) => state === 'done')
    expect(job).toMatchObject({ adapter: 'job', attempts: 1, stages: [{ ok: true }, { ok: true }, { ok: true }] })
    expect(job.stages[2]?.measures.length).toBeGreaterThan(0)
    await vi.waitFor(async () =>
      expect((await without.call('GET', '/v1/adapters')).data.map(({ id }: { id: string }) => id)).toEqual(['job']),
    )
    await without.call('POST', '/v1/handoffs/job/promote')
    await vi.waitFor(async () => expect((await other.call('GET', '/v1/adapters/job')).promoted_at).not.toBeNull())
    for (const { call } of [without, other]) {
      const messages = [{ role: 'user', content: 'Person 3 works for' }]
      const answer = await call('POST', '/v1/chat/completions', { model: 'scripted@adapter:job', messages })
      expect(answer.choices[0].message.content).toBe('Firm 3')
    }
  })

  test('cancelled on one, the work on the other ends; resumed, it goes on with what was finished', async () => {
    const database = await open()
    const working = await gateway(database, true)
    const asking = await gateway(again(database), false)
    await working.call('POST', '/v1/handoffs', { ...JOB, id: 'slow', hparams: { ms: 200 } })
    await until(asking.call, 'slow', ({ state, stages }) => state === 'running' && stages.length === 1)
    expect(await asking.call('POST', '/v1/handoffs/slow/cancel')).toMatchObject({ state: 'cancelled' })
    await working.call('POST', '/v1/handoffs', { ...JOB, id: 'next' })
    // One at a time: the next is taken up once the work on the first has ended.
    await until(working.call, 'next', ({ state }) => state === 'done')
    expect(await working.call('GET', '/v1/handoffs/slow')).toMatchObject({ state: 'cancelled', progress: null, pid: null })
    expect((await working.call('GET', '/v1/adapters')).data.map(({ id }: { id: string }) => id)).toEqual(['next'])
    await asking.call('POST', '/v1/handoffs/slow/resume')
    const job = await until(asking.call, 'slow', ({ state }) => state === 'done')
    expect(job.attempts).toBe(2)
  })

  test('of a gateway that is cut off, another takes the job up, and the end is the other’s', async () => {
    const database = await open()
    const line = cutDatabase(again(database))
    const first = await gateway(line, true)
    await first.call('POST', '/v1/handoffs', { ...JOB, id: 'job', hparams: { ms: 100 } })
    await until(first.call, 'job', ({ stages }) => stages.length === 1)
    const second = await gateway(database, true)
    line.cut()
    const job = await until(second.call, 'job', ({ state }) => state === 'done')
    line.mend()
    expect(job.attempts).toBe(2)
    expect(job.stages.map(({ ok }) => ok)).toEqual([true, true, true])
    await until(first.call, 'job', ({ state, attempts }) => state === 'done' && attempts === job.attempts)
    await vi.waitFor(async () =>
      expect((await first.call('GET', '/v1/adapters')).data.map(({ id }: { id: string }) => id)).toEqual(['job']),
    )
  })
})
