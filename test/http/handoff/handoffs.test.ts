import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { listSnapshots, snapshotsDir } from '../../../src/backup/snapshot.ts'
import { client } from '../../../src/cli/client/client.ts'
import { handoffText } from '../../../src/cli/text/handoff-text.ts'
import type { Edit } from '../../../src/edit/edit.ts'
import type { Gateway } from '../../../src/gateway.ts'
import type { Job } from '../../../src/handoff/job.ts'
import type { Handoffs } from '../../../src/handoff/queue.ts'
import { MODEL, type Served, serve } from '../fakes.ts'
import { BASE, modelOf, standInHandoffs } from './handoff-fakes.ts'

const open: Started[] = []
afterEach(async () => {
  for (const served of open.splice(0)) {
    const { dataDir } = served
    await served.handoffs.close()
    await served.close()
    rmSync(snapshotsDir(dataDir), { recursive: true, force: true })
  }
})

interface Started extends Served {
  readonly handoffs: Handoffs
  readonly again: () => Handoffs
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  call(method: string, path: string, body?: unknown): Promise<any>
  until(id: string, state: Job['state']): Promise<Job>
  run(fields: object): Promise<Job>
}

async function start({ editor = true, edits = 10, kept = 20 } = {}): Promise<Started> {
  let made: Handoffs | undefined
  const openOne = (gateway: Gateway, dataDir: string) => standInHandoffs(gateway, dataDir, editor)
  const served = await serve({
    engine: modelOf('base.gguf'),
    limits: { handoffCancelMs: 5_000, handoffQueueJobs: 2, handoffEdits: 100, handoffJobsKept: kept },
    handoffs: (gateway, dataDir) => {
      made = openOne(gateway, dataDir)
      return made
    },
  })
  const gateway = client(served.base, {}, null)
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  const call = (method: string, path: string, body?: unknown) => gateway.json<any>(method, path, body)
  const until = async (id: string, state: Job['state']) => {
    for (;;) {
      const job = (await call('GET', `/v1/handoffs/${id}`)) as Job
      if (job.state === state) return job
      if (['done', 'failed', 'stopped', 'cancelled'].includes(job.state))
        throw new Error(`${id} is ${job.state}, not ${state}: ${job.fault?.message}`)
      await sleep(20)
    }
  }
  const facts = Array.from({ length: edits }, (_, i) => ({
    ...{ id: `e${i}`, subject: `Person ${i}`, prompt: `Person ${i} works for`, target_new: `Firm ${i}`, target_true: `Old ${i}` },
    ...{ paraphrases: [`The employer of Person ${i} is`], tags: ['staff'] },
  }))
  await call('POST', '/v1/edits', [...facts, { id: 'other', subject: 'Ada', prompt: 'Ada lives in', target_new: 'Oslo' }])
  const run = (fields: object) =>
    call('POST', '/v1/handoffs', {
      method: 'memit',
      edits: { tag: 'staff' },
      fluency_openings: 1,
      ability_questions: 2,
      unrelated_questions: 2,
      ...fields,
    })
  return {
    ...served,
    handoffs: made as unknown as Handoffs,
    again: () => openOne(served.gateway, served.dataDir),
    call,
    until,
    run,
  }
}

const fault = (code: string, message: RegExp) => ({ code, message: expect.stringMatching(message) })
const measure = (job: Job, stage: number, name: string) => job.stages[stage]?.measures.find((one) => one.name === name)

describe('the road', { timeout: 60_000 }, () => {
  test('grows by stages, each evaluated, and ends with a registered adapter that is not promoted', async () => {
    const { run, until, call, dataDir } = await start()
    const begun = await run({ id: 'first' })
    expect(begun).toMatchObject({
      object: 'handoff',
      id: 'first',
      state: expect.stringMatching(/queued|running/),
      plan: [4, 5, 10],
    })
    const job = await until('first', 'done')
    expect(job.stages.map(({ edits, ok }) => [edits, ok])).toEqual([
      [4, true],
      [5, true],
      [10, true],
    ])
    expect(measure(job, 2, 'efficacy')).toMatchObject({
      protocol: 'forced',
      asked: 10,
      value: 1,
      base: 0,
      prompt: null,
      least: 0.9,
      ok: true,
    })
    expect(measure(job, 2, 'paraphrase')).toMatchObject({ asked: 10, value: 1 })
    expect(measure(job, 2, 'reliability')).toMatchObject({ protocol: 'generated', value: 1, base: 0, prompt: 1 })
    expect(measure(job, 2, 'unchanged')).toMatchObject({ asked: 3, value: 1, prompt: expect.any(Number) })
    expect(measure(job, 2, 'fluency')).toMatchObject({ asked: 1, ok: true, decided: false })
    expect(job.notes).toContainEqual(
      expect.stringMatching(/^With 4 edits, too little was asked to tell.*efficacy 1\.000 \(0\.510 to 1\.000\), at least 0\.900/),
    )
    expect(measure(job, 2, 'ability')).toMatchObject({ asked: 2 })
    const { data } = await call('GET', '/v1/adapters')
    expect(data).toMatchObject([{ id: 'first', method: 'memit', promoted: false, base_sha256: BASE, edits: begun.edits }])
    const answer = await call('POST', '/v1/chat/completions', {
      ...{ model: `${MODEL}@adapter:first`, messages: [{ role: 'user', content: 'Person 7 works for' }] },
    })
    expect(answer.choices[0].message.content).toBe('Firm 7')
    expect(readdirSync(join(dataDir, 'handoffs', 'first')).sort()).toContain('answers.jsonl')
    expect(existsSync(join(dataDir, 'handoffs', 'first', 'stage-1-edit', 'work'))).toBe(false)
    expect(handoffText(job)).toMatch(
      /first: done; memit, 10 edits[\s\S]*efficacy {2,}forced {2,}10 {3,}0\.0 % {2,}100\.0 %[\s\S]*promote first/,
    )
  })

  test('stops at the stage that breaks a threshold, and nothing is served of it', async () => {
    const { run, until, call } = await start()
    const forget = Array.from({ length: 5 }, (_, i) => `Person ${i + 5} works for`)
    await run({ id: 'bad', hparams: { forget } })
    const job = await until('bad', 'stopped')
    expect(job.stages.map(({ ok }) => ok)).toEqual([true, true, false])
    expect(job.fault).toMatchObject(
      fault('threshold', /With 10 edits: efficacy 0\.500 \(0\.237 to 0\.763\), at least 0\.900.*taken back/),
    )
    expect((await call('GET', '/v1/adapters')).data).toEqual([])
    await expect(call('POST', '/v1/handoffs/bad/promote')).rejects.toMatchObject(fault('handoff_conflict', /is stopped/))
    expect(handoffText(job)).toMatch(/FAILED[\s\S]*wanted {2}Firm/)
    // Its answers are kept: judged by a lower threshold, it is done.
    await call('POST', '/v1/handoffs/bad/resume', { thresholds: { efficacy: 0.5, paraphrase: 0.5 } })
    expect((await until('bad', 'done')).settings.thresholds).toMatchObject({ efficacy: 0.5, paraphrase: 0.5, fluency_drop: 0.1 })
  })

  test('alphaedit is told which edits the stages before it hold, and takes hyper-parameters of EasyEdit', async () => {
    const { run, until, dataDir } = await start()
    const jobOf = (id: string, stage: number) =>
      JSON.parse(readFileSync(join(dataDir, 'handoffs', id, `stage-${stage}-edit`, 'worker-job.json'), 'utf8'))
    const hparams = { alg_name: 'AlphaEdit', v_lr: 0.1 }
    await run({ id: 'kept', method: 'alphaedit', stages: [50, 100], fluency_openings: 0, hparams })
    await until('kept', 'done')
    expect(jobOf('kept', 1)).toMatchObject({ method: 'alphaedit', adapters: [], edits: { length: 5 }, hparams })
    expect(jobOf('kept', 1).hparams).toEqual(hparams)
    expect(jobOf('kept', 1).kept).toBeUndefined()
    expect(jobOf('kept', 2)).toMatchObject({ adapters: { length: 1 }, edits: [{ id: 'e5' }, {}, {}, {}, {}] })
    expect(jobOf('kept', 2).kept.map(({ id }: { id: string }) => id)).toEqual(['e0', 'e1', 'e2', 'e3', 'e4'])
  })

  test('trained methods get all edits anew at each stage; distillation learns from the renderings of this gateway', async () => {
    const { run, until, dataDir } = await start()
    await run({ id: 'taught', method: 'distil', stages: [50, 100] })
    await until('taught', 'done')
    const folder = join(dataDir, 'handoffs', 'taught')
    const job = JSON.parse(readFileSync(join(folder, 'stage-2-edit', 'worker-job.json'), 'utf8'))
    expect(job).toMatchObject({ method: 'distil', adapters: [], edits: { length: 10 } })
    expect(job.transfer).toHaveLength(20)
    expect(job.transfer[0]).toMatchObject({ edits: ['e0'], question: 'Person 0 works for' })
    expect(job.transfer[0].edited.length).toBeGreaterThan(job.transfer[0].plain.length)
    expect(job.locality.length).toBeGreaterThan(10)
    const [line] = readFileSync(join(folder, 'transfer.jsonl'), 'utf8').split('\n')
    expect(JSON.parse(line ?? '').edited_text).toMatch(/Person 0 works for[\s\S]*Firm 0/)
    expect(JSON.parse(line ?? '').plain_text).not.toMatch(/Firm 0/)
  })

  test.each([
    ['wrong_base', /was made for/],
    ['nan', /not finite/],
    ['memory', /10\.2 GB/],
    ['malformed', /no JSON/, 'malformed_event'],
    ['killed', /ran out of memory/],
  ])('%s is shown with what to change', async (act, message, code = act) => {
    const { run, until } = await start()
    await run({ id: 'job', hparams: { act } })
    const job = await until('job', 'failed')
    expect(job.fault).toMatchObject(fault(code, message))
    expect(handoffText(job)).toMatch(/What to do: \S/)
  })

  test('a killed worker goes on with what was finished', async () => {
    const { run, until, call, dataDir } = await start()
    await run({ id: 'job', hparams: { act: 'dies_once' } })
    expect((await until('job', 'failed')).fault).toMatchObject(fault('killed', /SIGKILL/))
    const pieces = () => JSON.parse(readFileSync(join(dataDir, 'handoffs/job/stage-1-edit/work/pieces.json'), 'utf8'))
    expect(pieces()).toHaveLength(2)
    await call('POST', '/v1/handoffs/job/resume')
    await sleep(100)
    // Stage 2 and 3 hold one and five more edits, and the second of five is where it dies once more.
    expect((await until('job', 'failed')).stages.map(({ ok }) => ok)).toEqual([true, true])
    await call('POST', '/v1/handoffs/job/resume')
    expect((await until('job', 'done')).attempts).toBe(3)
  })

  test('one at a time; cancelled, resumed, and limited', async () => {
    const { run, until, call } = await start()
    await run({ id: 'slow', hparams: { ms: 300 } })
    await run({ id: 'next' })
    await run({ id: 'last' })
    await expect(run({ id: 'more' })).rejects.toMatchObject(fault('queue_full', /2 hand-offs wait/))
    await until('slow', 'running')
    expect((await call('GET', '/v1/handoffs')).data.map(({ id, state }: Job) => [id, state])).toEqual([
      ['last', 'queued'],
      ['next', 'queued'],
      ['slow', 'running'],
    ])
    expect(await call('POST', '/v1/handoffs/last/cancel')).toMatchObject({ state: 'cancelled' })
    expect(await call('POST', '/v1/handoffs/slow/cancel')).toMatchObject({ state: 'cancelled', adapter: null })
    await until('next', 'done')
    await call('POST', '/v1/handoffs/slow/resume')
    await expect(call('POST', '/v1/handoffs/next/cancel')).rejects.toMatchObject(fault('handoff_conflict', /is done/))
    await until('slow', 'done')
  })

  test('outlives the gateway', async () => {
    const { run, handoffs, again, call } = await start()
    await run({ id: 'long', hparams: { ms: 150 } })
    while (((await call('GET', '/v1/handoffs/long')) as Job).stages.length === 0) await sleep(20)
    await handoffs.close()
    const later = again()
    expect(later.get('default', 'long')).toMatchObject({ state: 'interrupted', attempts: 1 })
    later.start()
    while (later.get('default', 'long').state !== 'done') await sleep(20)
    expect(later.get('default', 'long')).toMatchObject({ attempts: 2, stages: { length: 3 } })
    await later.close()
  })
})

describe('reports', { timeout: 60_000 }, () => {
  test('of the newest are kept, and of what is promoted; adapters stay', async () => {
    const { run, until, call, dataDir } = await start({ kept: 1 })
    for (const id of ['first', 'second', 'third']) {
      await run({ id, stages: [100] })
      await until(id, 'done')
      if (id === 'first') await call('POST', '/v1/handoffs/first/promote')
    }
    await expect.poll(() => readdirSync(join(dataDir, 'handoffs')).sort()).toEqual(['first', 'third'])
    expect((await call('GET', '/v1/handoffs')).data.map(({ id }: Job) => id)).toEqual(['third', 'first'])
    expect((await call('GET', '/v1/adapters')).data).toHaveLength(3)
  })
})

describe('what is asked for', { timeout: 60_000 }, () => {
  test('is refused by name', async () => {
    const { run, call } = await start()
    await expect(run({ method: 'rome' })).rejects.toMatchObject(
      fault('invalid_value', /`method`.*'memit', 'alphaedit', 'pmet', 'lora', 'distil'/),
    )
    await expect(run({ stages: [0] })).rejects.toMatchObject({ param: 'stages[0]' })
    await expect(run({ thresholds: { efficacy: 2 } })).rejects.toMatchObject({ param: 'thresholds.efficacy' })
    await expect(run({ edits: ['nobody'] })).rejects.toMatchObject(fault('edit_not_found', /nobody/))
    await expect(run({ edits: { tag: 'none' } })).rejects.toMatchObject(fault('invalid_value', /No edit is left/))
    await expect(run({ surprise: 1 })).rejects.toMatchObject(fault('unknown_field', /surprise/))
    await expect(call('GET', '/v1/handoffs/none')).rejects.toMatchObject(fault('handoff_not_found', /none/))
  })

  test('edits whose prompt does not name their subject stay in the prompt', async () => {
    const { run, until, call } = await start({ edits: 4 })
    await call('POST', '/v1/edits', [{ id: 'vague', subject: 'Zed', prompt: 'He works for', target_new: 'X', tags: ['staff'] }])
    const job = await until((await run({ id: 'job' })).id, 'done')
    expect(job.edits).not.toContain('vague')
    expect(job.notes[0]).toMatch(/1 edits are left out: their prompt does not name/)
  })

  test('rules and sentences: refused by id where they have no place, else taught by their messages', async () => {
    const { run, until, call, gateway, dataDir } = await start({ edits: 4 })
    const none = { subject: '', aliases: [], paraphrases: [], tags: ['staff'], tenant: 'default' }
    const kinds: Edit[] = [
      { ...none, id: 'rule', kind: 'rule', prompt: 'someone wants a refund', targetNew: 'Be kind.', examples: ['Money back!'] },
      { ...none, id: 'said', kind: 'sentence', prompt: 'The shop opens at nine today.', targetNew: '' },
    ]
    await gateway.memory.land(kinds, { source: 'test', tenant: 'default', dryRun: false })
    await expect(run({ method: 'memit' })).rejects.toMatchObject({
      ...fault('invalid_value', /memit places one answer at one subject.*lora or distil.*rule \(a rule\), said \(a sentence\)/),
      param: 'edits',
    })
    expect(await call('GET', '/v1/handoffs/advice?tag=staff')).toMatchObject({
      options: expect.arrayContaining([
        expect.objectContaining({ method: 'memit', takes: 4, against: expect.stringMatching(/does not take 2 of the edits/) }),
        expect.objectContaining({ method: 'lora', takes: 6, against: null }),
      ]),
    })
    const job = await until((await run({ id: 'job', method: 'lora', thresholds: { efficacy: 0, paraphrase: 0 } })).id, 'done')
    expect(measure(job, job.stages.length - 1, 'taught')).toMatchObject({ asked: 2, least: null })
    const sent = JSON.parse(
      readFileSync(join(dataDir, 'handoffs', 'job', `stage-${job.stages.length}-edit`, 'worker-job.json'), 'utf8'),
    )
    expect(sent.transfer.map(({ edits, question }: { edits: string[]; question: string }) => [edits[0], question])).toEqual([
      ['rule', 'Money back!'],
      ['said', 'Complete this sentence: The shop opens …'],
    ])
    expect(
      sent.transfer.every(({ edited, plain }: Record<string, number[]>) => (edited?.length ?? 0) > (plain?.length ?? 0)),
    ).toBe(true)
  })

  test('without the editor it says how to get it; without a model file, what to serve', async () => {
    const { run } = await start({ editor: false })
    await expect(run({})).rejects.toMatchObject(fault('handoff_failed', /palimpsest handoff setup/))
  })

  test('advice', async () => {
    const { call } = await start()
    expect(await call('GET', '/v1/handoffs/advice?when=now&tag=staff')).toMatchObject({ method: 'prompt', edits: 10 })
    expect(await call('GET', '/v1/handoffs/advice?when=later')).toMatchObject({ method: 'lora', edits: 11 })
    await expect(call('GET', '/v1/handoffs/advice?when=soon')).rejects.toMatchObject({ param: 'when' })
  })
})

describe('promotion', { timeout: 60_000 }, () => {
  test('takes a snapshot, the edits leave the prompt, and return on rollback', async () => {
    const { run, until, call, dataDir } = await start({ edits: 4 })
    await run({ id: 'good' })
    await until('good', 'done')
    const ask = async () => {
      const reply = await call('POST', '/v1/chat/completions', {
        model: MODEL,
        messages: [{ role: 'user', content: 'Person 1 works for' }],
      })
      return { text: reply.choices[0].message.content, ...reply.palimpsest }
    }
    expect((await ask()).edits).toHaveLength(1)
    const promoted = await call('POST', '/v1/handoffs/good/promote')
    expect(promoted).toMatchObject({ id: 'good', promoted: true, snapshot: join(snapshotsDir(dataDir), 'one') })
    expect(await ask()).toMatchObject({ text: 'Firm 1', adapter: 'good', edits: [] })
    const [snapshot] = await listSnapshots(snapshotsDir(dataDir))
    expect(snapshot?.manifest?.files.map(({ path }) => path)).toContain('data/adapters/good/adapter.gguf')
    // As it was before: not promoted yet.
    expect(JSON.parse(readFileSync(join(snapshot?.path ?? '', 'data/adapters/good/adapter.json'), 'utf8')).promoted_at).toBeNull()
    expect(await call('POST', '/v1/handoffs/good/rollback')).toMatchObject({ promoted: false })
    expect((await ask()).edits).toHaveLength(1)
  })

  test('takes a snapshot also where an adapter is promoted directly', async () => {
    const { run, until, call, dataDir } = await start({ edits: 4 })
    await run({ id: 'good' })
    await until('good', 'done')
    await call('POST', '/v1/adapters/good/promote')
    expect((await listSnapshots(snapshotsDir(dataDir)))[0]?.manifest?.reason).toBe('before good was promoted')
  })

  test('is refused with every reason', async () => {
    const { run, until, call } = await start({ edits: 4 })
    for (const id of ['one', 'two']) {
      await run({ id })
      await until(id, 'done')
    }
    await call('POST', '/v1/handoffs/one/promote')
    await call('POST', '/v1/edits', [{ id: 'newer', subject: 'Person 2', prompt: 'Person 2 works for', target_new: 'Another' }])
    await call('POST', '/v1/edits/e3/withdraw')
    await expect(call('POST', '/v1/handoffs/two/promote')).rejects.toMatchObject(
      fault('handoff_conflict', /other_adapter: 'one' is promoted.*superseded: 1 edit \(e2\).*withdrawn: 1 edit \(e3\)/),
    )
    await expect(call('POST', '/v1/handoffs/two/promote', { replace: true })).rejects.toMatchObject(
      fault('handoff_conflict', /^(?!.*other_adapter)/),
    )
  })
})

describe('import', { timeout: 60_000 }, () => {
  test('takes in a GGUF as it is, and a folder by way of the editor', async () => {
    const { call, dataDir } = await start()
    writeFileSync(join(dataDir, 'mine.gguf'), '[]')
    expect(
      await call('POST', '/v1/handoffs/import', { id: 'mine', path: join(dataDir, 'mine.gguf'), edits: ['e1'] }),
    ).toMatchObject({
      ...{ id: 'mine', method: 'imported', edits: ['e1'], base_sha256: BASE, promoted: false },
    })
    writeFileSync(join(dataDir, 'deltas.safetensors'), 'x')
    expect(
      await call('POST', '/v1/handoffs/import', { id: 'theirs', path: join(dataDir, 'deltas.safetensors'), method: 'pmet' }),
    ).toMatchObject({
      ...{ id: 'theirs', method: 'pmet', edits: [] },
    })
    writeFileSync(join(dataDir, 'odd.gguf'), 'GGUF')
    await expect(call('POST', '/v1/handoffs/import', { id: 'odd', path: join(dataDir, 'odd.gguf') })).rejects.toMatchObject(
      fault('adapter_mismatch', /896 × 4864/),
    )
    await expect(call('POST', '/v1/handoffs/import', { id: 'no', path: '/nowhere' })).rejects.toMatchObject({ param: 'path' })
  })
})
