import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Database, faultOf } from '../../../src/storage/database.ts'
import { useWriteAheadLog } from '../../../src/storage/sqlite.ts'

function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-database-'))
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

function faultIn(work: () => unknown): unknown {
  try {
    work()
  } catch (error) {
    return faultOf(error)
  }
  throw new Error('nothing was thrown')
}

test('what is written at once lands whole or not at all', () => {
  const db = new Database(join(scratch(), 'x.db'))
  db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY) STRICT')
  const insert = db.prepare('INSERT INTO t VALUES (?)')
  expect(db.atOnce(() => insert.run(1).changes)).toBe(1)
  expect(() =>
    db.atOnce(() => {
      insert.run(2)
      insert.run(1)
    }),
  ).toThrow(/UNIQUE/)
  expect(db.prepare<{ a: number }>('SELECT a FROM t').all()).toEqual([{ a: 1 }])
  expect(db.value('SELECT a FROM t WHERE a = ?', 2)).toBeUndefined()
  db.close()
})

test('closing folds the log into the file, whatever statements are left, and may be done twice', () => {
  const dir = scratch()
  const db = new Database(join(dir, 'x.db'))
  useWriteAheadLog(db, false)
  db.exec('CREATE TABLE t (a INTEGER) STRICT; INSERT INTO t VALUES (1), (2)')
  const rows = db.rows('SELECT a FROM t')
  rows.next()
  db.close()
  db.close()
  expect(db.isOpen).toBe(false)
  expect(readdirSync(dir)).toEqual(['x.db'])
})

test('a file is its owner’s alone, new or from before, and so is its log', () => {
  const dir = scratch()
  const file = join(dir, 'x.db')
  const modes = () => readdirSync(dir).map((name) => (statSync(join(dir, name)).mode & 0o777).toString(8))
  const db = new Database(file)
  useWriteAheadLog(db, false)
  db.exec('CREATE TABLE t (a INTEGER) STRICT')
  expect(modes()).toEqual(['600', '600', '600'])
  db.close()
  chmodSync(file, 0o644)
  new Database(file).close()
  expect(modes()).toEqual(['600'])
})

test('opening a file again keeps the lock that is held on it', () => {
  const file = join(scratch(), 'x.db')
  const db = new Database(file)
  db.exec('BEGIN EXCLUSIVE')
  chmodSync(file, 0o644)
  const again = new Database(file, { timeoutMs: 0 })
  expect(faultIn(() => again.exec('BEGIN EXCLUSIVE'))).toBe('busy')
  again.close()
  const third = new Database(file, { timeoutMs: 0 })
  expect(faultIn(() => third.exec('BEGIN EXCLUSIVE'))).toBe('busy')
  third.close()
  db.close()
})

test('faults that callers tell apart are named', () => {
  const dir = scratch()
  const file = join(dir, 'x.db')
  const db = new Database(file)
  db.exec('CREATE TABLE t (a INTEGER PRIMARY KEY) STRICT; INSERT INTO t VALUES (1); BEGIN EXCLUSIVE')
  const other = new Database(file, { timeoutMs: 0 })
  expect(faultIn(() => other.exec('BEGIN EXCLUSIVE'))).toBe('busy')
  expect(faultIn(() => db.exec('INSERT INTO t VALUES (1)'))).toBeNull()
  other.close()
  db.close()
  const reader = new Database(file, { readOnly: true })
  expect(faultIn(() => reader.exec('DELETE FROM t'))).toBe('read_only')
  reader.close()
  expect(faultIn(() => new Database(join(dir, 'none', 'x.db')))).toBe('cannot_open')
  expect(faultIn(() => new Database(join(dir, 'none.db'), { readOnly: true }))).toBe('cannot_open')
  writeFileSync(join(dir, 'y.db'), 'x'.repeat(5_000))
  expect(faultIn(() => new Database(join(dir, 'y.db')).value('PRAGMA user_version'))).toBe('not_a_database')
  expect(faultOf(Object.assign(new Error('bind'), { code: 'ERR_INVALID_ARG_TYPE' }))).toBeNull()
})
