import { describe, expect, test } from 'vitest'
import { Database } from '../../../src/storage/database.ts'
import { migrate, type Schema } from '../../../src/storage/migrate.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'

const COUNTERS: Schema = {
  port: 'counters',
  oldestReader: 1,
  steps: [
    {
      sqlite: ['CREATE TABLE counters (name TEXT PRIMARY KEY, n INTEGER NOT NULL, body BLOB) STRICT'],
      postgres: ['CREATE TABLE counters (name TEXT PRIMARY KEY, n BIGINT NOT NULL, body BYTEA)'],
    },
  ],
}
const SECOND: Schema = {
  ...COUNTERS,
  steps: [
    ...COUNTERS.steps,
    { sqlite: ['ALTER TABLE counters ADD COLUMN note TEXT'], postgres: ['ALTER TABLE counters ADD COLUMN note TEXT'] },
  ],
}

const INSERT = 'INSERT INTO counters (name, n) VALUES (?, ?)'

describe.each(DIALECTS)('a database of %s', (dialect) => {
  const { open, again } = databases(dialect)
  const counters = async () => {
    const db = await open()
    await migrate(db, COUNTERS)
    return db
  }

  test('takes and gives back texts, whole numbers, nothing and bytes', async () => {
    const db = await counters()
    const at = 1_764_000_000_000
    await db.run('writing', 'INSERT INTO counters (name, n, body) VALUES (?, ?, ?)', 'Ω “?”', at, new Uint8Array([0, 255]))
    await db.run('writing', 'INSERT INTO counters (name, n, body) VALUES (?, ?, ?)', 'b', -1, null)
    const rows = await db.all<{ name: string; n: number; body: Uint8Array | null }>(
      'reading',
      'SELECT * FROM counters ORDER BY n',
    )
    expect(rows.map(({ name, n, body }) => [name, n, body && [...body]])).toEqual([
      ['b', -1, null],
      ['Ω “?”', at, [0, 255]],
    ])
    expect(await db.run('writing', 'UPDATE counters SET n = n + ?', 1)).toBe(2)
  })

  test('a transaction lands whole or not at all', async () => {
    const db = await counters()
    const failed = db.atOnce('counting', async (sql) => {
      await sql.run('counting', 'INSERT INTO counters (name, n) VALUES (?, ?)', 'a', 1)
      throw new Error('no more')
    })
    await expect(failed).rejects.toThrow(/no more/)
    expect(await db.all('reading', 'SELECT * FROM counters')).toEqual([])
    await db.atOnce('counting', (sql) => sql.run('counting', 'INSERT INTO counters (name, n) VALUES (?, ?)', 'a', 1))
    expect(await db.all('reading', 'SELECT n FROM counters')).toEqual([{ n: 1 }])
  })

  test('statements known beforehand land together or not at all', async () => {
    const db = await counters()
    const insert = (name: string, n: number | null) => ['INSERT INTO counters (name, n) VALUES (?, ?)', name, n] as const
    await expect(db.runAll('counting', [insert('a', 1), insert('b', null)])).rejects.toMatchObject({ code: 'storage_failed' })
    expect(await db.all('reading', 'SELECT * FROM counters')).toEqual([])
    await db.runAll('counting', [insert('a', 1), insert('b', 2)])
    expect(await db.all('reading', 'SELECT n FROM counters ORDER BY n')).toEqual([{ n: 1 }, { n: 2 }])
  })

  test('a hundred that count at once, over two connections, lose none', async () => {
    const db = await counters()
    const other = again(db)
    await db.run('writing', 'INSERT INTO counters (name, n) VALUES (?, ?)', 'a', 0)
    const count = (on: typeof db) =>
      on.atOnce('counting', async (sql) => {
        const lock = sql.dialect === 'postgres' ? ' FOR UPDATE' : ''
        const [row] = await sql.all<{ n: number }>('counting', `SELECT n FROM counters WHERE name = ?${lock}`, 'a')
        await sql.run('counting', 'UPDATE counters SET n = ? WHERE name = ?', (row?.n ?? 0) + 1, 'a')
      })
    await Promise.all(Array.from({ length: 100 }, (_, i) => count(i % 2 === 0 ? db : other)))
    expect(await db.all('reading', 'SELECT n FROM counters')).toEqual([{ n: 100 }])
  })

  test('tables are brought up to date once, by however many at once, and newer ones are left to newer gateways', async () => {
    const db = await counters()
    await db.run('writing', 'INSERT INTO counters (name, n) VALUES (?, ?)', 'kept', 7)
    await Promise.all([migrate(db, SECOND), migrate(again(db), SECOND), migrate(again(db), SECOND)])
    expect(await db.all('reading', 'SELECT name, n, note FROM counters')).toEqual([{ name: 'kept', n: 7, note: null }])
    // A gateway one version back goes on.
    await migrate(again(db), COUNTERS)
    await migrate(db, { ...SECOND, steps: [...SECOND.steps, { sqlite: [], postgres: [] }], oldestReader: 3 })
    await expect(migrate(again(db), SECOND)).rejects.toThrow(/format 3, and this Palimpsest knows up to 2. Update/)
  })

  if (dialect === 'sqlite')
    test('another connection of the process, which takes no turns, never meets them half-way', async () => {
      const db = await counters()
      const other = new Database(db.name, { timeoutMs: 0 })
      const landing = Array.from({ length: 20 }, (_, i) =>
        db.runAll('counting', [
          [INSERT, `a${i}`, i],
          [INSERT, `b${i}`, i],
        ]),
      )
      for (let i = 0; i < 20; i++) {
        other.prepare(INSERT).run(`c${i}`, i)
        await null
      }
      await Promise.all(landing)
      expect(other.value('SELECT count(*) FROM counters')).toBe(60)
      other.close()
    })

  test('a wrong statement says what failed, and whom to ask', async () => {
    const db = await counters()
    await expect(db.all('reading what is not there', 'SELECT * FROM nothing_here')).rejects.toThrow(
      /reading what is not there failed/,
    )
    await expect(db.all('reading what is not there', 'SELECT * FROM nothing_here')).rejects.toMatchObject({
      code: 'storage_failed',
    })
  })
})
