import { afterEach, describe, expect, test } from 'vitest'
import { newToken } from '../../../src/access/key.ts'
import { KeyStore, type NewKey } from '../../../src/access/key-store.ts'
import { KeyView } from '../../../src/access/key-view.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'
import { startPostgres } from '../../support/databases/postgres.ts'

const NOON = Date.parse('2026-11-24T12:00:00Z')
const FIELDS: NewKey = { name: 'ci', tenant: 'default', scopes: ['inference'] }
/** What was promised between a change on one gateway and its effect on all others. */
const PROMISED_MS = 1_000

const close: (() => unknown)[] = []
afterEach(async () => {
  for (const one of close.splice(0).reverse()) await one()
})

async function view(store: KeyStore, warn?: (message: string) => void): Promise<KeyView> {
  const keys = await KeyView.open(store, warn)
  close.push(() => keys.close())
  return keys
}

/** A database whose statements are counted, and refused while `away`. */
function watched(database: SqlDatabase) {
  const state = { asked: 0, away: false }
  const watch = (call: 'all' | 'run') =>
    ((...args: Parameters<SqlDatabase['run']>) => {
      state.asked++
      if (state.away) return Promise.reject(new Error('away'))
      return database[call](...args)
    }) as never
  const { dialect, name } = database
  const atOnce = database.atOnce.bind(database)
  const runAll = database.runAll.bind(database)
  return {
    state,
    database: {
      dialect,
      name,
      all: watch('all'),
      run: watch('run'),
      runAll,
      atOnce,
      close: async () => {},
    } satisfies SqlDatabase,
  }
}

describe.each(DIALECTS)('keys over %s', (dialect) => {
  const { open, again } = databases(dialect)
  const three = async () => {
    const database = await open()
    const stores = [await KeyStore.open(database), await KeyStore.open(again(database)), await KeyStore.open(again(database))]
    return stores as [KeyStore, KeyStore, KeyStore]
  }

  test('made on one gateway count at once on all, and revoked on one are refused on all within a second', async () => {
    const stores = await three()
    const views = await Promise.all(stores.map((store) => view(store)))
    const { key, token } = await stores[0].create({ ...FIELDS, requestsPerMinute: 5, tokensPerDay: 7, expiresAt: NOON }, NOON)
    for (const keys of views) {
      await keys.current()
      expect(await keys.identify(token)).toEqual(key)
      expect(await keys.identify(`pk_${key.id}_${newToken().secret}`)).toBeNull()
    }
    const began = performance.now()
    await stores[1].revoke(key.id, NOON + 3)
    const seen = await Promise.all(
      views.map(async (keys) => {
        for (;;) {
          await keys.current()
          if ((await keys.identify(token))?.revokedAt === NOON + 3) return performance.now() - began
          await new Promise((resolve) => setTimeout(resolve, 5))
        }
      }),
    )
    for (const ms of seen) expect(ms).toBeLessThan(PROMISED_MS)
    for (const keys of views) expect(keys.any()).toBe(true)
  })

  test('changed by any program are numbered without gaps, and read in order; a deleted one is gone', async () => {
    const [store, other] = await three()
    const made = await Promise.all(
      Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? store : other).create({ ...FIELDS, name: `k${i}` }, NOON + i)),
    )
    const [first, second] = made
    await store.database.run('renaming', 'UPDATE keys SET name = ? WHERE id = ?', 'renamed', first?.key.id ?? '')
    await store.database.run('deleting', 'DELETE FROM keys WHERE id = ?', second?.key.id ?? '')
    const changes = await other.changesAfter(0)
    expect(changes.map(({ n }) => n)).toEqual(Array.from({ length: 42 }, (_, i) => i + 1))
    expect(await other.changesAfter(40)).toMatchObject([
      { n: 41, id: first?.key.id, kept: { key: { name: 'renamed' } } },
      { n: 42, id: second?.key.id, kept: null },
    ])
    const keys = await view(other)
    expect((await keys.identify(first?.token ?? ''))?.name).toBe('renamed')
    expect(await keys.identify(second?.token ?? '')).toBeNull()
    expect((await store.list(NOON)).map(({ name }) => name)).toHaveLength(39)
  })

  test('are known from memory: a request asks for none of them, and a flood of guesses asks next to nothing', async () => {
    const [store] = await three()
    const { token } = await store.create(FIELDS, NOON)
    const { state, database } = watched(store.database)
    const keys = await view(await KeyStore.open(database))
    state.asked = 0
    const began = performance.now()
    for (let i = 0; i < 500; i++) expect(await keys.identify(token)).not.toBeNull()
    const polls = () => Math.ceil((performance.now() - began) / 250)
    expect(state.asked).toBeLessThanOrEqual(polls())
    const guesses = Array.from({ length: 500 }, () => keys.identify(newToken().token))
    expect((await Promise.all(guesses)).every((key) => key === null)).toBe(true)
    expect(state.asked).toBeLessThanOrEqual(polls() + 2)
    const again = newToken().token
    await keys.identify(again)
    const { asked } = state
    for (let i = 0; i < 100; i++) expect(await keys.identify(again)).toBeNull()
    expect(state.asked - asked).toBeLessThanOrEqual(1)
  })

  test('go on from memory while the database is away, which is said once, and catch up when it is back', async () => {
    const [store, other] = await three()
    const { key, token } = await store.create(FIELDS, NOON)
    const { state, database } = watched(store.database)
    const said: string[] = []
    const keys = await view(await KeyStore.open(database), (message) => void said.push(message))
    state.away = true
    for (let i = 0; i < 10; i++) {
      await keys.current()
      await new Promise((resolve) => setTimeout(resolve, 60))
      expect(await keys.identify(token)).toEqual(key)
    }
    expect(said).toEqual([expect.stringContaining('go on as last known: away')])
    expect([keys.any(), state.asked > 1]).toEqual([true, true])
    if (dialect === 'postgres') await expect(keys.identify(newToken().token)).rejects.toThrow('away')
    const late = await other.create(FIELDS, NOON)
    await other.revoke(key.id, NOON)
    state.away = false
    await expect
      .poll(async () => {
        await keys.current()
        return (await keys.identify(token))?.revokedAt
      })
      .toBe(NOON)
    expect(await keys.identify(late.token)).toEqual(late.key)
    expect(said).toEqual([said[0], 'the keys are read again'])
  })
})

test('keys go on while a real PostgreSQL is killed, and what was changed is read when it is back', async () => {
  const server = await startPostgres()
  close.push(() => server.remove())
  const url = await server.database()
  const database = new Postgres({ url, warn: () => {} })
  close.push(() => database.close())
  const store = await KeyStore.open(database)
  const { key, token } = await store.create(FIELDS, NOON)
  const keys = await view(store)
  await server.kill()
  await expect.poll(() => keys.identify(newToken().token).catch((error) => error.code)).toBe('storage_unavailable')
  expect(await keys.identify(token)).toEqual(key)
  await server.start()
  await store.revoke(key.id, NOON)
  await expect.poll(async () => (await keys.identify(token))?.revokedAt, { timeout: 10_000 }).toBe(NOON)
}, 120_000)
