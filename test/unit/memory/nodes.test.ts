import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { NetworkProxy } from '../../../bench/history/proxy.ts'
import type { MemoryOptions, MemoryStore } from '../../../src/memory/memory-store.ts'
import { lockStatement } from '../../../src/storage/advisory-locks.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { codeOf } from '../../support/databases/memory-databases.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'
import { edit, fact, fakeEmbedder, memory, POST, vectorOf } from '../../support/memory-fixture.ts'

// Generous: these wait for a server that is started anew.
vi.setConfig({ testTimeout: 60_000 })

const T = 'default'
const SOON = { timeout: 10_000, interval: 5 }
let server: PostgresServer

beforeAll(async () => {
  server = await startPostgres()
}, 120_000)
afterAll(() => server.remove(), 60_000)

function open(url: string): Postgres {
  const database = new Postgres({ url, statementTimeoutMs: 2_000, warn: () => {} })
  onTestFinished(() => database.close())
  return database
}

/** As many nodes as names are given, over one new database. */
async function nodes<const Names extends readonly string[]>(...names: Names) {
  const url = await server.database()
  const node = async (options: Partial<MemoryOptions> = {}): Promise<MemoryStore> => {
    return memory({ database: open(url), now: Date.now, ...options })
  }
  const opened = await Promise.all(names.map(() => node()))
  const sql = new Postgres({ url, warn: () => {} })
  onTestFinished(() => sql.close())
  return { node, sql, url, stores: opened as { [I in keyof Names]: MemoryStore } }
}

const positions = async (sql: Postgres) =>
  (await sql.all<{ seq: number }>('reading', 'SELECT seq FROM log ORDER BY seq')).map((r) => r.seq)
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1)

describe('nodes over one PostgreSQL', () => {
  test('what lands on one is in effect on the other within a second, by hints', async () => {
    const {
      stores: [a, b],
    } = await nodes('a', 'b')
    await vi.waitFor(() => expect([a.feed().state, b.feed().state]).toEqual(['listening', 'listening']), SOON)
    const took: number[] = []
    for (let n = 0; n < 50; n++) {
      const [from, to] = n % 2 === 0 ? [a, b] : [b, a]
      const { version } = await from.land([fact(n)], POST)
      const landedAt = performance.now()
      expect(await to.reached(version, 1_000)).toBe(true)
      took.push(performance.now() - landedAt)
      expect(to.get(T, `e${n}`)?.state).toBe('live')
    }
    expect([a.all(T), a.version(T), a.batches(T)]).toEqual([b.all(T), b.version(T), b.batches(T)])
    console.info(
      `effective on the other after ${took.sort((x, y) => x - y)[25]?.toFixed(1)} ms (p50), ${took.at(-1)?.toFixed(1)} ms (longest)`,
    )
  })

  test('one that hears no hints polls', async () => {
    const {
      stores: [a],
      node,
      url,
    } = await nodes('a')
    // As behind a pooler of transactions: LISTEN is taken, and nothing comes.
    const deaf = new Postgres({ url, warn: () => {} })
    onTestFinished(() => deaf.close())
    const b = await node({ database: Object.assign(deaf, { listen: () => ({ up: false, close: async () => {} }) }) })
    await a.land([fact(1)], POST)
    expect(await b.reached(1, 1_000)).toBe(true)
    expect(b.feed().state).toBe('polling')
  })

  test('the same batch sent to both at once lands once, and both say so', async () => {
    const { stores, sql } = await nodes('a', 'b')
    for (let n = 0; n < 20; n++) {
      const batch = [fact(2 * n), fact(2 * n + 1)]
      const landings = await Promise.all(stores.map((store) => store.land(batch, { ...POST, batchId: `batch-${n}` })))
      expect(landings.map(({ replayed }) => replayed).sort()).toEqual([false, true])
      expect(landings[0]?.results.map(({ outcome }) => outcome)).toEqual(['added', 'added'])
      expect(landings[1]?.results).toEqual(landings[0]?.results)
    }
    expect(await positions(sql)).toEqual(upTo(40))
    expect(await codeOf(() => stores[1].land([fact(99)], { ...POST, batchId: 'batch-0' }))).toBe('invalid_value:batch')
  })

  test('writers of all kinds on three take turns: positions are dense, and all end in the same state', async () => {
    const { stores, sql, node } = await nodes('a', 'b', 'c')
    await stores[0].land(
      Array.from({ length: 30 }, (_, i) => fact(i)),
      { ...POST, batchId: 'first' },
    )
    await Promise.all(
      stores.flatMap((store, s) => [
        ...Array.from({ length: 20 }, (_, n) => store.land([edit(`c${s}-${n}`), fact(1_000 * s + n, { tenant: T })], POST)),
        store.sync(`edits/${s}.yaml`, [fact(10_000 + s)]),
        store.reached(1, 10_000).then(() => store.withdraw(T, ['e1', `e${2 + s}`], 'test')),
        store.reached(1, 10_000).then(() => store.withdrawBatch(T, 'first', 'test')),
      ]),
    )
    const all = await positions(sql)
    expect(all).toEqual(upTo(all.length))
    const later = await node()
    for (const store of stores) {
      expect(await store.reached(all.length, 5_000)).toBe(true)
      expect(store.all(T)).toEqual(later.all(T))
      expect(store.batches(T)).toEqual(later.batches(T))
      expect(store.list({ tenant: T, limit: 1_000 })).toEqual(later.list({ tenant: T, limit: 1_000 }))
    }
    expect(later.list({ tenant: T, subject: 'France', state: 'live', limit: 10 }).total).toBe(1)
  })

  test("one tenant's landing leaves another's version", async () => {
    const {
      stores: [a, b],
    } = await nodes('a', 'b')
    await a.land([fact(1)], POST)
    const { version } = await b.land([fact(2, { tenant: 'other' })], { ...POST, tenant: 'other' })
    expect(version).toBe(2)
    expect(await a.reached(2, 5_000)).toBe(true)
    expect([a.version(T), b.version(T), a.version('other'), a.version('none')]).toEqual([1, 1, 2, 0])
  })

  test('the server killed: reads go on, writes are refused; started again, both catch up by themselves', async () => {
    const {
      stores: [a, b],
      sql,
    } = await nodes('a', 'b')
    await a.land([fact(1)], POST)
    expect(await b.reached(1, 5_000)).toBe(true)
    await server.kill()
    try {
      const refused = await a.land([fact(2)], { ...POST, batchId: 'two' }).catch((error: unknown) => error)
      expect(refused).toMatchObject({ code: 'storage_unavailable', status: 503, retryAfterSeconds: expect.any(Number) })
      expect([a.get(T, 'e1')?.state, a.get(T, 'e2')]).toEqual(['live', undefined])
      expect((await b.land([fact(3)], { ...POST, dryRun: true })).results[0]?.outcome).toBe('added')
      await vi.waitFor(() => expect([a.feed().state, b.feed().state]).toEqual(['away', 'away']), SOON)
    } finally {
      await server.start()
    }
    await vi.waitFor(() => expect(a.feed().fault).toBeNull(), SOON)
    await vi.waitFor(() => expect(b.feed().fault).toBeNull(), SOON)
    const landed = await b.land([fact(2)], { ...POST, batchId: 'two' })
    expect(await a.reached(landed.version, 5_000)).toBe(true)
    await vi.waitFor(() => expect([a.feed().state, b.feed().state]).toEqual(['listening', 'listening']), {
      ...SOON,
      timeout: 40_000,
    })
    expect([await positions(sql), a.get(T, 'e2')?.state]).toEqual([[1, 2], 'live'])
  })

  test('a record that is missing is an error, not passed over', async () => {
    const {
      stores: [a],
      sql,
      node,
    } = await nodes('a')
    for (let n = 1; n <= 3; n++) await a.land([fact(n)], POST)
    await expect(sql.run('deleting', 'DELETE FROM log WHERE seq = 2')).rejects.toThrow(/only grows/)
    await expect(sql.run('changing', 'UPDATE batches SET at = 0')).rejects.toThrow(/only grows/)
    await expect(sql.run('emptying', 'TRUNCATE log')).rejects.toThrow(/only grows/)
    await sql.run('disabling', 'ALTER TABLE log DISABLE TRIGGER ALL')
    await sql.run('deleting', 'DELETE FROM log WHERE seq = 2')
    await expect(node()).rejects.toThrow(/record 2 is missing/)
    // Of a node that follows, the last of what it has.
    await sql.run('deleting', 'DELETE FROM log WHERE seq = 3')
    await expect(a.land([fact(4)], POST)).rejects.toMatchObject({
      code: 'storage_failed',
      message: expect.stringMatching(/record 3 is missing/),
    })
    await vi.waitFor(
      () => expect(a.feed()).toMatchObject({ state: 'away', fault: expect.stringMatching(/record 3 is missing/) }),
      SOON,
    )
    expect(a.get(T, 'e3')?.state).toBe('live')
  })

  test('a writer that stalls in its turn gives it up, and the others go on', async () => {
    const {
      stores: [a],
      sql,
    } = await nodes('a')
    const stalled = sql.atOnce('stalling', async (held) => {
      await held.all('stalling', 'SET LOCAL idle_in_transaction_session_timeout = 500')
      await held.all('stalling', lockStatement('log'))
      await sleep(1_500)
    })
    stalled.catch(() => {})
    await sleep(100)
    expect((await a.land([fact(1)], POST)).version).toBe(1)
    await expect(stalled).rejects.toMatchObject({ code: 'storage_unavailable' })
  })

  test('a network that passes nothing on: one write waits as long as a statement may, and those in line behind it no longer', async () => {
    const url = await server.database()
    const proxy = await NetworkProxy.open(server.port)
    onTestFinished(() => proxy.close())
    const through = url.replace(`:${server.port}`, `:${proxy.port}`)
    const a = await memory({ database: open(through), now: Date.now })
    await a.land([fact(0)], POST)
    proxy.stall()
    const begun = performance.now()
    const codes = await Promise.all(Array.from({ length: 6 }, (_, n) => codeOf(() => a.land([fact(n + 1)], POST))))
    const took = performance.now() - begun
    proxy.flow()
    expect(new Set(codes)).toEqual(new Set(['storage_unavailable:null']))
    // Six turns, each with the time of a statement and that of rolling back, would be 30 s.
    expect(took).toBeLessThan(8_000)
    await expect
      .poll(
        () =>
          a.land([fact(9)], POST).then(
            ({ version }) => version > 1,
            () => false,
          ),
        SOON,
      )
      .toBe(true)
  })

  test("what the database's own defaults are is no matter: a commit is on the disk, and who waited for the lock sees what was written", async () => {
    const { sql, url } = await nodes()
    const name = new URL(url).pathname.slice(1)
    await sql.run('setting', `ALTER DATABASE ${name} SET synchronous_commit = off`)
    await sql.run('setting', `ALTER DATABASE ${name} SET default_transaction_isolation = 'repeatable read'`)
    const stores = await Promise.all([0, 1].map(() => memory({ database: open(url), now: Date.now })))
    const landings = await Promise.all(Array.from({ length: 20 }, (_, n) => (stores[n % 2] as MemoryStore).land([fact(n)], POST)))
    await server.kill()
    await server.start()
    expect(
      landings
        .map(({ version }) => version)
        .sort((x, y) => x - y)
        .at(-1),
    ).toBe(20)
    await expect.poll(() => positions(sql).catch(() => []), SOON).toEqual(upTo(20))
  })

  test('a large batch is one of some seconds, one edit one of some milliseconds', async () => {
    const { node } = await nodes()
    const a = await node({ limits: { exactPoints: 1_000_000 } })
    const batch = Array.from({ length: 10_000 }, (_, i) => fact(i))
    const begun = performance.now()
    await a.land(batch, POST)
    const whole = performance.now() - begun
    await a.indexed()
    const each: number[] = []
    for (let n = 0; n < 40; n++) {
      const at = performance.now()
      await a.land([fact(20_000 + n)], POST)
      each.push(performance.now() - at)
    }
    each.sort((x, y) => x - y)
    console.info(`10,000 edits: ${whole.toFixed(0)} ms; one: ${each[20]?.toFixed(1)} ms (p50), ${each[37]?.toFixed(1)} ms (p95)`)
    expect(whole).toBeLessThan(20_000)
  })

  test('a text is embedded once for all nodes, and a new node needs none', async () => {
    const { node } = await nodes()
    const embedders = [fakeEmbedder(), fakeEmbedder(), fakeEmbedder()] as const
    const a = await node({ embedder: embedders[0] })
    const b = await node({ embedder: embedders[1] })
    await a.land(
      Array.from({ length: 300 }, (_, i) => fact(i)),
      POST,
    )
    await Promise.all([a, b].map((store, s) => store.land([fact(1_000 + s)], POST)))
    expect(await a.reached(302, 5_000)).toBe(true)
    expect(await b.reached(302, 5_000)).toBe(true)
    await Promise.all([a.indexed(), b.indexed()])
    const c = await node({ embedder: embedders[2] })
    await c.indexed()
    expect(embedders.map(({ asked }) => asked.length)).toEqual([2 * 301, 2, 0])
    for (const store of [a, b, c]) expect(store.status()).toEqual([{ tenant: T, indexed: 302, pending: 0 }])
    const near = vectorOf('The mayor of Town 7 is', 16)
    expect(c.search(T, near, 3)).toEqual(a.exactSearch(T, near, 3))
  })

  test('what a node landed that then died is embedded by another', async () => {
    const { node } = await nodes()
    const never = (_: unknown, __: unknown, signal?: AbortSignal) =>
      new Promise<never>((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
    const a = await node({ embedder: { ...fakeEmbedder(), embed: never } })
    const embedder = fakeEmbedder()
    const b = await node({ embedder })
    await a.land([fact(1)], POST)
    await b.reached(1, 5_000)
    expect(b.status()).toEqual([{ tenant: T, indexed: 0, pending: 1 }])
    await vi.waitFor(() => expect(b.status()).toEqual([{ tenant: T, indexed: 1, pending: 0 }]), { ...SOON, timeout: 20_000 })
    expect(embedder.asked).toHaveLength(2)
  })
})
