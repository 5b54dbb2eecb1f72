import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { type Adapter, recordText } from '../../../src/adapters/record.ts'
import { SharedAdapters } from '../../../src/adapters/shared-store.ts'
import { type CopiedPort, importData } from '../../../src/backup/data-import.ts'
import { FolderJobs } from '../../../src/handoff/folder-jobs.ts'
import { type Job, THRESHOLDS } from '../../../src/handoff/job.ts'
import { SharedJobs } from '../../../src/handoff/shared-jobs.ts'
import { lockFolder } from '../../../src/storage/folder-lock.ts'
import { migrate, type Schema } from '../../../src/storage/migrate.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { SqliteSql } from '../../../src/storage/sqlite-sql.ts'
import { databases } from '../../support/databases.ts'
import { fact } from '../../support/memory-data.ts'

const root = mkdtempSync(join(tmpdir(), 'palimpsest-import-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))
const warn = () => {}

/** Of two tables: numbered rows with bytes, and a state that the first step puts in. */
const SCHEMA: Schema = {
  port: 'notes',
  oldestReader: 1,
  steps: [
    {
      sqlite: [
        'CREATE TABLE notes (seq INTEGER PRIMARY KEY, body BLOB, at REAL) STRICT',
        'CREATE TABLE note_state (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID',
        "INSERT INTO note_state (name, n) VALUES ('written', 0)",
      ],
      postgres: [
        'CREATE TABLE notes (seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body BYTEA, at DOUBLE PRECISION)',
        'CREATE TABLE note_state (name TEXT PRIMARY KEY, n BIGINT NOT NULL)',
        "INSERT INTO note_state (name, n) VALUES ('written', 0)",
      ],
    },
  ],
}
const PORTS: readonly CopiedPort[] = [{ schema: SCHEMA, file: 'notes.db', tables: ['notes', 'note_state'] }]
const NOTES = 250

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

let folders = 0
async function folder(): Promise<string> {
  const dataDir = join(root, `${++folders}`)
  mkdirSync(join(dataDir, 'adapters/job'), { recursive: true })
  writeFileSync(join(dataDir, 'adapters/job/adapter.json'), recordText(ADAPTER))
  writeFileSync(join(dataDir, 'adapters/job/adapter.gguf'), FILE)
  const jobs = new FolderJobs(join(dataDir, 'handoffs'), warn)
  await jobs.add(JOB, [fact(1)], () => {})
  await jobs.add({ ...JOB, id: 'cut', state: 'running' }, [fact(2)], () => {})
  const notes = new SqliteSql(join(dataDir, 'notes.db'), { durable: false })
  await migrate(notes, SCHEMA)
  for (let seq = 1; seq <= NOTES; seq++)
    await notes.run('writing', 'INSERT INTO notes (seq, body, at) VALUES (?, ?, ?)', 2 * seq, Buffer.from([seq % 256]), seq / 4)
  await notes.run('writing', "UPDATE note_state SET n = 250 WHERE name = 'written'")
  await notes.close()
  return dataDir
}

describe('a data folder that is moved into PostgreSQL', () => {
  const { open } = databases('postgres')
  const moveTo = (database: SqlDatabase, dataDir: string, ports = PORTS) =>
    importData({ dataDir, database, now: Date.now, warn, ports })
  const tablesOf = (database: SqlDatabase) =>
    database.all('looking', 'SELECT 1 AS one FROM information_schema.tables WHERE table_schema = current_schema()')

  test('has the same rows, adapters with their files, and hand-offs with their edits', async () => {
    const database = await open()
    const dataDir = await folder()
    writeFileSync(join(dataDir, 'other.db'), '')
    const { moved, left } = await moveTo(database, dataDir)
    expect([...moved]).toEqual([
      ['notes', NOTES],
      ['note_state', 1],
      ['adapters', 1],
      ['hand-offs', 2],
    ])
    expect(left).toEqual(['other.db'])

    const rows = await database.all<{ seq: number; body: Buffer; at: number }>('reading', 'SELECT * FROM notes ORDER BY seq')
    expect(rows.map(({ seq, body, at }) => [seq, body[0], at])).toEqual(
      Array.from({ length: NOTES }, (_, i) => [2 * (i + 1), (i + 1) % 256, (i + 1) / 4]),
    )
    expect(await database.all('reading', 'SELECT * FROM note_state')).toEqual([{ name: 'written', n: 250 }])
    // Numbers go on where they were.
    expect(await database.all('writing', 'INSERT INTO notes (at) VALUES (0) RETURNING seq')).toEqual([{ seq: 2 * NOTES + 1 }])

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

  test('is refused where the database holds something, and where a gateway holds the folder', async () => {
    const database = await open()
    const dataDir = await folder()
    const lock = lockFolder(dataDir, Date.now)
    await expect(moveTo(database, dataDir)).rejects.toMatchObject({ code: 'folder_in_use' })
    lock.release()
    await database.run('filling', 'CREATE TABLE something (n INTEGER)')
    await expect(moveTo(database, dataDir)).rejects.toThrow(/holds tables already \(something\): name a new database/)
    await expect(moveTo(database, join(root, 'nowhere'))).rejects.toMatchObject({ code: 'invalid_value' })
  })

  test('leaves nothing in the database on a fault: a damaged file, a column that would be lost', async () => {
    const database = await open()
    const dataDir = await folder()
    writeFileSync(join(dataDir, 'adapters/job/adapter.gguf'), 'half')
    await expect(moveTo(database, dataDir)).rejects.toThrow(/adapter.gguf is not as it was registered/)
    expect(await tablesOf(database)).toEqual([])
    const notes = new SqliteSql(join(dataDir, 'notes.db'), { durable: false })
    await notes.run('changing', 'ALTER TABLE notes ADD COLUMN more TEXT')
    await notes.close()
    await expect(moveTo(database, dataDir)).rejects.toThrow(/PostgreSQL has no column more/)
    expect(await tablesOf(database)).toEqual([])
  })
})
