import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import { FolderAdapters } from '../../../src/adapters/folder-store.ts'
import { type AdapterBase, type AdapterMade, Adapters } from '../../../src/adapters/registry.ts'
import { SharedAdapters } from '../../../src/adapters/shared-store.ts'
import type { AdapterStore } from '../../../src/adapters/store.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { cutDatabase } from '../../support/databases/cut-database.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000 })

const BASE = 'b'.repeat(64)
const MIB = 1024 * 1024
const POLL_MS = 20
const root = mkdtempSync(join(tmpdir(), 'palimpsest-adapter-store-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const opened: AdapterStore[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()))
})

let dirs = 0
const newDir = () => {
  const dir = join(root, `${++dirs}`)
  mkdirSync(dir)
  return dir
}

const made = (id: string, more: Partial<AdapterMade> = {}): AdapterMade => ({
  ...{ id, tenant: 'acme', baseSha256: BASE, method: 'memit', edits: ['e1'], created: 2_000, scale: 1 },
  ...more,
})

/** A gateway's adapters over a store, with a model that keeps what it was told to load. */
interface Node extends Adapters {
  readonly store: AdapterStore
  readonly inMemory: ReadonlySet<string>
}

function node(store: AdapterStore): Node {
  opened.push(store)
  const inMemory = new Set<string>()
  const base: AdapterBase = {
    check: async (path) => {
      const { length } = readFileSync(path)
      return { architecture: 'qwen2', rank: 1, bytes: length }
    },
    baseSha256: async () => BASE,
    load: async ({ sha256, path }) => {
      readFileSync(path)
      inMemory.add(sha256)
    },
    unload: async ({ sha256 }) => void inMemory.delete(sha256),
    loaded: ({ sha256 }) => inMemory.has(sha256),
  }
  const adapters = new Adapters({
    ...{ store, dataDir: root, base, now: () => 5_000, apart: () => false },
    editNow: () => ({ state: 'live', landedAt: 1_000, batchId: 'b1' }),
    limits: { adapters: 3, tenantAdapters: 3, adapterBytes: 8 * MIB },
  })
  return Object.assign(adapters, { store, inMemory })
}

const register = (to: Adapters, id: string, body: Buffer = Buffer.from(`file of ${id}`), more: Partial<AdapterMade> = {}) =>
  to.register(Readable.from([body]), made(id, more))
const codes = (settled: readonly PromiseSettledResult<unknown>[]) =>
  settled.map((one) => (one.status === 'fulfilled' ? 'done' : (one.reason as { code: string }).code)).sort()

interface Kept {
  readonly store: () => Promise<AdapterStore>
  /** What it says after a restart. */
  readonly again: () => Promise<AdapterStore>
}

function contract(kept: () => Promise<Kept>): void {
  const start = async () => {
    const { store, again } = await kept()
    return { adapters: node(await store()), again: async () => node(await again()) }
  }

  test('keeps record and file, also over a restart', async () => {
    const { adapters, again } = await start()
    const body = randomBytes(2 * MIB + 17)
    const adapter = await register(adapters, 'a', body)
    expect(adapter).toMatchObject({ id: 'a', sha256: createHash('sha256').update(body).digest('hex'), promotedAt: null })
    await adapters.change('a', 'acme', { scale: 0.5, edits: ['e1', 'e2'] })
    await adapters.promote('a', 'acme')
    const later = await again()
    expect(later.list('acme')).toEqual([{ ...adapter, scale: 0.5, edits: ['e1', 'e2'], promotedAt: 5_000, gated: true }])
    expect(later.promoted('acme')?.id).toBe('a')
    const { path } = await later.lora(later.get('a', 'acme'))
    expect(readFileSync(path).equals(body)).toBe(true)
  })

  test('refuses what is taken, too many, and changes that the state forbids; nothing is left of them', async () => {
    const { adapters } = await start()
    await register(adapters, 'a')
    await expect(register(adapters, 'a')).rejects.toMatchObject({ code: 'adapter_conflict' })
    await adapters.promote('a', 'acme')
    await expect(adapters.remove('a', 'acme')).rejects.toMatchObject({ code: 'adapter_conflict' })
    await expect(adapters.change('a', 'acme', { edits: [] })).rejects.toMatchObject({ code: 'adapter_conflict' })
    await expect(adapters.change('none', 'acme', { scale: 2 })).rejects.toMatchObject({ code: 'adapter_not_found' })
    await register(adapters, 'b')
    await register(adapters, 'c')
    await expect(register(adapters, 'd')).rejects.toThrow(/3 adapters, which is the limit/)
    expect(adapters.list('acme').map(({ id }) => id)).toEqual(['a', 'b', 'c'])
    expect(readdirSync(adapters.store.dir)).toHaveLength(3)
  })

  test('of registrations under one id at once one wins; of promotions at once one is left', async () => {
    const { adapters } = await start()
    const both = await Promise.allSettled([register(adapters, 'a', Buffer.from('1')), register(adapters, 'a', Buffer.from('2'))])
    expect(codes(both)).toEqual(['adapter_conflict', 'done'])
    await register(adapters, 'b')
    const promotions = await Promise.allSettled([adapters.promote('a', 'acme'), adapters.promote('b', 'acme')])
    expect(codes(promotions)).toEqual(['adapter_conflict', 'done'])
    expect(adapters.list('acme').filter(({ promotedAt }) => promotedAt !== null)).toHaveLength(1)
  })

  test('a promotion takes the place of the one before; a rollback leaves none', async () => {
    const { adapters, again } = await start()
    await register(adapters, 'a')
    await register(adapters, 'b')
    await adapters.promote('a', 'acme')
    await adapters.promote('b', 'acme')
    expect((await again()).list('acme').map(({ id, promotedAt }) => [id, promotedAt])).toEqual([
      ['a', null],
      ['b', 5_001],
    ])
    await adapters.rollback('b', 'acme')
    expect((await again()).promoted('acme')).toBeUndefined()
  })

  test('what is deleted leaves memory, record and file; another with the same file keeps it', async () => {
    const { adapters, again } = await start()
    const { sha256 } = await register(adapters, 'a', Buffer.from('same'))
    await register(adapters, 'b', Buffer.from('same'))
    await adapters.load('a', 'acme')
    await adapters.remove('a', 'acme')
    expect(adapters.inMemory.has(sha256)).toBe(false)
    await adapters.load('b', 'acme')
    const { path } = await adapters.lora(adapters.get('b', 'acme'))
    await adapters.remove('b', 'acme')
    expect(existsSync(path)).toBe(false)
    expect((await again()).list('acme')).toEqual([])
    await register(adapters, 'a', Buffer.from('same'))
    await adapters.load('a', 'acme')
  })

  test('a file whose end is not received leaves nothing', async () => {
    const { adapters } = await start()
    await expect(register(adapters, 'a', randomBytes(9 * MIB))).rejects.toMatchObject({ code: 'request_too_large' })
    expect(adapters.list('acme')).toEqual([])
    expect(readdirSync(adapters.store.dir)).toEqual([])
  })
}

describe('adapters of a folder', () => {
  contract(async () => {
    const dir = newDir()
    const open = async () => new FolderAdapters(dir, () => {})
    return { store: open, again: open }
  })
})

describe.each(DIALECTS)('adapters of a shared database of %s', (dialect) => {
  const { open, again } = databases(dialect)
  const store = (database: SqlDatabase, more: { warn?: (message: string) => void; waitMs?: number; dir?: string } = {}) =>
    SharedAdapters.open({ database, dir: newDir(), waitMs: 10_000, warn: () => {}, pollMs: POLL_MS, ...more })
  contract(async () => {
    const database = await open()
    return { store: () => store(database), again: () => store(again(database)) }
  })

  const nodes = async () => {
    const database = await open()
    return { database, one: node(await store(database)), other: node(await store(again(database))) }
  }

  test('reach the other gateway with their files, scale, promotion, rollback and deletion', async () => {
    const { one, other } = await nodes()
    const body = randomBytes(3 * MIB)
    const { sha256 } = await register(one, 'a', body)
    await vi.waitFor(() => expect(other.has('a')).toBe(true))
    await other.load('a', 'acme')
    const { path } = await other.lora(other.get('a', 'acme'))
    expect(readFileSync(path).equals(body)).toBe(true)
    await one.change('a', 'acme', { scale: 0.25 })
    await one.promote('a', 'acme')
    await vi.waitFor(() => expect(other.promoted('acme')).toMatchObject({ id: 'a', scale: 0.25 }))
    await other.rollback('a', 'acme')
    await vi.waitFor(() => expect(one.promoted('acme')).toBeUndefined())
    await one.remove('a', 'acme')
    await vi.waitFor(() => {
      expect(other.has('a')).toBe(false)
      expect(other.inMemory.has(sha256)).toBe(false)
      expect(existsSync(path)).toBe(false)
    })
  })

  test('of two gateways that register one id, or promote two adapters, at once, one wins', async () => {
    const { one, other } = await nodes()
    const both = await Promise.allSettled([register(one, 'a', Buffer.from('1')), register(other, 'a', Buffer.from('2'))])
    expect(codes(both)).toEqual(['adapter_conflict', 'done'])
    await register(one, 'b')
    await vi.waitFor(() => expect(other.has('b')).toBe(true))
    const promotions = await Promise.allSettled([one.promote('a', 'acme'), other.promote('b', 'acme')])
    expect(codes(promotions)).toEqual(['adapter_conflict', 'done'])
    await vi.waitFor(() => expect(one.list('acme')).toEqual(other.list('acme')))
    expect(one.list('acme').filter(({ promotedAt }) => promotedAt !== null)).toHaveLength(1)
    await vi.waitFor(() => expect(one.promoted('acme')?.id).toBe(other.promoted('acme')?.id))
  })

  test('a file that came otherwise than it was sent is named, not served, and fetched again', async () => {
    const { database, one } = await nodes()
    const body = randomBytes(MIB + 5)
    const { sha256 } = await register(one, 'a', body)
    const spoil = (to: Buffer) =>
      database.run('spoiling', 'UPDATE adapter_pieces SET body = ? WHERE sha256 = ? AND number = 1', to, sha256)
    await spoil(Buffer.from('wrong'))
    const said: string[] = []
    const late = node(await store(again(database), { warn: (message) => said.push(message), waitMs: 50 }))
    await expect(late.load('a', 'acme')).rejects.toMatchObject({ code: 'storage_unavailable', status: 503, retryAfterSeconds: 2 })
    await vi.waitFor(() => expect(said[0]).toMatch(/adapter 'a' is not served here yet: expected sha256/))
    await vi.waitFor(() => expect(readdirSync(late.store.dir)).toEqual([]))
    await database.run('losing', 'DELETE FROM adapter_pieces WHERE sha256 = ? AND number = 1', sha256)
    await vi.waitFor(() => expect(said.at(-1)).toMatch(/piece 2 of 2 is missing/), { timeout: 5_000 })
    await database.run(
      'mending',
      'INSERT INTO adapter_pieces (sha256, number, body, written_at) VALUES (?, ?, ?, 0)',
      ...[sha256, 1, body.subarray(MIB)],
    )
    await vi.waitFor(() => late.load('a', 'acme'), { timeout: 10_000 })
  })

  test('a request that is aborted waits no longer', async () => {
    const { database, one } = await nodes()
    const { sha256 } = await register(one, 'a')
    await database.run('losing', 'DELETE FROM adapter_pieces WHERE sha256 = ?', sha256)
    const late = node(await store(again(database)))
    const gone = new AbortController()
    const waiting = late.lora(late.get('a', 'acme'), gone.signal)
    gone.abort(new Error('the client is gone'))
    await expect(waiting).rejects.toThrow('the client is gone')
  })

  test('a copy from before a restart is kept where it is whole, else replaced; one that nothing names goes', async () => {
    const { database, one } = await nodes()
    await register(one, 'a')
    const dir = newDir()
    const first = await store(again(database), { dir })
    const before = node(first)
    const { path } = await before.lora(before.get('a', 'acme'))
    await first.close()
    writeFileSync(path, 'half')
    writeFileSync(join(dir, `${'0'.repeat(64)}.gguf`), 'deleted meanwhile')
    const after = node(await store(again(database), { dir }))
    await after.lora(after.get('a', 'acme'))
    expect(readFileSync(path, 'utf8')).toBe('file of a')
    expect(readdirSync(dir)).toEqual([basename(path)])
  })

  test('pieces of what was never registered are deleted once they are old, and those of a deleted file at once', async () => {
    const { database, one } = await nodes()
    const count = async () =>
      (await database.all<{ sha256: string }>('counting', 'SELECT DISTINCT sha256 FROM adapter_pieces ORDER BY sha256')).map(
        (row) => row.sha256,
      )
    const { sha256 } = await register(one, 'a', randomBytes(2 * MIB))
    const insert = (name: string, ageMs: number) =>
      database.run(
        'leaving a piece',
        'INSERT INTO adapter_pieces (sha256, number, body, written_at) VALUES (?, 0, ?, ?)',
        ...[name, Buffer.from('x'), Date.now() - ageMs],
      )
    await insert('0old', 3_700_000)
    await insert('0new', 0)
    node(await store(again(database)))
    expect(await count()).toEqual(['0new', sha256].sort())
    await one.remove('a', 'acme')
    expect(await count()).toEqual(['0new'])
  })

  test('a database that was put back to an earlier state is read anew', async () => {
    const { database, one } = await nodes()
    await register(one, 'a')
    await register(one, 'b')
    await database.atOnce('putting back', async (sql) => {
      await sql.run('putting back', "DELETE FROM adapters WHERE id = 'b'")
      await sql.run('putting back', 'UPDATE adapters_position SET position = 1')
    })
    await vi.waitFor(() => expect(one.list('acme').map(({ id }) => id)).toEqual(['a']))
  })

  test('away: what is known goes on, changes are refused, and it is said once; back, it catches up', async () => {
    const database = await open()
    const one = node(await store(database))
    await register(one, 'a')
    const own = cutDatabase(again(database))
    const said: string[] = []
    const cut = node(await store(own, { warn: (message) => said.push(message) }))
    await cut.load('a', 'acme')
    own.cut()
    await vi.waitFor(() => expect(said).toHaveLength(1))
    await sleep(5 * POLL_MS)
    expect(cut.get('a', 'acme').id).toBe('a')
    await expect(cut.change('a', 'acme', { scale: 2 })).rejects.toMatchObject({ code: 'storage_unavailable' })
    await one.change('a', 'acme', { scale: 3 })
    own.mend()
    await vi.waitFor(() => expect(cut.get('a', 'acme').scale).toBe(3))
    expect(said).toEqual([expect.stringMatching(/^adapters are as they were last seen/)])
  })
})
