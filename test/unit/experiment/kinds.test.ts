import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import { Allocator } from '../../../src/experiment/allocate.ts'
import type { Experiment } from '../../../src/experiment/experiment.ts'
import { Experiments } from '../../../src/experiment/experiments.ts'
import type { Ledger } from '../../../src/experiment/ledger/ledger.ts'
import { hasTarget, shows, showsAny } from '../../../src/experiment/ledger/outcome.ts'
import { type Answerer, type Pair, Replays } from '../../../src/experiment/replay/replay.ts'
import { replayResult } from '../../../src/experiment/replay/replay-result.ts'
import { Rollouts } from '../../../src/experiment/rollout/rollouts.ts'
import { DEFAULT_LIMITS } from '../../../src/gateway.ts'
import type { ChatRequest } from '../../../src/request.ts'
import { SqliteSql } from '../../../src/storage/sqlite-sql.ts'
import { readRollout } from '../../../src/wire/palimpsest/experiments.ts'
import { experiment, ledgerOf } from '../../support/experiment-data.ts'
import { fact } from '../../support/memory-data.ts'

const rule = (id: string, more: Partial<Edit> = {}) =>
  fact(0, { kind: 'rule', id, subject: '', prompt: 'someone asks for a refund', targetNew: 'Answer in French.', ...more })
const sentence = (id: string, more: Partial<Edit> = {}) =>
  fact(0, { kind: 'sentence', id, subject: '', prompt: 'The shop opens at nine.', targetNew: '', ...more })

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

async function registryIn() {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-kinds-'))
  const database = new SqliteSql(join(dir, 'palimpsest.db'), { durable: false })
  const ledger = await ledgerOf(database, { replayPairs: 1_000 })
  const registry = await Experiments.open({ ledger, now: () => 1, runningExperiments: 10, warn: () => {} })
  closing.push(async () => {
    await registry.close()
    await ledger.close()
    await database.close()
    rmSync(dir, { recursive: true, force: true })
  })
  return { ledger, registry }
}

describe('an edit without a target', () => {
  test('has none in any answer', () => {
    expect([shows('Anything.', ''), shows('', ''), shows('Anything.', ' … ')]).toEqual([false, false, false])
    expect([showsAny('Anything.', ['']), showsAny('Anything.', [])]).toEqual([null, null])
    expect([showsAny('It is Rome.', ['', 'Rome']), showsAny('It is Oslo.', ['', 'Rome'])]).toEqual([true, false])
    expect([fact(0), rule('r'), sentence('s')].map(hasTarget)).toEqual([true, false, false])
  })

  test.each([
    [[''], null],
    [['', 'Rome'], 1],
    [['Oslo'], 0],
  ])('leaves an outcome open, unless another has one: %j', async (targets, wanted) => {
    const { ledger, registry } = await registryIn()
    await registry.declare(experiment({ id: 'e' }))
    const request = {
      ...{ model: 'm', tenant: 'default', arm: 'edited', edits: { kind: 'on' }, tags: [], explain: false },
      ...{ messages: [{ role: 'user', content: 'Where?' }], sampling: { temperature: 0, topP: 1, stop: [] }, user: 'u' },
      caller: { completion: 'c', user: 'u' },
    } as unknown as ChatRequest
    const allocator = new Allocator(registry, () => 1)
    const [contest] = allocator.contests(request)
    const chosen = { edits: '[[0,"s",""]]', targets }
    const { done } = (contest && (await allocator.expose(contest, [chosen, chosen]))) ?? {}
    done?.('It is Rome.', { promptTokens: 1, completionTokens: 1 })
    expect(await shown(ledger, registry.get('default', 'e'))).toBe(wanted)
  })
})

async function shown(ledger: Ledger, of: Experiment): Promise<number | null> {
  const [sample] = (await ledger.samples(of, 'target_shown')).filter(({ n }) => n > 0)
  return sample?.mean ?? null
}

describe('a replay', () => {
  const answer = (text: string, edits: string[], targetShown: boolean | null) => ({
    ...{ text, edits, targetShown, refusal: false, latencyMs: 1 },
  })
  const pair = (edits: string[], targetShown: boolean | null): Pair => ({
    ...{ origin: 'uploaded', question: 'Q?', verdicts: [] },
    answers: [answer('before', [], targetShown === null ? null : false), answer('after', edits, targetShown)],
  })

  test('counts what rules and sentences changed, but neither as shown nor as damage', () => {
    const pairs = [pair(['s'], null), pair(['f'], true), pair(['f'], false)]
    expect(replayResult(experiment(), pairs, 1)).toMatchObject({
      ...{ changed: 3, exposed: 3, targetShown: { n: 2, gained: 1 }, collateral: { n: 2, changed: 1 } },
      edits: [
        { id: 'f', pairs: 2, changed: 2, gained: 1 },
        { id: 's', pairs: 1, changed: 1, gained: 0, lost: 0 },
      ],
    })
    const ruled = [pair(['r'], false), pair(['r', 'f'], false)]
    expect(replayResult(experiment(), ruled, 1, new Set(['r'])).collateral).toEqual({ n: 1, changed: 1 })
  })
})

describe('a rollout', () => {
  /** Edits that apply to a message by its words. */
  async function roll(batch: readonly Edit[], applies: (question: string) => Edit | undefined) {
    const { ledger, registry } = await registryIn()
    const asked: string[] = []
    const answer: Answerer['answer'] = async ({ messages, withoutBatches = [] }) => {
      const question = messages.at(-1)?.content ?? ''
      asked.push(question)
      const edit = withoutBatches.length > 0 ? undefined : applies(question)
      const told = { edits: edit === undefined ? [] : [edit.id], targets: edit === undefined ? [] : [edit.targetNew] }
      return { ...told, text: edit === undefined ? 'As ever.' : 'Autrement.', latencyMs: 1, completionTokens: 1 }
    }
    const answerer: Answerer = {
      model: 'm',
      load: () => 0,
      answer,
      answers: async (requests, signal) => {
        if (applies(requests[0]?.messages.at(-1)?.content ?? '') === undefined) return null
        return Promise.all(requests.map((request) => answer(request, signal)))
      },
    }
    const replays = new Replays({ registry, replayQueue: 1_000, warn: () => {} })
    const other = rule('other', { prompt: '', always: true, examples: ['Another matter?'] })
    const rollouts = new Rollouts({
      ...{ registry, replays, unrelated: ['What is rain?'], now: () => 1, warn: () => {}, tickMs: 1e9 },
      batches: {
        has: () => true,
        live: (_, __, others) => (others ? [other, sentence('silent', { prompt: '' })] : batch),
        withdraw: async () => {},
      },
    })
    closing.unshift(async () => {
      await rollouts.close()
      await replays.close()
    })
    const body = {
      id: 'r',
      batch: 'b',
      stages: [{ share: 0, least: 2 }, { share: 0.5 }],
      guardrails: { locality: 1, collateral: 0.3 },
    }
    await registry.declare(readRollout(body, DEFAULT_LIMITS, 'default', { now: 1, source: 'test' }))
    replays.start(answerer)
    await rollouts.look()
    await vi.waitFor(async () => expect(await replays.waiting(registry.get('default', 'r'))).toBe(0))
    await replays.idle()
    await rollouts.look()
    return {
      asked: new Set(asked),
      pairs: await ledger.pairs<Pair>({ ...registry.get('default', 'r'), version: 1 }),
      of: registry.get('default', 'r'),
    }
  }
  const questions = (pairs: readonly Pair[], origin: Pair['origin']) =>
    pairs.flatMap((one) => (one.origin === origin ? (one.question ?? []) : [])).sort()

  test('of a rule tries its examples, holds its counterexamples still, and advances though no target shows', async () => {
    const examples = Array.from({ length: 30 }, (_, i) => `Refund number ${i}, please.`)
    const own = rule('r', { examples, counterexamples: ['What is a refund?'] })
    const { pairs, of } = await roll([own], (question) => (question.startsWith('Refund') ? own : undefined))
    expect(questions(pairs, 'own')).toEqual([...examples].sort())
    expect(questions(pairs, 'locality')).toEqual(['Another matter?', 'What is a refund?', 'What is rain?'])
    expect(of).toMatchObject({ status: 'running', rollout: { stage: 1, outcome: 'under_way' } })
  })

  test('of a rule for every message takes no question for one that is to stay', async () => {
    const own = rule('r', { prompt: '', always: true, counterexamples: ['Stay.'] })
    const { pairs, of } = await roll([own, sentence('s', { examples: ['When?'] })], (question) =>
      question === 'Stay.' ? undefined : own,
    )
    expect(questions(pairs, 'own')).toEqual(['Another matter?', 'What is rain?', 'When?'])
    expect(questions(pairs, 'locality')).toEqual(['Stay.'])
    expect(of.rollout).toMatchObject({ stage: 1 })
  })
})
