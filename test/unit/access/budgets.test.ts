import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { type BudgetOptions, SharedBudgets, type Taken } from '../../../src/access/budgets.ts'
import type { Key } from '../../../src/access/key.ts'
import { KeyStore, type NewKey } from '../../../src/access/key-store.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import { openAccess, openKeys } from '../../../src/server/access.ts'
import { Database } from '../../../src/storage/database.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'
import { freePort } from '../../support/databases/postgres.ts'

const NOON = Date.parse('2026-11-24T12:00:00Z')
const FIELDS: NewKey = { name: 'ci', tenant: 'default', scopes: ['inference'] }

const close: (() => unknown)[] = []
afterEach(async () => {
  for (const one of close.splice(0).reverse()) await one()
})

const codeOf = ({ refused }: Taken) => refused?.code ?? 'none'
const request = (budgets: SharedBudgets, key: Key) => budgets.take(key, { request: true })
const reserve = (budgets: SharedBudgets, key: Key, least: number, most: number) =>
  budgets.take(key, { request: false, tokens: { least, most } })
/** What is left, asked without counting a request or setting anything aside. */
const left = async (budgets: SharedBudgets, key: Key) =>
  (await budgets.take(key, { request: false, tokens: { least: 0, most: 0 } })).rates.tokens?.remaining

/** Numbers that are the same in every run. https://en.wikipedia.org/wiki/Linear_congruential_generator */
function numbers(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

describe.each(DIALECTS)('budgets over %s', (dialect) => {
  const { open, again } = databases(dialect)
  const begin = async (limits: Partial<NewKey>, options: BudgetOptions = {}) => {
    const database = await open()
    const store = await KeyStore.open(database)
    const clock = { now: NOON }
    const { key } = await store.create({ ...FIELDS, ...limits }, NOON)
    const made = (on = again(database)) => {
      const budgets = new SharedBudgets(on, () => clock.now, options)
      close.push(() => budgets.close())
      return budgets
    }
    const used = async () => (await store.list(clock.now))[0]?.tokensUsed
    return { database, store, clock, key, budgets: made(database), made, used }
  }

  test('of tokens are overrun by no thousand requests at once over three gateways, and end at what was used', async () => {
    const limit = 100_000
    const { key, budgets, made, used } = await begin({ tokensPerDay: limit })
    const nodes = [budgets, made(), made()]
    const random = numbers(7)
    let [held, most] = [0, 0]
    let spent = 0
    const outcomes = await Promise.all(
      Array.from({ length: 1_000 }, async (_, i) => {
        const size = 1 + random(800)
        const part = random(101) / 100
        const taken = await reserve(nodes[i % 3] as SharedBudgets, key, size, size)
        if (taken.refused !== null) return codeOf(taken)
        held += taken.tokens
        most = Math.max(most, held + spent)
        const usedTokens = Math.floor(taken.tokens * part)
        // Counted here before the settlement is sent: what is over the limit in between would be the statement's fault.
        held -= taken.tokens
        spent += usedTokens
        await taken.settle(usedTokens)
        return 'none'
      }),
    )
    expect(spent).toBeLessThanOrEqual(limit)
    expect(most).toBeLessThanOrEqual(limit)
    expect(await used()).toBe(spent)
    expect(outcomes.filter((code) => code !== 'none').length).toBeGreaterThan(0)
  })

  test('that a thousand want at once, with none given back, are given to the last token and no further', async () => {
    const limit = 50_000
    const { key, budgets, made, used } = await begin({ tokensPerDay: limit, requestsPerMinute: 900 })
    const nodes = [budgets, made(), made()]
    const random = numbers(11)
    const taken = await Promise.all(
      Array.from({ length: 1_000 }, (_, i) =>
        (nodes[i % 3] as SharedBudgets).take(key, { request: true, tokens: { least: 1, most: 1 + random(200) } }),
      ),
    )
    const granted = taken.filter(({ refused }) => refused === null)
    expect(granted.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(limit)
    expect(await used()).toBe(limit)
    // All that is gone is held by requests under way: nobody is told to come back tomorrow.
    expect(new Set(taken.map(codeOf))).toEqual(new Set(['none', 'rate_limit_exceeded']))
    await Promise.all(granted.map(({ settle }) => settle(0)))
    expect(await used()).toBe(0)
  })

  test('of requests let so many through, over three gateways', async () => {
    const { key, budgets, made } = await begin({ requestsPerMinute: 60 })
    const nodes = [budgets, made(), made()]
    const began = performance.now()
    const taken = await Promise.all(Array.from({ length: 300 }, (_, i) => request(nodes[i % 3] as SharedBudgets, key)))
    const through = taken.filter(({ refused }) => refused === null).length
    // One more comes with each second, on PostgreSQL's clock.
    const more = dialect === 'sqlite' ? 0 : Math.ceil((performance.now() - began) / 1_000)
    expect(through).toBeGreaterThanOrEqual(60)
    expect(through).toBeLessThanOrEqual(60 + more)
    const refused = taken.find(({ refused }) => refused !== null)
    expect(refused?.refused).toMatchObject({ code: 'rate_limit_exceeded' })
    expect(refused?.rates.requests).toMatchObject({ limit: 60, remaining: 0 })
  })

  test('hold back what requests under way may take, on any gateway, and give back what they did not', async () => {
    const { key, budgets, made } = await begin({ tokensPerDay: 100 })
    const other = made()
    const first = await reserve(budgets, key, 60, 60)
    expect((await reserve(other, key, 60, 60)).refused).toMatchObject({ code: 'rate_limit_exceeded', retryAfterSeconds: 1 })
    expect((await reserve(other, key, 10, 60)).tokens).toBe(40)
    await first.settle(15)
    await first.settle(15)
    expect(await left(other, key)).toBe(45)
    expect(codeOf(await reserve(budgets, key, 86, 86))).toBe('insufficient_quota')
    const over = await reserve(budgets, key, 101, 101)
    expect(over.refused?.retryAfterSeconds).toBeCloseTo((over.rates.tokens?.resetMs ?? 0) / 1_000, 3)
  })

  test('of a gateway that died count as under way for a lease, then as used: none is given twice', async () => {
    const leaseMs = dialect === 'sqlite' ? 300_000 : 1_500
    const { clock, key, budgets, made, used } = await begin({ tokensPerDay: 100 }, { leaseMs })
    const pass = async (ms: number) => {
      clock.now += ms
      if (dialect === 'postgres') await new Promise((resolve) => setTimeout(resolve, ms))
    }
    // Its object is dropped: nothing of it is ever settled.
    await reserve(made(), key, 70, 70)
    expect(codeOf(await reserve(budgets, key, 40, 40))).toBe('rate_limit_exceeded')
    const own = await reserve(budgets, key, 20, 20)
    await pass(2 * leaseMs)
    expect(codeOf(await reserve(budgets, key, 40, 40))).toBe('insufficient_quota')
    // One that took longer than its lease is settled rightly all the same.
    await own.settle(5)
    expect([await used(), await left(budgets, key)]).toEqual([75, 25])
    await (await reserve(budgets, key, 25, 25)).settle(25)
    expect(codeOf(await reserve(budgets, key, 1, 1))).toBe('insufficient_quota')
  })

  test('of a key are counted in one statement a request, and settled in another; of keys without limits, in none', async () => {
    const { database, store, key } = await begin({ requestsPerMinute: 600, tokensPerDay: 1_000_000 })
    let asked = 0
    const counted = {
      ...{ dialect, name: database.name, atOnce: database.atOnce.bind(database), close: async () => {} },
      all: (...args: Parameters<SqlDatabase['all']>) => {
        asked++
        return database.all(...args)
      },
      run: (...args: Parameters<SqlDatabase['run']>) => {
        asked++
        return database.run(...args)
      },
    } as SqlDatabase
    const budgets = new SharedBudgets(counted, () => NOON)
    const ask = { request: true, tokens: { least: 10, most: 20 } }
    await (await budgets.take(key, ask)).settle(1)
    asked = 0
    const taken = await budgets.take(key, ask)
    expect([asked, taken.tokens]).toEqual([1, 20])
    await taken.settle(1)
    expect(asked).toBe(2)
    const { key: free } = await store.create(FIELDS, NOON)
    const unlimited = await budgets.take(free, { request: true, tokens: { least: 1, most: 1e12 } })
    await unlimited.settle(5)
    expect([unlimited.tokens, unlimited.rates, asked]).toEqual([1e12, {}, 2])
    const { key: paced } = await store.create({ ...FIELDS, requestsPerMinute: 6 }, NOON)
    expect((await budgets.take(paced, { request: false, tokens: { least: 1, most: 9 } })).tokens).toBe(9)
    expect(asked).toBe(2)
  })

  test('of one key, asked for at once, take turns together: each gets what it would alone, and what is over is given back', async () => {
    const { key, budgets, used } = await begin({ tokensPerDay: 100, requestsPerMinute: 6 })
    const ask = (least: number, most: number) => budgets.take(key, { request: true, tokens: { least, most } })
    const taken = await Promise.all([ask(10, 10), ask(30, 50), ask(80, 80), ask(50, 70), ask(30, 30), ask(1, 5), ask(1, 1)])
    expect(taken.map((one) => (one.refused === null ? one.tokens : codeOf(one)))).toEqual([
      ...[10, 50, 'rate_limit_exceeded', 'rate_limit_exceeded', 30, 5, 'rate_limit_exceeded'],
    ])
    expect(taken.at(-1)?.refused?.message).toContain('6 requests a minute')
    await Promise.all(taken.map(({ refused, settle }) => refused === null && settle(1)))
    await expect.poll(used).toBe(4)
  })

  test('count all that was set aside where what was used is no number of tokens', async () => {
    const { key, budgets, used } = await begin({ tokensPerDay: 100 })
    for (const [wrong, remaining] of [
      [Number.NaN, 90],
      [-5, 80],
      [0.5, 70],
      [Number.POSITIVE_INFINITY, 60],
    ] as const) {
      await (await reserve(budgets, key, 1, 10)).settle(wrong)
      expect(await left(budgets, key)).toBe(remaining)
    }
    const last = await reserve(budgets, key, 1, 10)
    await last.settle(Number.MAX_SAFE_INTEGER)
    expect(await used()).toBe(Number.MAX_SAFE_INTEGER)
  })

  test('count a request that its tokens were refused, and a request refused sets none aside', async () => {
    const { key, budgets, used } = await begin({ tokensPerDay: 10, requestsPerMinute: 2 })
    const ask = (least: number) => budgets.take(key, { request: true, tokens: { least, most: least } })
    const dear = await ask(11)
    expect([codeOf(dear), dear.rates.requests?.remaining]).toEqual(['insufficient_quota', 1])
    expect((await ask(4)).tokens).toBe(4)
    expect(codeOf(await ask(1))).toBe('rate_limit_exceeded')
    expect(await used()).toBe(4)
  })

  describe('whose database fails', () => {
    const failing = async () => {
      const begun = await begin({ tokensPerDay: 100, requestsPerMinute: 60 })
      const { database } = begun
      const state = { broken: false, lost: false, tried: 0 }
      const warned: string[] = []
      const watch = (call: 'all' | 'run') =>
        (async (...args: Parameters<SqlDatabase['run']>) => {
          state.tried++
          if (state.broken) throw new PalimpsestError('storage_full', 'the disk is full')
          const result = await database[call](...args)
          if (state.lost) throw new PalimpsestError('storage_unavailable', 'the answer was lost')
          return result
        }) as never
      const { name } = database
      const atOnce = database.atOnce.bind(database)
      const fails: SqlDatabase = {
        ...{ dialect, name, atOnce },
        runAll: database.runAll.bind(database),
        all: watch('all'),
        run: watch('run'),
        close: async () => {},
      }
      const budgets = new SharedBudgets(fails, () => NOON, { warn: (message) => void warned.push(message) })
      close.push(() => budgets.close())
      return { ...begun, state, warned, budgets }
    }

    test('write what was used later, once', async () => {
      const { key, state, warned, budgets, used } = await failing()
      const under = await reserve(budgets, key, 1, 60)
      state.broken = true
      await under.settle(20)
      expect(await used()).toBe(60)
      await new Promise((resolve) => setTimeout(resolve, 1_500))
      expect([await used(), warned]).toEqual([60, [expect.stringContaining('written later: the disk is full')]])
      state.broken = false
      await expect.poll(used, { timeout: 10_000 }).toBe(20)
      const { tried } = state
      await new Promise((resolve) => setTimeout(resolve, 1_500))
      expect(state.tried).toBe(tried)
    })

    test('refuse a request that they can’t write, set nothing aside for it, and leave the database alone for a while', async () => {
      const { key, state, budgets, used } = await failing()
      state.broken = true
      for (let i = 0; i < 50; i++) {
        await expect(request(budgets, key)).rejects.toMatchObject({ code: 'storage_full' })
        await expect(reserve(budgets, key, 1, 100)).rejects.toMatchObject({ code: 'storage_full' })
      }
      expect(state.tried).toBeLessThan(5)
      state.broken = false
      await expect.poll(() => reserve(budgets, key, 1, 100).then(codeOf, () => 'broken')).toBe('none')
      expect(await used()).toBe(100)
    })

    if (dialect === 'postgres')
      test('count a settlement once, though its answer was lost and it is sent again', async () => {
        const { key, state, warned, budgets, used } = await failing()
        const under = await reserve(budgets, key, 1, 60)
        const other = await reserve(budgets, key, 1, 30)
        state.lost = true
        await under.settle(20)
        expect([await used(), warned.length]).toEqual([50, 1])
        await new Promise((resolve) => setTimeout(resolve, 2_500))
        state.lost = false
        await new Promise((resolve) => setTimeout(resolve, 1_500))
        expect(await used()).toBe(50)
        await other.settle(0)
        expect(await used()).toBe(20)
      })
  })

  test('outlive the gateway: what was used, and, after a kill, what was set aside', async () => {
    const { key, budgets, made, used } = await begin({ tokensPerDay: 100, requestsPerMinute: 2 })
    await request(budgets, key)
    await request(budgets, key)
    await (await reserve(budgets, key, 50, 50)).settle(20)
    await reserve(budgets, key, 30, 30)
    const after = await made().take(key, { request: false, tokens: { least: 0, most: 0 } })
    expect(after.rates).toMatchObject({ requests: { remaining: 0 }, tokens: { remaining: 50 } })
    expect(await used()).toBe(50)
  })

  if (dialect === 'sqlite') {
    test('let so many requests through in a minute, and say when the next may come', async () => {
      const { clock, key, budgets } = await begin({ requestsPerMinute: 6 })
      const through = async () => {
        const taken = await Promise.all(Array.from({ length: 20 }, () => request(budgets, key)))
        return taken.filter(({ refused }) => refused === null).length
      }
      expect(await through()).toBe(6)
      const next = await request(budgets, key)
      expect(next.rates).toEqual({ requests: { limit: 6, remaining: 0, resetMs: 60_000 } })
      expect(next.refused).toMatchObject({ code: 'rate_limit_exceeded', retryAfterSeconds: 10 })
      clock.now += 10_000
      expect(await through()).toBe(1)
      clock.now += 3_600_000
      expect(await through()).toBe(6)
      clock.now -= 3_600_000
      expect(await through()).toBe(0)
    })

    test('begin anew at midnight UTC; what began before counts for the day before', async () => {
      const { clock, key, budgets, used } = await begin({ tokensPerDay: 100 })
      const late = await reserve(budgets, key, 100, 100)
      expect((await reserve(budgets, key, 1, 1)).rates.tokens).toEqual({ limit: 100, remaining: 0, resetMs: 43_200_000 })
      clock.now = Date.parse('2026-11-25T00:00:00Z')
      const first = await reserve(budgets, key, 0, 0)
      expect(first.rates.tokens).toEqual({ limit: 100, remaining: 100, resetMs: 0 })
      await (await reserve(budgets, key, 30, 30)).settle(30)
      await late.settle(90)
      expect([await left(budgets, key), await used()]).toEqual([70, 30])
    })
  } else {
    test('go by the database’s clock: a gateway’s own, an hour or a year off, changes nothing', async () => {
      const { database, clock, key, budgets, made } = await begin({ tokensPerDay: 100, requestsPerMinute: 2 })
      await request(budgets, key)
      await request(budgets, key)
      await (await reserve(budgets, key, 60, 60)).settle(60)
      for (const off of [3_600_000, -3_600_000, 365 * 86_400_000]) {
        clock.now = Date.now() + off
        expect(codeOf(await request(made(), key))).toBe('rate_limit_exceeded')
        const taken = await reserve(budgets, key, 0, 0)
        expect(taken.rates.tokens?.remaining).toBe(40)
        const [row] = await database.all<{ ms: number }>('reading the clock', 'SELECT extract(epoch FROM now()) * 1000 AS ms')
        const midnight = 86_400_000 - (Number(row?.ms) % 86_400_000)
        expect(Math.abs((taken.rates.tokens?.resetMs ?? 0) - midnight)).toBeLessThan(10_000)
      }
    })

    test('of days that are over leave nothing behind', async () => {
      const { database, key, budgets } = await begin({ tokensPerDay: 100 })
      await database.run('writing', 'INSERT INTO settlements (id, day) VALUES (gen_random_uuid(), 1)')
      await (await reserve(budgets, key, 1, 1)).settle(1)
      expect(await database.all('reading', 'SELECT count(*) AS n FROM settlements')).toEqual([{ n: 1 }])
    })
  }
})

test('a budget is not given while PostgreSQL is away, and a key without limits needs none', async () => {
  const database = new Postgres({ url: `postgres://palimpsest@127.0.0.1:${await freePort()}/none`, warn: () => {} })
  close.push(() => database.close())
  const budgets = new SharedBudgets(database, () => NOON)
  const key: Key = { id: 'a', name: 'a', tenant: null, scopes: [], createdAt: NOON }
  const away = { code: 'storage_unavailable', status: 503, retryAfterSeconds: 2 }
  await expect(budgets.take({ ...key, tokensPerDay: 5 }, { request: true })).rejects.toMatchObject(away)
  expect((await budgets.take(key, { request: true })).refused).toBeNull()
})

test('a locked file is waited for for no time that anybody notices, and settled with when it is free', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-budgets-'))
  close.push(() => rmSync(dir, { recursive: true, force: true }))
  const store = await openKeys(dir)
  close.push(() => store.database.close())
  const quiet = { info: () => {}, warn: () => {}, error: () => {} }
  const access = await openAccess({ auth: 'keys', dataDir: dir }, { host: '127.0.0.1', now: () => NOON, log: quiet })
  close.push(() => access.close())
  const { key } = await store.create({ ...FIELDS, tokensPerDay: 100 }, NOON)
  const under = await access.budgets.take(key, { request: false, tokens: { least: 1, most: 60 } })
  const other = new Database(join(dir, 'keys.db'))
  other.exec('BEGIN IMMEDIATE')
  const began = performance.now()
  await under.settle(20)
  expect(performance.now() - began).toBeLessThan(1_000)
  other.exec('ROLLBACK')
  other.close()
  await vi.waitFor(async () => expect((await store.list(NOON))[0]?.tokensUsed).toBe(20), { timeout: 5_000 })
})
