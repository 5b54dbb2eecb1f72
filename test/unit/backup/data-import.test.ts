import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { type Adapter, recordText } from '../../../src/adapters/record.ts'
import { SharedAdapters } from '../../../src/adapters/shared-store.ts'
import { importData } from '../../../src/backup/data-import.ts'
import { LEDGER_SCHEMA } from '../../../src/experiment/ledger/schema.ts'
import { FolderJobs } from '../../../src/handoff/folder-jobs.ts'
import { type Job, THRESHOLDS } from '../../../src/handoff/job.ts'
import { SharedJobs } from '../../../src/handoff/shared-jobs.ts'
import { openMemory } from '../../../src/memory/store.ts'
import { openKeys } from '../../../src/server/access.ts'
import { Database } from '../../../src/storage/database.ts'
import { lockFolder } from '../../../src/storage/folder-lock.ts'
import { migrate } from '../../../src/storage/migrate.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { SqliteSql } from '../../../src/storage/sqlite-sql.ts'
import { databases } from '../../support/databases/databases.ts'
import { fact, fakeEmbedder, recordingLog } from '../../support/memory-fixture.ts'

const root = mkdtempSync(join(tmpdir(), 'palimpsest-import-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))
const warn: (message: string) => void = () => {}
/** More than one statement writes. */
const ROWS = 1_001

const JOB: Job = {
  ...{ id: 'job', tenant: 'acme', method: 'memit', state: 'done', created: '2026-01-01T00:00:00.000Z' },
  ...{
    updated: '2026-01-01T00:00:00.000Z',
    edits: ['e1'],
    plan: [1],
    base: { name: 'm', sha256: 'b'.repeat(64), tokenizer: 't' },
  },
  settings: {
    ...{ thresholds: THRESHOLDS, sample_edits: 1, unrelated_questions: 0, fluency_openings: 0, ability_questions: 0 },
    ...{ answer_tokens: 8, seed: 1, threads: 1, device: 'cpu', dtype: 'float32', memory_bytes: null },
    ...{ hparams: {}, statistics: {}, data: null },
  },
  ...{ stages: [], progress: null, estimate_s: null, attempts: 1, pid: null, fault: null, adapter: 'job', notes: [] },
}

const FILE = Buffer.alloc(1024 * 1024 + 3, 'gguf')
const ADAPTER: Adapter = {
  ...{ id: 'job', tenant: 'acme', baseSha256: 'b'.repeat(64), architecture: 'qwen2', method: 'memit', edits: ['e1'] },
  ...{ created: 1_000, scale: 0.5, sha256: createHash('sha256').update(FILE).digest('hex'), rank: 1, bytes: FILE.length },
  ...{ promotedAt: 2_000, gated: true },
}

/** A folder with a memory, adapters and hand-offs; what `openMemory` needs besides is made up. */
async function folder(): Promise<string> {
  const dataDir = mkdtempSync(join(root, 'data-'))
  const store = await openMemory({ dataDir, embedder: fakeEmbedder(), now: Date.now, log: recordingLog() })
  await store.land([fact(1), fact(2)], { source: 'test', tenant: 'default', dryRun: false })
  await store.withdraw('default', ['e1'], 'test')
  await store.indexed()
  await store.close()
  mkdirSync(join(dataDir, 'adapters/job'), { recursive: true })
  writeFileSync(join(dataDir, 'adapters/job/adapter.json'), recordText(ADAPTER))
  writeFileSync(join(dataDir, 'adapters/job/adapter.gguf'), FILE)
  const jobs = new FolderJobs(join(dataDir, 'handoffs'), warn)
  await jobs.add(JOB, [fact(1)], () => {})
  await jobs.add({ ...JOB, id: 'cut', state: 'running' }, [fact(2)], () => {})
  return dataDir
}

/** As another program, or an older one, would. */
function change(file: string, ...statements: readonly string[]): void {
  const db = new Database(file)
  for (const statement of statements) db.exec(statement)
  db.close()
}

describe('a data folder that is moved into PostgreSQL', { timeout: 60_000 }, () => {
  const { open, again } = databases('postgres')
  const moveTo = (database: SqlDatabase, dataDir: string, say = warn) =>
    importData({ dataDir, database, now: Date.now, warn: say })
  const tablesOf = (database: SqlDatabase) =>
    database.all('looking', 'SELECT 1 AS one FROM information_schema.tables WHERE table_schema = current_schema()')

  test('has the same log, vectors, adapters with their files, and hand-offs with their edits', async () => {
    const database = await open()
    const dataDir = await folder()
    writeFileSync(join(dataDir, 'other.db'), '')
    const { moved, left } = await moveTo(database, dataDir)
    expect(Object.fromEntries(moved)).toMatchObject({ ...{ batches: 2, log: 3, adapters: 1, 'hand-offs': 2 }, ledger_state: 1 })
    expect(left).toEqual(['other.db'])
    const own = new Database(join(dataDir, 'palimpsest.db'), { readOnly: true })
    expect(await database.all('reading', 'SELECT * FROM log ORDER BY seq')).toEqual(
      own
        .prepare('SELECT * FROM log')
        .all()
        .map((row) => ({ ...(row as object) })),
    )
    expect(await database.all('reading', 'SELECT * FROM batches ORDER BY n')).toEqual(
      own
        .prepare('SELECT rowid AS n, * FROM batches')
        .all()
        .map((row) => ({ ...(row as object) })),
    )
    own.close()
    const vectors = new Database(join(dataDir, 'index/vectors.db'), { readOnly: true })
    const hex = (rows: readonly unknown[]) =>
      (rows as { key: Uint8Array; vector: Uint8Array }[]).map(({ key, vector }) =>
        [key, vector].map((b) => Buffer.from(b).toString('hex')),
      )
    const kept = hex(vectors.prepare('SELECT key, vector FROM vectors ORDER BY key').all())
    vectors.close()
    expect(kept.length).toBeGreaterThan(0)
    expect(hex(await database.all('reading', 'SELECT key, vector FROM vectors ORDER BY key'))).toEqual(kept)

    const adapters = await SharedAdapters.open({ database, dir: join(dataDir, 'copies'), waitMs: 10_000, warn })
    expect([...adapters.records.values()]).toEqual([ADAPTER])
    await adapters.present(ADAPTER)
    expect(readFileSync(adapters.path(ADAPTER)).equals(FILE)).toBe(true)
    await adapters.change(({ write }) => write({ ...ADAPTER, scale: 1 }))
    await adapters.close()

    const jobs = await SharedJobs.open({ database, dir: join(dataDir, 'jobs'), warn })
    expect(jobs.get('job')).toEqual(JOB)
    expect(await jobs.claim({ mostAttempts: 3, baseSha256: 'b'.repeat(64) })).toMatchObject({ id: 'cut', attempts: 2 })
    expect(jobs.edits('cut')).toEqual([fact(2)])
    await jobs.close(Promise.resolve())
  })

  test('brings numbers of rows along, and counts on from the last', async () => {
    const database = await open()
    const dataDir = await folder()
    const file = join(dataDir, 'palimpsest.db')
    const sqlite = new SqliteSql(file, { durable: true })
    await migrate(sqlite, LEDGER_SCHEMA)
    await sqlite.close()
    const rows = Array.from({ length: ROWS }, (_, i) => `(${2 * (i + 1)}, 'default/x', ${i}, 'said', '{"ü": "\\u0000 ${i}"}')`)
    change(file, `INSERT INTO experiment_events (rowid, experiment, at, kind, body) VALUES ${rows.join(', ')}`)
    const { moved } = await moveTo(database, dataDir)
    expect(moved.get('experiment_events')).toBe(ROWS)
    const copied = await database.all<{ rowid: number; at: number; body: string }>(
      'reading',
      'SELECT * FROM experiment_events ORDER BY rowid',
    )
    expect(copied.map(({ rowid, at, body }) => [rowid, at, body])).toEqual(
      Array.from({ length: ROWS }, (_, i) => [2 * (i + 1), i, `{"ü": "\\u0000 ${i}"}`]),
    )
    const insert = "INSERT INTO experiment_events (experiment, at, kind, body) VALUES ('x', 0, 'said', '') RETURNING rowid"
    expect(await database.all('writing', insert)).toEqual([{ rowid: 2 * ROWS + 1 }])
  })

  test('takes every table along but those that only say who holds something, and what a trigger fills', async () => {
    const database = await open()
    const dataDir = await folder()
    const keys = await openKeys(dataDir)
    await keys.create({ name: 'a', tenant: null, scopes: ['admin'] }, 0)
    await keys.database.close()
    const { moved } = await moveTo(database, dataDir)
    const tables = ['palimpsest.db', 'keys.db', 'index/vectors.db'].flatMap((name) => {
      const db = new Database(join(dataDir, name), { readOnly: true })
      const found = db.prepare<{ name: string }>("SELECT name FROM sqlite_master WHERE type = 'table'").all()
      db.close()
      return found.map((table) => table.name)
    })
    expect(new Set(tables.filter((name) => !moved.has(name)))).toEqual(
      new Set(['schema_versions', 'experiment_leases', 'key_changes']),
    )
    expect(await database.all('reading', 'SELECT n FROM key_changes')).toEqual([{ n: 1 }])
  })

  test('is refused where the database holds something, where a gateway holds the folder, and where there is none', async () => {
    const database = await open()
    const dataDir = await folder()
    const lock = lockFolder(dataDir, Date.now)
    await expect(moveTo(database, dataDir)).rejects.toMatchObject({ code: 'folder_in_use' })
    lock.release()
    await database.run('filling', 'CREATE TABLE something (n INTEGER)')
    await expect(moveTo(database, dataDir)).rejects.toThrow(/holds tables already \(something\): name a new database/)
    const empty = mkdtempSync(join(root, 'empty-'))
    await expect(moveTo(database, empty)).rejects.toThrow(/is no data folder: it holds no palimpsest.db/)
    expect(readdirSync(empty)).toEqual([])
  })

  test('of two folders at once into one database, one is moved', async () => {
    const database = await open()
    const [one, two] = [await folder(), await folder()]
    const moves = await Promise.allSettled([moveTo(database, one), moveTo(again(database), two)])
    expect(moves.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(await database.all('reading', 'SELECT count(*) AS n FROM log')).toEqual([{ n: 3 }])
  })

  test.each<[string, (dataDir: string) => void, RegExp]>([
    [
      'a damaged file of an adapter',
      (dir) => writeFileSync(join(dir, 'adapters/job/adapter.gguf'), 'half'),
      /adapter.gguf is not as it was registered/,
    ],
    [
      'a hand-off without its edits',
      (dir) => rmSync(join(dir, 'handoffs/cut/edits.json')),
      /edits.json can't be read: put it back/,
    ],
    [
      'a column that would be lost',
      (dir) => change(join(dir, 'palimpsest.db'), 'ALTER TABLE log ADD COLUMN more TEXT'),
      /PostgreSQL has no column more/,
    ],
    [
      'a gap in the log',
      (dir) => change(join(dir, 'palimpsest.db'), 'DROP TRIGGER log_keeps_rows', 'DELETE FROM log WHERE seq = 2'),
      /palimpsest.db holds 2 rows of log, and the last is number 3/,
    ],
    [
      'another program’s database',
      (dir) => change(join(dir, 'palimpsest.db'), 'PRAGMA application_id = 7'),
      /is a database of another program/,
    ],
  ])('leaves nothing in the database on a fault: %s', async (_, harm, message) => {
    const database = await open()
    const dataDir = await folder()
    harm(dataDir)
    await expect(moveTo(database, dataDir)).rejects.toThrow(message)
    expect(await tablesOf(database)).toEqual([])
    // The folder is free again.
    lockFolder(dataDir, Date.now).release()
  })

  test('passes over kept embeddings that cannot be read, and says so', async () => {
    const database = await open()
    const dataDir = await folder()
    writeFileSync(join(dataDir, 'index/vectors.db'), 'no database')
    const said: string[] = []
    const { moved } = await moveTo(database, dataDir, (message) => said.push(message))
    expect([moved.get('vectors'), moved.get('log')]).toEqual([undefined, 3])
    expect(said).toEqual([expect.stringMatching(/vectors.db is left out/)])
  })
})
