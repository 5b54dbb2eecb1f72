import { afterEach, describe, expect, test } from 'vitest'
import { trialOf } from '../../../src/cli/check/trial.ts'
import { client } from '../../../src/cli/client/client.ts'
import { parseBatch } from '../../../src/edit/batch.ts'
import type { PairReader } from '../../../src/engine/engine.ts'
import type { SelectionQuery } from '../../../src/request.ts'
import { latest } from '../../../src/selection/sameness.ts'
import { fakeEmbedder, READ_CALIBRATION } from '../../support/memory-fixture.ts'
import { MODEL, type Served, serve } from '../fakes.ts'

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

const TOPICS = [/work|pay|employ/, /live/, /sing/, /swim/, /run/, /lead/]
const topicOf = (text: string) => TOPICS.findIndex((topic) => topic.test(text))
/** An edit is needed where the text is of its topic, or of none and names Ada Quist. */
const byTopic: PairReader = {
  name: 'topics',
  read: async (pairs) =>
    Float32Array.from(pairs, ([text, stated]) => {
      const topic = topicOf(text)
      return (topic === -1 ? /Quist/.test(text) && /Quist/.test(stated) : topic === topicOf(stated)) ? 5 : -5
    }),
  close: async () => {},
}

/** Any two texts are as close as can be, so that the reader alone tells them apart. */
const close = () => fakeEmbedder({ dimensions: 2, vector: () => Float32Array.of(1, 0) })

async function start(embedder = close()) {
  const served = await serve({ embedder, reader: byTopic, gateway: { calibration: READ_CALIBRATION } })
  open.push(served)
  const gateway = client(served.base, {}, null)
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  const call = (method: string, path: string, body?: unknown) => gateway.json<any>(method, path, body)
  const considered = async (question: string) => (await call('POST', '/v1/edits/explain', { question })).turns[0].considered
  const selected = async (question: string): Promise<string[]> =>
    (await considered(question))
      .filter(({ reason }: { reason: string }) => reason === 'selected')
      .map(({ id }: { id: string }) => id)
  return { ...served, client: gateway, call, considered, selected }
}

const ada = (id: string, prompt: string, fields: object = {}) => ({
  ...{ id, subject: 'Ada Quist', prompt, target_new: `Firm ${id}`, ...fields },
})

describe('a later edit in other words', () => {
  test('stands in for the earlier, which says so, and comes back when it is withdrawn', async () => {
    const { call, considered, selected } = await start()
    await call('POST', '/v1/edits', [ada('a', 'Ada Quist works for')])
    await call('POST', '/v1/edits', [ada('b', 'Who pays Ada Quist?')])
    expect((await call('GET', '/v1/edits/a')).state).toBe('live')
    expect(await selected('Whom does Ada Quist work for?')).toEqual(['b'])
    expect(await considered('Whom does Ada Quist work for?')).toContainEqual(
      expect.objectContaining({ id: 'a', reason: 'outdated', outdated_by: 'b', score: 0 }),
    )
    await call('POST', '/v1/edits/b/withdraw')
    expect(await selected('Whom does Ada Quist work for?')).toEqual(['a'])
  })

  test('is the one that landed later, also when an earlier one is revised', async () => {
    const { call, selected } = await start()
    await call('POST', '/v1/edits', [ada('a', 'Ada Quist works for'), ada('b', 'Who pays Ada Quist?')])
    expect(await selected('Ada Quist?')).toEqual(['b'])
    await call('POST', '/v1/edits', [ada('a', 'Ada Quist works for', { target_new: 'Firm z' })])
    expect(await selected('Ada Quist?')).toEqual(['a'])
  })

  test('leaves siblings that say other things alone, and acts no more once it is withdrawn', async () => {
    const { call, selected } = await start()
    await call('POST', '/v1/edits', [
      ada('a', 'Ada Quist works for'),
      ada('l', 'Ada Quist lives in'),
      ada('b', 'Who pays Ada Quist?'),
    ])
    expect((await selected('Ada Quist?')).toSorted()).toEqual(['b', 'l'])
    expect(await selected('Where does Ada Quist live?')).toEqual(['l'])
    await call('POST', '/v1/edits/withdraw', { ids: ['b', 'l'] })
    expect(await selected('Ada Quist?')).toEqual(['a'])
    expect(await selected('Where does Ada Quist live?')).toEqual([])
  })
})

describe('a dry run', () => {
  test('reports what the batch would do, with line and id of both sides', async () => {
    const { call, client } = await start()
    await call('POST', '/v1/edits', [ada('held', 'The employer of Ada Quist is')])
    const records = [
      ada('x', 'Ada Quist works for'),
      ada('y', 'What is the employer of Ada Quist?'),
      { subject: 'US', prompt: 'The leader of the country is', target_new: 'Bo Ek', id: 'z' },
    ]
    const body = records.map((record) => JSON.stringify(record)).join('\n\n')
    const headers = { 'Content-Type': 'application/x-ndjson' }
    const answer = await client.send('/v1/edits?dry_run=true', { method: 'POST', body, headers })
    // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
    const { report } = (await answer.json()) as any
    const sides = report.findings.map(({ kind, edit, other }: Record<string, unknown>) => [kind, edit, other])
    expect(sides).toEqual([
      ['conflict_in_other_words', { id: 'y', index: 1, line: 3 }, { id: 'x', index: 0, line: 1 }],
      ['supersedes', { id: 'y', index: 1, line: 3 }, { id: 'held', index: null, line: null }],
      ['subject_not_in_prompt', { id: 'z', index: 2, line: 5 }, null],
    ])
    expect(report).toMatchObject({
      counts: { supersedes: 1, conflict_in_other_words: 1, subject_not_in_prompt: 1 },
      pairs_left: 0,
      fault: null,
    })
    expect((await call('GET', '/v1/edits')).total).toBe(1)
  })

  test('is what reports: landing does not', async () => {
    const { call } = await start()
    expect(await call('POST', '/v1/edits', [ada('a', 'Ada Quist works for')])).not.toHaveProperty('report')
  })
})

describe('edits for certain models', () => {
  const scoped = [
    ada('all', 'Ada Quist works for'),
    ada('mine', 'Ada Quist lives in', { models: ['SCRIPT*'] }),
    ada('theirs', 'Ada Quist sings in', { models: ['llama-*'] }),
  ]

  test('apply to these alone, and are listed by model', async () => {
    const { call, selected } = await start(fakeEmbedder())
    await call('POST', '/v1/edits', scoped)
    expect((await selected('Ada Quist?')).toSorted()).toEqual(['all', 'mine'])
    const ids = async (path: string) => (await call('GET', path)).data.map(({ id }: { id: string }) => id).toSorted()
    expect(await ids(`/v1/edits?model=${MODEL}`)).toEqual(['all', 'mine'])
    expect(await ids('/v1/edits?model=llama-2-7b-chat')).toEqual(['all', 'theirs'])
    expect(await call('GET', '/v1/edits/theirs')).toMatchObject({
      models: ['llama-*'],
      history: [{ edit: { models: ['llama-*'] } }],
    })
    expect(await call('GET', '/v1/edits/all')).not.toHaveProperty('models')
  })

  test('are refused by id for another', async () => {
    const { call } = await start()
    await call('POST', '/v1/edits', scoped)
    const body = { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], palimpsest: { edits: ['theirs'] } }
    await expect(call('POST', '/v1/chat/completions', body)).rejects.toThrow('Edit `theirs` is for llama-* only')
  })

  test('beat what was said earlier for all, there alone; each model is remembered apart', async () => {
    const { call, gateway } = await start()
    await call('POST', '/v1/edits', [ada('all', 'Ada Quist works for'), ada('mine', 'Ada Quist works for', { models: [MODEL] })])
    const messages = [{ role: 'user' as const, content: 'Ada Quist?' }]
    const left = async (model: string) => {
      const asked: SelectionQuery = { model, messages, tenant: 'default', edits: { kind: 'on' }, tags: [] }
      const { candidates } = await gateway.retriever.candidates(asked, 0)
      const { current } = await latest(asked, candidates, READ_CALIBRATION, gateway.retriever)
      return current.map(({ edit }) => edit.id)
    }
    expect(await left(MODEL)).toEqual(['mine'])
    expect(await left('llama-2')).toEqual(['all'])
    expect(await left(MODEL)).toEqual(['mine'])
  })

  test('can be written in every notation', () => {
    const csv = 'subject,prompt,target_new,models\nLund,The mayor of Lund is,Ada,qwen*|llama-2\nLund,The river of Lund is,Orm,\n'
    const read = (text: string, kind: 'csv' | 'yaml') =>
      parseBatch(text, { kind, tenant: 'default' }).edits.map(({ models }) => models)
    expect(read(csv, 'csv')).toEqual([['qwen*', 'llama-2'], undefined])
    const yaml = '- {subject: Lund, prompt: The mayor of Lund is, target_new: Ada, models: [qwen*, llama-2]}'
    expect(read(yaml, 'yaml')).toEqual([['qwen*', 'llama-2']])
    expect(() => read('- {subject: Lund, prompt: p, target_new: Ada, models: qwen}', 'yaml')).toThrow('expected a list of texts')
  })
})

describe('a trial over HTTP', () => {
  const batch = (...records: object[]) => parseBatch(JSON.stringify(records), { tenant: 'default' }).edits
  const trial = (served: Awaited<ReturnType<typeof start>>, revises: string[] = [], run = 'check-1') =>
    trialOf({
      ...{ client: served.client, model: MODEL, maxTokens: 8, run, revises: new Set(revises) },
      signal: new AbortController().signal,
    })

  test('asks either arm, and says which edits applied', async () => {
    const served = await start(fakeEmbedder())
    const { ask, land } = trial(served)
    expect(await land(batch(ada('a', 'Ada Quist works for')))).toEqual(new Set(['a']))
    expect((await ask('Ada Quist?', 'edited')).edits).toEqual(['a'])
    expect((await ask('Ada Quist?', 'base')).edits).toEqual([])
  })

  test('takes back all that it landed, and leaves the rest as it was', async () => {
    const served = await start(fakeEmbedder())
    const { call } = served
    await call('POST', '/v1/edits', [
      ada('superseded', 'Ada Quist works for'),
      ada('revised', 'Ada Quist lives in'),
      ada('withdrawn', 'Ada Quist sings in'),
      ada('same', 'Ada Quist swims in'),
      ada('both', 'Ada Quist runs in'),
    ])
    await call('POST', '/v1/edits/withdraw', { ids: ['withdrawn', 'both'] })
    const { land, rollBack } = trial(served, ['revised', 'both'])
    const first = batch(ada('new', 'Ada Quist works for'), ada('revised', 'Ada Quist lives in', { target_new: 'Orm' }))
    expect(await land(first)).toEqual(new Set(['new', 'revised']))
    const second = batch(
      ada('withdrawn', 'Ada Quist sings in'),
      ada('same', 'Ada Quist swims in'),
      ada('both', 'Ada Quist runs in', { target_new: 'Orm' }),
    )
    expect(await land(second)).toEqual(new Set(['withdrawn', 'same', 'both']))
    await rollBack()
    const { data } = await call('GET', '/v1/edits')
    const found = data.map(({ id, state, target_new }: Record<string, string>) => `${id} ${state} ${target_new}`)
    expect(found.toSorted()).toEqual([
      'both withdrawn Firm both',
      'new withdrawn Firm new',
      'revised live Firm revised',
      'same live Firm same',
      'superseded live Firm superseded',
      'withdrawn withdrawn Firm withdrawn',
    ])
  })

  test('that is run again after it was taken back lands again', async () => {
    const served = await start(fakeEmbedder())
    const edits = batch(ada('a', 'Ada Quist works for'))
    const once = trial(served)
    await once.land(edits)
    await once.rollBack()
    expect(await trial(served, [], 'check-2').land(edits)).toEqual(new Set(['a']))
    expect((await served.call('GET', '/v1/edits/a')).state).toBe('live')
  })
})
