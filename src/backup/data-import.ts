import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { FolderAdapters } from '../adapters/folder-store.ts'
import { ADAPTER_TABLES, fillAdapters } from '../adapters/shared-store.ts'
import { PalimpsestError } from '../errors.ts'
import { FolderJobs } from '../handoff/folder-jobs.ts'
import { fillJobs, HANDOFF_TABLES } from '../handoff/shared-jobs.ts'
import { Database } from '../storage/database.ts'
import { lockFolder } from '../storage/folder-lock.ts'
import { migrate, type Schema } from '../storage/migrate.ts'
import type { Sql, SqlDatabase, Value } from '../storage/sql.ts'
import { SqliteSql } from '../storage/sqlite-sql.ts'

/** Tables of a port over both databases, copied by name. */
export interface CopiedPort {
  readonly schema: Schema
  /** In the data folder. */
  readonly file: string
  readonly tables: readonly string[]
}

/** Every port that keeps its tables in a SQLite file: one line each. */
const PORTS: readonly CopiedPort[] = []

/** Inserted by one statement. */
const PAGE_ROWS = 100
const DOING = 'moving a data folder'

/** Rows by what they are of: a table, adapters, hand-offs. */
export interface Imported {
  readonly moved: ReadonlyMap<string, number>
  /** Databases of the folder that no port moves. */
  readonly left: readonly string[]
}

export interface ImportOptions {
  readonly dataDir: string
  readonly database: SqlDatabase
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly warn: (message: string) => void
  readonly ports?: readonly CopiedPort[]
}

/**
 * Moves a data folder that nobody serves into a PostgreSQL that holds nothing: all of it or, on a fault, nothing. The folder stays.
 * Throws `folder_in_use`, `invalid_value`, `storage_failed`, `storage_unavailable`.
 */
export async function importData({ dataDir, database, now, warn, ports = PORTS }: ImportOptions): Promise<Imported> {
  if (!existsSync(dataDir)) throw new PalimpsestError('invalid_value', `There is no data folder ${dataDir}.`, { param: 'dir' })
  const lock = lockFolder(dataDir, now)
  try {
    return await database.atOnce(DOING, async (sql) => {
      await assertEmpty(sql, database.name)
      // What prepares tables does so in this transaction.
      const within: SqlDatabase = { ...sql, name: database.name, atOnce: (_, work) => work(sql), close: async () => {} }
      const moved = new Map<string, number>()
      for (const port of ports.filter(({ file }) => existsSync(join(dataDir, file))))
        for (const [table, rows] of await copyPort(port, dataDir, within)) moved.set(table, rows)
      await migrate(within, ADAPTER_TABLES)
      moved.set('adapters', await fillAdapters(sql, new FolderAdapters(join(dataDir, 'adapters'), warn)))
      await migrate(within, HANDOFF_TABLES)
      moved.set('hand-offs', await fillJobs(sql, new FolderJobs(join(dataDir, 'handoffs'), warn)))
      const known = ports.map(({ file }) => file)
      return { moved, left: readdirSync(dataDir).filter((name) => name.endsWith('.db') && !known.includes(name)) }
    })
  } finally {
    lock.release()
  }
}

async function assertEmpty(sql: Sql, name: string): Promise<void> {
  const tables = await sql.all<{ table_name: string }>(
    DOING,
    'SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY table_name LIMIT 3',
  )
  if (tables.length === 0) return
  const some = tables.map((row) => row.table_name).join(', ')
  throw new PalimpsestError('invalid_value', `${name} holds tables already (${some}): name a new database, made by createdb.`, {
    param: 'database',
  })
}

async function copyPort({ schema, file, tables }: CopiedPort, dataDir: string, into: SqlDatabase): Promise<[string, number][]> {
  const path = join(dataDir, file)
  // An older gateway may have been the last to use the file.
  const upToDate = new SqliteSql(path, { durable: true })
  try {
    await migrate(upToDate, schema)
  } finally {
    await upToDate.close()
  }
  await migrate(into, schema)
  const from = new Database(path, { readOnly: true })
  try {
    const copied: [string, number][] = []
    for (const table of tables) copied.push([table, await copyTable(from, into, table)])
    return copied
  } finally {
    from.close()
  }
}

interface Column {
  readonly column_name: string
  readonly is_identity: 'YES' | 'NO'
}

/** In the order in which SQLite has the rows, which is that of their numbers. */
async function copyTable(from: Database, into: Sql, table: string): Promise<number> {
  const names = from.prepare<{ name: string }>(`SELECT name FROM pragma_table_info('${table}')`).all()
  const columns = names.map(({ name }) => name)
  const known = await into.all<Column>(
    DOING,
    'SELECT column_name, is_identity FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = ?',
    table,
  )
  const lost = columns.filter((name) => !known.some((column) => column.column_name === name))
  if (columns.length === 0 || lost.length > 0)
    throw new PalimpsestError('storage_failed', `Table ${table} can't be copied: PostgreSQL has no column ${lost.join(', ')}.`)
  const insert = (rows: number) => {
    const row = `(${columns.map(() => '?').join(', ')})`
    return `INSERT INTO ${table} (${columns.join(', ')}) OVERRIDING SYSTEM VALUE VALUES ${Array(rows).fill(row).join(', ')}`
  }
  // Rows that every table begins with are in the file, too.
  await into.run(DOING, `DELETE FROM ${table}`)
  let page: Value[][] = []
  let copied = 0
  for (const row of from.prepare<Record<string, Value>>(`SELECT ${columns.join(', ')} FROM ${table}`).iterate()) {
    page.push(columns.map((name) => row[name] ?? null))
    if (page.length < PAGE_ROWS) continue
    copied += await into.run(DOING, insert(PAGE_ROWS), ...page.flat())
    page = []
  }
  for (const row of page) copied += await into.run(DOING, insert(1), ...row)
  for (const { column_name: name } of known.filter((one) => one.is_identity === 'YES' && columns.includes(one.column_name)))
    await into.all(
      DOING,
      `SELECT setval(pg_get_serial_sequence('${table}', '${name}'), coalesce(max(${name}), 0) + 1, false) FROM ${table}`,
    )
  return copied
}
