import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { assign } from '../../../src/experiment/assign.ts'
import type { Experiment } from '../../../src/experiment/experiment.ts'
import type { Outcome } from '../../../src/experiment/ledger/outcome.ts'
import { resultOf } from '../../../src/experiment/statistics/result.ts'
import { buildChild } from '../../support/built-child.ts'
import { experiment, ledgerIn } from '../../support/experiment-data.ts'

vi.setConfig({ testTimeout: 120_000 })
let built = ''
let child = ''

beforeAll(() => {
  ;({ built, child } = buildChild('experiment-kill-child'))
}, 120_000)
afterAll(() => rmSync(built, { recursive: true, force: true }))

let files = 0
const fresh = () => join(built, `${files++}.db`)
const outcome: Outcome = { latencyMs: 10, promptTokens: 1, completionTokens: 2, error: false, refusal: false, targetShown: true }
const exposure = (unit: string, arm: number, completion: string, of: Experiment = experiment()) => ({
  ...{ experiment: of, unit, arm, completion, at: 1, messages: [{ role: 'user' as const, content: completion }] },
})

describe('the ledger', () => {
  test('loses no acknowledged exposure when its process is killed', async () => {
    const dataDir = mkdtempSync(join(built, 'kill-'))
    const acknowledged = new Map<number, number>()
    for (let round = 0; round < 3; round++) {
      const running = spawn(process.execPath, [child, dataDir, String(round * 100_000)], { stdio: ['ignore', 'pipe', 'inherit'] })
      let heard = 0
      for await (const line of createInterface({ input: running.stdout })) {
        const [, n, arm] = line.split(' ').map(Number) as [number, number, number]
        acknowledged.set(n, arm)
        if (++heard === 20 * (round + 1)) running.kill('SIGKILL')
      }
      const ledger = ledgerIn(join(dataDir, 'palimpsest.db'))
      for (const [n, arm] of acknowledged) expect(ledger.armOf(experiment(), `user ${n}`)).toBe(arm)
      ledger.close()
    }
    expect(acknowledged.size).toBeGreaterThanOrEqual(120)
  })

  test('is not needed for two processes to come to the same arms', () => {
    const said = execFileSync(process.execPath, [child, '', '0', '500'], { encoding: 'utf8' })
    expect(said.trim()).toBe(Array.from({ length: 500 }, (_, unit) => assign(experiment(), `user ${unit}`)).join(''))
  })

  test('keeps a unit in its first arm through changed weights and a restart, and counts it once', () => {
    const file = fresh()
    const first = ledgerIn(file)
    expect(first.expose(exposure('u', 0, 'c1'))).toBe(0)
    const later = experiment({ epoch: 2 })
    expect(first.expose(exposure('u', 1, 'c2', later))).toBe(0)
    first.close()
    const second = ledgerIn(file)
    expect(second.expose(exposure('u', 1, 'c3', later))).toBe(0)
    expect(second.expose(exposure('u', 1, 'c3', later))).toBe(0)
    expect(second.counts(later)).toEqual([{ epoch: 1, arm: 0, units: 1 }])
    expect(second.answers(later)).toEqual([{ arm: 0, answers: 3, unfinished: 3 }])
    expect(second.expose(exposure('u', 1, 'c4', experiment({ version: 2 })))).toBe(1)
    second.close()
  })

  test('takes each outcome and each feedback once, and feedback of the right tenant only', () => {
    const ledger = ledgerIn(fresh())
    ledger.expose(exposure('u', 1, 'c'))
    ledger.finish('c', outcome)
    ledger.finish('c', { ...outcome, targetShown: false })
    const said = { tenant: 'default', completion: 'c', id: 'f', at: 1, label: 'wrong', numbers: { stars: 2 } }
    expect(ledger.feedback({ ...said, tenant: 'other' })).toBe('no_exposure')
    expect([ledger.feedback(said), ledger.feedback(said)]).toEqual(['recorded', 'known'])
    expect(['g', 'h'].map((id) => ledger.feedback({ ...said, id, numbers: {} }))).toEqual(['recorded', 'too_much'])
    const mean = (metric: Parameters<typeof ledger.samples>[1]) =>
      ledger.samples(experiment(), metric).map(({ n, mean }) => [n, mean])
    expect(mean('target_shown')).toEqual([[1, 1]])
    expect(mean('negative_feedback')).toEqual([[1, 1]])
    expect(mean('label:wrong')).toEqual([[1, 1]])
    expect(mean('label:fine')).toEqual([[1, 0]])
    expect(mean('number:stars')).toEqual([[1, 2]])
    expect(mean('number:other')).toEqual([])
    expect(mean('latency_ms')[0]?.[1]).toBeCloseTo(Math.log(10), 9)
    ledger.close()
  })

  test('is bounded: ended experiments make room, then no more units are taken', () => {
    const ledger = ledgerIn(fresh(), { ledgerAnswers: 4 })
    const event = { at: 1, kind: 'test', body: {} }
    const old = experiment({ id: 'old', status: 'stopped', endedAt: 5 })
    ledger.save(old, event)
    ledger.save(experiment({ logPrompts: true }), event)
    for (let n = 0; n < 4; n++) ledger.expose(exposure(`u${n}`, 0, `old ${n}`, old))
    const running = experiment({ logPrompts: true })
    for (let n = 0; n < 4; n++) expect(ledger.expose(exposure(`u${n}`, 0, `c${n}`, running))).toBe(0)
    expect(ledger.counts(old)).toEqual([])
    expect(ledger.expose(exposure('late', 0, 'c4', running))).toBeUndefined()
    expect(ledger.prompts('default/e').map((messages) => messages[0]?.content)).toEqual(['c1', 'c2', 'c3'])
    ledger.close()
  })
})

describe('a result', () => {
  const fill = (split: (n: number) => number, units: number) => {
    const ledger = ledgerIn(fresh())
    ledger.save(experiment(), { at: 0, kind: 'declared', body: {} })
    for (let n = 0; n < units; n++) {
      const arm = split(n)
      ledger.expose(exposure(`u${n}`, arm, `c${n}`))
      ledger.finish(`c${n}`, { ...outcome, targetShown: arm === 1 || n % 4 === 0 })
    }
    return ledger
  }

  test('has estimate, sequence and fixed interval beside each other', () => {
    const ledger = fill((n) => n % 2, 400)
    const [found] = resultOf(experiment(), ledger).metrics
    expect(found?.means).toEqual([0.5, 1])
    expect(found?.comparison?.estimate).toBe(0.5)
    const { sequence, fixed } = found?.comparison ?? {}
    expect(sequence?.low).toBeLessThan(fixed?.low ?? 0)
    expect(sequence?.low).toBeGreaterThan(0)
    expect(found?.significant).toBe(true)
    ledger.close()
  })

  test('is blocked where an arm is too empty for its weight', () => {
    const ledger = fill((n) => (n % 3 === 0 ? 1 : 0), 400)
    const { blocked, metrics } = resultOf(experiment(), ledger)
    expect(blocked).toBe(true)
    expect(metrics[0]).toMatchObject({ comparison: null, significant: false })
    ledger.close()
  })
})
