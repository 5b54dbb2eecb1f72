import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { PalimpsestError } from '../../../src/errors.ts'
import { cachedEmbedder } from '../../../src/memory/vectors/cached-embedder.ts'
import { Database } from '../../../src/storage/database.ts'
import { holder, lockFolder } from '../../../src/storage/folder-lock.ts'
import { needing } from '../../needs.ts'
import { clock, fact, fakeEmbedder, memory, POST, recordingLog, scratch, vectorOf } from '../../support/memory-fixture.ts'

// Generous: these wait for a disk that others may keep busy.
vi.setConfig({ testTimeout: 60_000 })

const T = 'default'
const facts = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => fact(from + i))

async function faultOf(work: () => unknown): Promise<PalimpsestError> {
  try {
    await work()
  } catch (error) {
    if (error instanceof PalimpsestError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

describe('the data folder', () => {
  test('is held by one memory at a time, and the refusal names the holder', async () => {
    const dataDir = scratch()
    expect(holder(dataDir)).toBeNull()
    const first = await memory({ dataDir, now: clock(Date.UTC(2026, 0, 2)) })
    expect(holder(dataDir)).toEqual({ pid: process.pid, since: Date.UTC(2026, 0, 2), url: null })
    first.setUrl('http://127.0.0.1:8080')
    expect(holder(dataDir)?.url).toBe('http://127.0.0.1:8080')
    const refused = await faultOf(() => memory({ dataDir }))
    expect(refused.code).toBe('folder_in_use')
    for (const part of [dataDir, String(process.pid), '2026-01-02T00:00:00.000Z', 'http://127.0.0.1:8080'])
      expect(refused.message).toContain(part)
    await first.land([fact(1)], POST)
    await first.close()
    expect(holder(dataDir)).toBeNull()
    expect((await memory({ dataDir })).get(T, 'e1')?.state).toBe('live')
  })

  test('is free again when opening fails half-way', async () => {
    const dataDir = scratch()
    writeFileSync(join(dataDir, 'palimpsest.db'), 'x'.repeat(5_000))
    await faultOf(() => memory({ dataDir }))
    lockFolder(dataDir, () => 0).release()
  })

  test("a dead process's note names nobody", () => {
    const dataDir = scratch()
    lockFolder(dataDir, () => 0).release()
    writeFileSync(join(dataDir, 'gateway.json'), JSON.stringify({ pid: 1, since: 0, url: 'http://gone' }))
    expect(holder(dataDir)).toBeNull()
  })

  test('takes nothing after closing', async () => {
    const store = await memory()
    await store.close()
    expect((await faultOf(() => store.land([fact(1)], POST))).code).toBe('shutting_down')
    await store.close()
  })
})

describe('the log file', () => {
  async function used(): Promise<{ dataDir: string; file: string }> {
    const dataDir = scratch()
    const store = await memory({ dataDir })
    await store.land(facts(0, 400), POST)
    await store.close()
    return { dataDir, file: join(dataDir, 'palimpsest.db') }
  }

  test.each([
    ['no database', (file: string) => writeFileSync(file, 'x'.repeat(5_000)), /damaged .* Put back a backup/],
    ['a page overwritten', garble, /damaged .* Put back a backup/],
    ['of a newer version', (file: string) => pragma(file, 'user_version = 99'), /newer Palimpsest \(format 99/],
    ['of another program', (file: string) => pragma(file, 'application_id = 7'), /another program/],
  ])('%s: refused with its name, and left as it is', async (_, spoil, sentence) => {
    const { dataDir, file } = await used()
    spoil(file)
    const bytes = readFileSync(file)
    const fault = await faultOf(() => memory({ dataDir }))
    expect(fault.code).toBe('storage_failed')
    expect(fault.message).toContain(file)
    expect(fault.message).toMatch(sentence)
    expect(readFileSync(file).equals(bytes)).toBe(true)
  })

  test('of before tables had versions opens as it is, and grows', async () => {
    const dataDir = scratch()
    const file = join(dataDir, 'palimpsest.db')
    const db = new Database(file)
    db.exec(OLD_SCHEMA)
    const body = JSON.stringify(fact(1))
    db.exec(`INSERT INTO batches VALUES ('default', 'b', 5, 'http', 'add', 1, 'd');
      INSERT INTO log VALUES (1, 5, 'default', 'add', 'e1', 'b', '${body}')`)
    db.close()
    const store = await memory({ dataDir })
    expect(store.get(T, 'e1')).toMatchObject({ state: 'live', batchId: 'b', seq: 1, landedAt: 5, edit: fact(1) })
    expect((await store.land([fact(2)], POST)).version).toBe(2)
    await store.close()
    const after = new Database(file)
    onTestFinished(() => void after.close())
    expect(after.value('PRAGMA user_version')).toBe(1)
    expect(after.prepare('SELECT seq, at, edit_id FROM log').all()).toEqual([
      { seq: 1, at: 5, edit_id: 'e1' },
      { seq: 2, at: 1_000, edit_id: 'e2' },
    ])
  })

  test('only grows: rows can be neither changed nor deleted', async () => {
    const { file } = await used()
    const db = new Database(file)
    onTestFinished(() => void db.close())
    for (const sql of ['DELETE FROM log', "UPDATE log SET body = '{}'", 'DELETE FROM batches', 'UPDATE batches SET at = 0']) {
      expect(() => db.exec(sql)).toThrow(/only grows/)
    }
  })

  test('has edits as they were given, in whatever script', async () => {
    const dataDir = scratch()
    const odd = fact(1, {
      subject: "Ō'x\u0000\u2028🙂",
      aliases: ['東京', '"; DROP TABLE log; --'],
      tags: ['{{x}}'],
      validTo: 8_640_000_000_000_000,
    })
    const first = await memory({ dataDir })
    await first.land([odd], POST)
    await first.close()
    expect((await memory({ dataDir })).get(T, 'e1')?.edit).toEqual(odd)
  })
})

/** As every release up to 0.1.0 wrote it. */
const OLD_SCHEMA = `
  CREATE TABLE batches (
    tenant TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, source TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('add', 'withdraw', 'restore', 'sync')),
    edits INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (tenant, id)
  ) STRICT;
  CREATE TABLE log (
    seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, tenant TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('add', 'withdraw', 'restore')),
    edit_id TEXT NOT NULL, batch_id TEXT NOT NULL, body TEXT CHECK ((body IS NOT NULL) = (kind = 'add'))
  ) STRICT;
  CREATE TRIGGER log_keeps_rows BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
  PRAGMA application_id = 0x504c4d50;
  PRAGMA user_version = 1;
`

function garble(file: string): void {
  const bytes = readFileSync(file)
  bytes.fill(0x5a, 8 * 4_096, 12 * 4_096)
  writeFileSync(file, bytes)
}

function pragma(file: string, set: string): void {
  const db = new Database(file)
  db.exec(`PRAGMA ${set}`)
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  db.exec('PRAGMA journal_mode = DELETE')
  db.close()
}

const mount = (megabytes: number, folder: string) =>
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', folder], { stdio: 'ignore' })
const unmount = (folder: string) => void execFileSync('umount', ['-l', folder])

/** A file system of this size. */
function smallDisk(megabytes: number): string {
  const folder = scratch()
  mount(megabytes, folder)
  onTestFinished(() => unmount(folder))
  return folder
}

const mounts = (() => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-mount-'))
  try {
    mount(1, folder)
    unmount(folder)
    return true
  } catch {
    return false
  } finally {
    rmdirSync(folder)
  }
})()

needing(mounts, 'no tmpfs can be mounted; run the tests as root on Linux')('a full disk', {}, () => {
  test('the landing is refused whole, what was there stays, and with room it goes on', async () => {
    const dataDir = smallDisk(3)
    const log = recordingLog()
    const options = { dataDir, log, limits: { exactPoints: 10 } }
    const store = await memory(options)
    await store.land(facts(0, 100), POST)
    await store.indexed()
    writeFileSync(join(dataDir, 'ballast'), new Uint8Array(1_000_000))
    const version = store.version(T)
    const fault = await faultOf(() => store.land(facts(100, 20_000), POST))
    expect(fault).toMatchObject({ code: 'storage_full', status: 507 })
    expect(fault.message).toContain('is full')
    expect([store.version(T), store.get(T, 'e100'), store.get(T, 'e99')?.state]).toEqual([version, undefined, 'live'])
    rmSync(join(dataDir, 'ballast'))
    await store.land(facts(100, 200), POST)
    expect(store.get(T, 'e199')?.state).toBe('live')
    await store.close()
    const again = await memory(options)
    await again.indexed()
    expect([again.version(T), again.status()[0]?.indexed]).toEqual([200, 200])
  })

  test('that has no room for the index: a warning, and what is outside it is scanned', async () => {
    const dataDir = smallDisk(2)
    const log = recordingLog()
    const embedder = fakeEmbedder({ dimensions: 64 })
    const store = await memory({ dataDir, log, embedder, limits: { exactPoints: 10 } })
    await store.land(facts(0, 1_000), POST)
    await store.indexed()
    const query = vectorOf('The mayor of Town 7 is', 64)
    expect(store.search(T, query, 3)).toEqual(store.exactSearch(T, query, 3))
    await store.close()
    expect(log.lines.map((l) => l.message)).toContainEqual(expect.stringContaining('the vector index could not be extended'))
    expect(existsSync(join(dataDir, 'index')) && readdir(dataDir)).not.toContain('.tmp')
    const again = await memory({ dataDir, embedder, limits: { exactPoints: 10 } })
    await again.indexed()
    expect(again.status()[0]).toMatchObject({ indexed: 1_000, pending: 0 })
  })
})

function readdir(dataDir: string): string {
  return execFileSync('ls', [join(dataDir, 'index')], { encoding: 'utf8' })
}

describe('the cache of question vectors', () => {
  test('asks once per text, in order, and forgets the oldest beyond its bytes', async () => {
    const inner = fakeEmbedder()
    const cached = cachedEmbedder(inner, 1_000)
    const [a, b, again] = await cached.embed(['a', 'b', 'a'], 'query')
    expect(again).toBe(a)
    expect(a).not.toEqual(b)
    expect((await cached.embed(['b', 'c'], 'query'))[0]).toBe(b)
    expect(inner.asked).toEqual(['a', 'b', 'c'])
    for (let i = 0; i < 10; i++) await cached.embed([`text ${i}`], 'query')
    await cached.embed(['a'], 'query')
    expect(inner.asked.filter((t) => t === 'a')).toHaveLength(2)
  })

  test('is not flushed by imports', async () => {
    const inner = fakeEmbedder()
    const cached = cachedEmbedder(inner, 1_000)
    await cached.embed(['a'], 'query')
    await cached.embed(
      Array.from({ length: 50 }, (_, i) => `import ${i}`),
      'import',
    )
    await cached.embed(['a'], 'query')
    expect(inner.asked.filter((t) => t === 'a')).toHaveLength(1)
  })
})
