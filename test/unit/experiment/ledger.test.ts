import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { assign } from '../../../src/experiment/assign.ts'
import type { Experiment, Metric } from '../../../src/experiment/experiment.ts'
import type { Ledger } from '../../../src/experiment/ledger/ledger.ts'
import type { Outcome } from '../../../src/experiment/ledger/outcome.ts'
import { resultOf, resultsOverTime } from '../../../src/experiment/statistics/result.ts'
import { Database } from '../../../src/storage/database.ts'
import { SqliteSql } from '../../../src/storage/sqlite-sql.ts'
import { buildChild } from '../../support/built-child.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'
import { experiment, ledgerOf } from '../../support/experiment-data.ts'

vi.setConfig({ testTimeout: 120_000 })

const outcome: Outcome = { latencyMs: 10, promptTokens: 1, completionTokens: 2, error: false, refusal: false, targetShown: true }
const exposure = (unit: string, arm: number | null, completion: string, of: Experiment = experiment()) => ({
  ...{ experiment: of, unit, arm, completion, at: 1, messages: [{ role: 'user' as const, content: completion }] },
})
const save = (ledger: Ledger, of: Experiment) =>
  ledger.atOnce('saving', async (turn) => turn.save(of, await turn.lockChanges(), { at: 1, kind: 'test', body: {} }))

describe.each(DIALECTS)('the ledger over %s', (dialect) => {
  const { open, again } = databases(dialect)

  test('keeps a unit in its first arm through changed weights and another gateway, and counts it once', async () => {
    const database = await open()
    const first = await ledgerOf(database)
    expect(await first.expose(exposure('u', 0, 'c1'))).toBe(0)
    const later = experiment({ epoch: 2 })
    expect(await first.expose(exposure('u', 1, 'c2', later))).toBe(0)
    const second = await ledgerOf(again(database))
    expect(await second.expose(exposure('u', 1, 'c3', later))).toBe(0)
    expect(await second.expose(exposure('u', 1, 'c3', later))).toBe(0)
    expect(await second.counts(later)).toEqual([{ epoch: 1, arm: 0, units: 1 }])
    expect(await second.answers(later)).toEqual([{ arm: 0, answers: 3, unfinished: 3 }])
    expect(await second.expose(exposure('u', 1, 'c4', experiment({ version: 2 })))).toBe(1)
  })

  test('has no part for a unit outside of all arms, unless it was exposed', async () => {
    const ledger = await ledgerOf(await open())
    expect(await ledger.expose(exposure('u', null, 'c1'))).toBe('no_part')
    expect(await ledger.expose(exposure('u', 1, 'c2'))).toBe(1)
    expect(await ledger.expose(exposure('u', null, 'c3'))).toBe(1)
    expect(await ledger.answers(experiment())).toEqual([{ arm: 1, answers: 2, unfinished: 2 }])
  })

  test('has 200 units that two gateways expose at once, with other weights, in exactly one arm each', async () => {
    const database = await open()
    const ledgers = [await ledgerOf(database), await ledgerOf(again(database))]
    const weights = [
      [9, 1],
      [1, 9],
    ]
    const dealt = ledgers.map((ledger, node) => {
      const arms = experiment().arms.map((arm, at) => ({ ...arm, weight: weights[node]?.[at] ?? 1 }))
      const of = experiment({ epoch: node + 1, arms })
      return { ledger, of, arms: Array.from({ length: 200 }, (_, n) => assign(of, `u${n}`) ?? null) }
    })
    // The two do differ in what they would deal.
    expect(dealt[0]?.arms.filter((arm, n) => arm !== dealt[1]?.arms[n]).length).toBeGreaterThan(100)
    // Each deals one for sure: the first to have its connection may deal all the others.
    for (const [n, { ledger, of, arms }] of dealt.entries())
      expect(await ledger.expose(exposure(`u${n}`, arms[n] ?? null, `first ${n}`, of))).toBe(arms[n])
    const answered = await Promise.all(
      Array.from({ length: 200 }, (_, n) =>
        Promise.all(
          // Now one is first, now the other.
          [0, 1, 2].flatMap((time) =>
            (n % 2 === 0 ? dealt : dealt.toReversed()).map(({ ledger, of, arms }) =>
              ledger.expose(exposure(`u${n}`, arms[n] ?? null, `${n} ${of.epoch} ${time}`, of)),
            ),
          ),
        ),
      ),
    )
    expect(answered.filter((arms) => new Set(arms).size !== 1)).toEqual([])
    const counted = await ledgers[0]?.counts(experiment())
    expect(counted?.reduce((sum, { units }) => sum + units, 0)).toBe(200)
    const answers = (await ledgers[1]?.answers(experiment())) ?? []
    expect(answers.reduce((sum, row) => sum + row.answers, 0)).toBe(1_202)
    // Both gateways dealt some.
    expect(new Set(counted?.map(({ epoch }) => epoch))).toEqual(new Set([1, 2]))
  })

  test('takes each outcome and each feedback once, and feedback of the right tenant only', async () => {
    const ledger = await ledgerOf(await open())
    await ledger.expose(exposure('u', 1, 'c'))
    await ledger.finish('c', outcome)
    await ledger.finish('c', { ...outcome, targetShown: false })
    const said = { tenant: 'default', completion: 'c', id: 'f', at: 1, label: 'wrong', numbers: { stars: 2, 'a.b': -0.5 } }
    expect(await ledger.feedback({ ...said, tenant: 'other' })).toBe('no_exposure')
    expect([await ledger.feedback(said), await ledger.feedback(said)]).toEqual(['recorded', 'known'])
    expect([
      await ledger.feedback({ ...said, id: 'g', numbers: {} }),
      await ledger.feedback({ ...said, id: 'h', numbers: {} }),
    ]).toEqual(['recorded', 'too_much'])
    const mean = async (metric: Metric) =>
      (await ledger.samples(experiment(), metric)).map(({ n, mean }): [number, number] => [n, mean])
    expect(await mean('target_shown')).toEqual([[1, 1]])
    expect(await mean('negative_feedback')).toEqual([[1, 1]])
    expect(await mean('score')).toEqual([])
    expect(await mean('label:wrong')).toEqual([[1, 1]])
    expect(await mean('label:fine')).toEqual([[1, 0]])
    expect(await mean('number:stars')).toEqual([[1, 2]])
    expect(await mean('number:a.b')).toEqual([[1, -0.5]])
    expect(await mean('number:other')).toEqual([])
    expect((await mean('latency_ms'))[0]?.[1]).toBeCloseTo(Math.log(10), 9)
    expect((await mean('completion_tokens'))[0]?.[1]).toBeCloseTo(Math.log(2), 9)
    expect(await mean('asked_again')).toEqual([[1, 0]])
    await ledger.askedAgain('c')
    expect(await mean('asked_again')).toEqual([[1, 1]])
    expect(await ledger.firstAnswer(experiment(), 1)).toBe(1)
    expect(await ledger.firstAnswer(experiment(), 0)).toBeNull()
    expect(await ledger.answersEver(experiment(), 1)).toBe(1)
    expect(await ledger.experimentOf('c')).toBe('default/e')
  })

  test('is bounded: ended experiments make room, then no more units are taken, whichever gateway took them', async () => {
    const database = await open()
    const ledger = await ledgerOf(database, { ledgerAnswers: 4 })
    const other = await ledgerOf(again(database), { ledgerAnswers: 4 })
    const old = experiment({ id: 'old', status: 'stopped', endedAt: 5 })
    await save(ledger, old)
    await save(ledger, experiment())
    for (let n = 0; n < 4; n++) await ledger.expose(exposure(`u${n}`, 0, `old ${n}`, old))
    await ledger.feedback({ tenant: 'default', completion: 'old 1', id: 'f', at: 1, score: 1, numbers: {} })
    await ledger.look()
    await other.look()
    // The other makes room, which this one learns of at its next look.
    for (let n = 0; n < 2; n++) expect(await other.expose(exposure(`u${n}`, 0, `c${n}`))).toBe(0)
    await other.look()
    await ledger.look()
    expect(await ledger.counts(old)).toEqual([])
    expect(await ledger.feedback({ tenant: 'default', completion: 'old 1', id: 'f', at: 1, numbers: {} })).toBe('no_exposure')
    for (let n = 2; n < 4; n++) expect(await ledger.expose(exposure(`u${n}`, 0, `c${n}`))).toBe(0)
    expect(await ledger.expose(exposure('late', 0, 'c4'))).toBe('full')
    await ledger.look()
    await other.look()
    expect(await other.expose(exposure('late', 0, 'c4'))).toBe('full')
    // Another that opens counts what is there.
    const third = await ledgerOf(again(database), { ledgerAnswers: 4 })
    expect(await third.expose(exposure('late', 0, 'c4'))).toBe('full')
    await Promise.all([ledger, other, third].map((one) => one.close()))
  })

  test('asks for no count, nor for anything but the exposure, at a request', async () => {
    const database = await open()
    const ledger = await ledgerOf(database)
    const asked: string[] = []
    const note = async (doing: string) => {
      asked.push(doing)
      return []
    }
    const spied = vi.spyOn(database, 'all').mockImplementation(note)
    const inTurn = vi.spyOn(database, 'atOnce').mockImplementation((doing) => note(doing) as Promise<never>)
    await ledger.expose(exposure('u', 0, 'c'))
    expect(asked).toEqual(['recording an exposure'])
    spied.mockRestore()
    inTurn.mockRestore()
  })

  test('keeps the latest of the prompts that it logs', async () => {
    const ledger = await ledgerOf(await open())
    for (let n = 0; n < 5; n++) await ledger.logPrompt(exposure(`u${n}`, 0, `c${n}`))
    expect((await ledger.prompts('default/e')).map((messages) => messages[0]?.content)).toEqual(['c2', 'c3', 'c4'])
  })

  test('numbers changes without a gap, and lets one at a time be made', async () => {
    const database = await open()
    const [one, two] = [await ledgerOf(database), await ledgerOf(again(database))]
    const before = await one.look()
    await Promise.all(Array.from({ length: 20 }, (_, n) => save(n % 2 === 0 ? one : two, experiment({ id: `e${n % 5}` }))))
    expect(await two.look()).toBe(before + 20)
    const changed = await one.changedSince(before)
    expect(changed.map(({ experiment: { id } }) => id).sort()).toEqual(['e0', 'e1', 'e2', 'e3', 'e4'])
    const numbers = changed.map((one) => one.changed - before)
    expect([new Set(numbers).size, Math.max(...numbers)]).toEqual([5, 20])
    expect(changed.map(({ place }) => place)).toEqual(changed.map(({ place }) => place).toSorted((a, b) => a - b))
    expect(await one.changedSince(before + 20)).toEqual([])
    expect((await one.events('default/e0')).length).toBe(4)
  })

  test('gives a lease to one, and to another when it has run out', async () => {
    const database = await open()
    const [one, two] = [await ledgerOf(database), await ledgerOf(again(database))]
    expect([await one.lease('a', 200), await two.lease('a', 200), await two.lease('b', 200)]).toEqual([true, false, true])
    await new Promise((resolve) => setTimeout(resolve, 250))
    expect(await two.lease('a', 200)).toBe(true)
  })

  test('has a lock for a transaction only, and gives it up with it', async () => {
    const database = await open()
    const [one, two] = [await ledgerOf(database), await ledgerOf(again(database))]
    const tried = await one.atOnce('locking', async (turn) => {
      const held = await turn.tryLock('a')
      // With SQLite the other transaction waits for this one.
      return [held, dialect === 'sqlite' ? false : await two.atOnce('locking', (other) => other.tryLock('a'))]
    })
    expect(tried).toEqual([true, false])
    expect(await two.atOnce('locking', (turn) => turn.tryLock('a'))).toBe(true)
  })

  test('hands each prompt that waits to one gateway, and to another when that one is silent', async () => {
    const database = await open()
    const [one, two] = [await ledgerOf(database, { replayQueue: 12 }), await ledgerOf(again(database), { replayQueue: 12 })]
    const prompts = Array.from({ length: 20 }, (_, n) => ({
      ...{ prompt: `p${n}`, messages: [{ role: 'user' as const, content: `“${n}”\u0000` }], origin: 'uploaded', judge: null },
    }))
    expect(await one.replays.add(experiment(), prompts)).toBe(12)
    expect(await two.replays.add(experiment(), prompts)).toBe(0)
    expect(await two.replays.waiting(experiment())).toBe(12)
    const claimed = await Promise.all(Array.from({ length: 16 }, (_, n) => (n % 2 === 0 ? one : two).replays.claim(300)))
    const held = claimed.flatMap((claim) => claim ?? [])
    expect(held.map(({ prompt }) => prompt).sort()).toEqual(
      prompts
        .slice(0, 12)
        .map(({ prompt }) => prompt)
        .sort(),
    )
    expect(held.find(({ prompt }) => prompt === 'p3')).toMatchObject({
      ...{ experiment: 'default/e', version: 1, origin: 'uploaded', judge: null, attempts: 1, messages: prompts[3]?.messages },
    })
    expect(await two.replays.any()).toBe(false)
    const mine = claimed.filter((_, n) => n % 2 === 0).flatMap((claim) => claim ?? [])
    const [kept, done, free] = mine
    if (kept === undefined || done === undefined || free === undefined) throw new Error('the first gateway claimed none')
    await one.replays.remove(done)
    await one.replays.giveBack(free)
    expect((await two.replays.claim(300))?.attempts).toBe(1)
    await one.replays.keep(kept, 60_000)
    await new Promise((resolve) => setTimeout(resolve, 350))
    const taken: string[] = []
    for (let claim = await two.replays.claim(60_000); claim !== undefined; claim = await two.replays.claim(60_000))
      taken.push(`${claim.prompt} ${claim.attempts}`)
    expect(taken.length).toBe(10)
    expect(taken).not.toContain(`${kept.prompt} 2`)
    expect(taken.every((one) => one.endsWith(' 2'))).toBe(true)
  })

  test('keeps pairs for all gateways, up to a limit, and the first beginning of a stage', async () => {
    const database = await open()
    const [one, two] = [await ledgerOf(database, { replayPairs: 2 }), await ledgerOf(again(database), { replayPairs: 2 })]
    expect(await one.savePair(experiment(), 1, 'p', { n: 1 })).toBe(true)
    expect(await two.savePair(experiment(), 1, 'p', { n: 2 })).toBe(true)
    expect(await one.savePair(experiment(), 1, 'q', { n: 3 })).toBe(true)
    expect(await two.savePair(experiment(), 1, 'r', { n: 4 })).toBe(false)
    expect(await two.pairs(experiment())).toEqual([{ n: 2 }, { n: 3 }])
    await one.beginStage(experiment(), { own: 1 })
    await two.beginStage(experiment(), { own: 2 })
    expect(await two.stage(experiment())).toEqual({ own: 1 })
    expect(await two.stage(experiment({ version: 2 }))).toBeUndefined()
  })

  describe('a result', () => {
    const fill = async (split: (n: number) => number, units: number) => {
      const ledger = await ledgerOf(await open())
      await save(ledger, experiment())
      for (let n = 0; n < units; n++) {
        const arm = split(n)
        await ledger.expose({ ...exposure(`u${n}`, arm, `c${n}`), at: n })
        await ledger.finish(`c${n}`, { ...outcome, targetShown: arm === 1 || n % 4 === 0 })
      }
      return ledger
    }

    test('has estimate, sequence and fixed interval beside each other, and how they came about', async () => {
      const ledger = await fill((n) => n % 2, 400)
      const [found] = (await resultOf(experiment(), ledger)).metrics
      expect(found?.means).toEqual([0.5, 1])
      expect(found?.comparison?.estimate).toBe(0.5)
      const { sequence, fixed } = found?.comparison ?? {}
      expect(sequence?.low).toBeLessThan(fixed?.low ?? 0)
      expect(sequence?.low).toBeGreaterThan(0)
      expect(found?.significant).toBe(true)
      const moments = await resultsOverTime(experiment(), ledger, 4)
      expect(moments.map(({ at, arms }) => [at, ...arms.map(({ units }) => units)])).toEqual([
        [99, 50, 50],
        [199, 100, 100],
        [299, 150, 150],
        [399, 200, 200],
      ])
      expect(moments.at(-1)?.metrics[0]?.comparison?.estimate).toBeCloseTo(0.5, 9)
    })

    test('is blocked where an arm is too empty for its weight', async () => {
      const { blocked, metrics } = await resultOf(experiment(), await fill((n) => (n % 3 === 0 ? 1 : 0), 400))
      expect(blocked).toBe(true)
      expect(metrics[0]).toMatchObject({ comparison: null, significant: false })
    })
  })
})

describe('a file', () => {
  let built = ''
  let child = ''
  beforeAll(() => {
    ;({ built, child } = buildChild('test/support/children/experiment-kill-child'))
  }, 120_000)
  afterAll(() => rmSync(built, { recursive: true, force: true }))

  test('loses no acknowledged exposure when its process is killed', async () => {
    const file = join(mkdtempSync(join(built, 'kill-')), 'palimpsest.db')
    const acknowledged = new Map<number, number>()
    for (let round = 0; round < 3; round++) {
      const running = spawn(process.execPath, [child, join(file, '..'), String(round * 100_000)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let heard = 0
      for await (const line of createInterface({ input: running.stdout })) {
        const [, n, arm] = line.split(' ').map(Number) as [number, number, number]
        acknowledged.set(n, arm)
        if (++heard === 20 * (round + 1)) running.kill('SIGKILL')
      }
      const db = new Database(file)
      for (const [n, arm] of acknowledged) expect(db.value('SELECT arm FROM exposures WHERE unit = ?', `user ${n}`)).toBe(arm)
      db.close()
    }
    expect(acknowledged.size).toBeGreaterThanOrEqual(120)
  })

  test('is not needed for two processes to come to the same arms', () => {
    const said = execFileSync(process.execPath, [child, '', '0', '500'], { encoding: 'utf8' })
    expect(said.trim()).toBe(Array.from({ length: 500 }, (_, unit) => assign(experiment(), `user ${unit}`)).join(''))
  })

  test('from before tables had versions opens with all that it held, and stays readable to the gateway that made it', async () => {
    const file = join(mkdtempSync(join(built, 'old-')), 'palimpsest.db')
    const old = new Database(file)
    old.exec(OLD_TABLES)
    for (const id of ['b', 'a'])
      old.prepare('INSERT INTO experiments (key, body) VALUES (?, ?)').run(`default/${id}`, JSON.stringify(experiment({ id })))
    old.prepare("INSERT INTO exposures VALUES ('default/a', 1, 'u', 1, 1, 7)").run()
    old.prepare("INSERT INTO answers (id, experiment, version, unit, arm, at) VALUES ('c', 'default/a', 1, 'u', 1, 7)").run()
    old.prepare(`INSERT INTO pairs VALUES ('default/a', 1, 'p', '{"n":1}')`).run()
    old.close()
    const database = new SqliteSql(file, { durable: false })
    const ledger = await ledgerOf(database, { ledgerAnswers: 1 })
    const of = experiment({ id: 'a' })
    expect((await ledger.changedSince(-1)).map(({ experiment: { id } }) => id)).toEqual(['b', 'a'])
    expect(await ledger.counts(of)).toEqual([{ epoch: 1, arm: 1, units: 1 }])
    expect(await ledger.pairs(of)).toEqual([{ n: 1 }])
    expect(await ledger.expose(exposure('v', 0, 'd', of))).toBe('full')
    await database.close()
    const again = new Database(file)
    again.exec(OLD_TABLES)
    again.prepare('INSERT INTO experiments (key, body) VALUES (?, ?)').run('default/c', '{}')
    again.close()
  })
})

/** As the ledger made them before its tables had versions; never changes. */
const OLD_TABLES = `
  CREATE TABLE IF NOT EXISTS experiments (key TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS exposures (
    experiment TEXT NOT NULL, version INTEGER NOT NULL, unit TEXT NOT NULL, arm INTEGER NOT NULL, epoch INTEGER NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (experiment, version, unit)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS answers (
    id TEXT NOT NULL UNIQUE, experiment TEXT NOT NULL, version INTEGER NOT NULL, unit TEXT NOT NULL, arm INTEGER NOT NULL,
    at INTEGER NOT NULL, finished INTEGER NOT NULL DEFAULT 0, latency_ms REAL, prompt_tokens INTEGER, completion_tokens INTEGER,
    error INTEGER, refusal INTEGER, target_shown INTEGER, asked_again INTEGER
  ) STRICT;
  CREATE TABLE IF NOT EXISTS pairs (
    experiment TEXT NOT NULL, version INTEGER NOT NULL, prompt TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (experiment, version, prompt)
  ) STRICT;
`
