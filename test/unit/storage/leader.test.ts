import { afterEach, describe, expect, test } from 'vitest'
import { Leader } from '../../../src/storage/leader.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'

const LEASE_MS = 400
const open: Leader[] = []
afterEach(async () => {
  for (const leader of open.splice(0)) await leader.close()
})

describe.each(DIALECTS)('a leader over %s', (dialect) => {
  const { open: openDatabase, again } = databases(dialect)
  const events: string[] = []
  const gateway = async (name: string, database: SqlDatabase) => {
    const leader = await Leader.open({
      name: 'a task',
      database,
      leaseMs: LEASE_MS,
      lead: async () => void events.push(`${name} leads`),
      yields: async () => void events.push(`${name} yields`),
      warn: (message) => void events.push(message),
    })
    open.push(leader)
    return leader
  }

  test('is one of all gateways, for as long as it lives; told to stop, it makes room at once', async () => {
    events.length = 0
    const database = await openDatabase()
    const [first, second, third] = await Promise.all(['1', '2', '3'].map((name) => gateway(name, again(database))))
    const leaders = () => [first, second, third].filter((one) => one?.leads)
    expect([leaders().length, events.length]).toEqual([1, 1])
    await new Promise((resolve) => setTimeout(resolve, 2 * LEASE_MS))
    expect([leaders().length, events.length]).toEqual([1, 1])
    const [before] = leaders()
    await before?.close()
    await expect.poll(() => leaders().length, { timeout: LEASE_MS }).toBe(1)
    expect(leaders()[0]).not.toBe(before)
    expect(events.map((event) => event.replace(/^\d /, ''))).toEqual(['leads', 'yields', 'leads'])
  })

  test('that can no longer write yields before another leads', async () => {
    events.length = 0
    const database = await openDatabase()
    const own = again(database)
    const state = { away: false }
    const run: SqlDatabase['run'] = (...args) => (state.away ? Promise.reject(new Error('away')) : own.run(...args))
    const failing = { ...bound(own), run }
    const first = await gateway('1', failing)
    const second = await gateway('2', again(database))
    expect([first.leads, second.leads]).toEqual([true, false])
    state.away = true
    await expect.poll(() => second.leads, { timeout: 3 * LEASE_MS }).toBe(true)
    expect(events).toEqual(['1 leads', '1 yields', '2 leads'])
  })
})

function bound(database: SqlDatabase): SqlDatabase {
  const { dialect, name } = database
  const [all, run, runAll, atOnce, close] = [database.all, database.run, database.runAll, database.atOnce, database.close]
  return {
    ...{ dialect, name },
    ...{ all: all.bind(database), run: run.bind(database), runAll: runAll.bind(database) },
    ...{ atOnce: atOnce.bind(database), close: close.bind(database) },
  }
}
