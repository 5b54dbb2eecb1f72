import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { ACCESS_SCHEMA } from '../access/schema.ts'
import { FolderAdapters } from '../adapters/folder-store.ts'
import { ADAPTER_SCHEMA, assertWhole, fillAdapters } from '../adapters/shared-store.ts'
import { PalimpsestError } from '../errors.ts'
import { LEDGER_SCHEMA } from '../experiment/ledger/schema.ts'
import { FolderJobs } from '../handoff/folder-jobs.ts'
import { fillJobs, HANDOFF_SCHEMA } from '../handoff/shared-jobs.ts'
import { LOG_SCHEMA, openLogFile } from '../memory/log/edit-log.ts'
import { EMBEDDINGS_SCHEMA } from '../memory/vectors/embedding-table.ts'
import { Database } from '../storage/database.ts'
import { lockFolder } from '../storage/folder-lock.ts'
import { lockTables, migrate, migrateWithin, type Schema } from '../storage/migrate.ts'
import type { Sql, SqlDatabase, Value } from '../storage/sql.ts'
import { SqliteSql } from '../storage/sqlite-sql.ts'

interface CopiedTable {
  readonly name: string
  /** PostgreSQL's column for what SQLite has as `rowid`. */
  readonly rowid?: string
  /** A column that counts from 1 without a gap. */
  readonly dense?: string
}

/** Tables of a port over both databases, copied column by column. */
interface CopiedPort {
  readonly schema: Schema
  /** In the data folder. */
  readonly file: string
  readonly tables: readonly CopiedTable[]
  /** What is lost is made again, so a damaged file is left out. */
  readonly isDerived?: true
}

const LOG_FILE = 'palimpsest.db'

/** Every port that keeps tables in SQLite files. Leases are left behind, since their holders are; changes of keys are counted by a trigger. */
const PORTS: readonly CopiedPort[] = [
  {
    schema: LOG_SCHEMA,
    file: LOG_FILE,
    tables: [
      { name: 'batches', rowid: 'n', dense: 'n' },
      { name: 'log', dense: 'seq' },
    ],
  },
  {
    schema: LEDGER_SCHEMA,
    file: LOG_FILE,
    tables: [
      ...['experiments', 'experiment_events', 'experiment_prompts', 'pairs', 'replays'].map((name) => ({ name, rowid: 'rowid' })),
      ...['exposures', 'answers', 'feedback', 'ledger_state', 'rollout_stages'].map((name) => ({ name })),
    ],
  },
  { schema: ACCESS_SCHEMA, file: 'keys.db', tables: [{ name: 'keys' }, { name: 'usage' }] },
  { schema: EMBEDDINGS_SCHEMA, file: join('index', 'vectors.db'), tables: [{ name: 'vectors' }], isDerived: true },
]

/** Written by one statement, and held in memory at a time: the first that is reached. */
const PAGE = { rows: 1_000, bytes: 4 * 1024 * 1024 }
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
}

/**
 * Moves a data folder that nobody serves into a PostgreSQL that holds nothing: all of it or, on a fault, nothing. The folder stays.
 * Throws `folder_in_use`, `invalid_value`, `storage_failed`, `storage_unavailable`.
 */
export async function importData({ dataDir, database, now, warn }: ImportOptions): Promise<Imported> {
  if (!existsSync(join(dataDir, LOG_FILE)))
    throw new PalimpsestError('invalid_value', `${dataDir} is no data folder: it holds no ${LOG_FILE}.`, { param: 'dir' })
  const lock = lockFolder(dataDir, now)
  try {
    // All that takes long without a word to the server, which would end the transaction.
    await openLogFile(join(dataDir, LOG_FILE)).close()
    const ports: CopiedPort[] = []
    for (const port of PORTS) if (await isReady(port, dataDir, warn)) ports.push(port)
    const adapters = new FolderAdapters(join(dataDir, 'adapters'), warn)
    await assertWhole(adapters)
    const jobs = new FolderJobs(join(dataDir, 'handoffs'), warn)
    const moved = await database.atOnce(DOING, async (sql) => {
      await lockTables(sql, DOING)
      await assertEmpty(sql, database.name)
      const counts = new Map<string, number>()
      for (const { schema, file, tables } of ports) {
        await migrateWithin(sql, database.name, schema)
        const from = new Database(join(dataDir, file), { readOnly: true })
        try {
          for (const table of tables) counts.set(table.name, await copyTable(from, sql, table, file))
        } finally {
          from.close()
        }
      }
      await migrateWithin(sql, database.name, ADAPTER_SCHEMA)
      counts.set('adapters', await fillAdapters(sql, adapters))
      await migrateWithin(sql, database.name, HANDOFF_SCHEMA)
      counts.set('hand-offs', await fillJobs(sql, jobs))
      return counts
    })
    const known = PORTS.map(({ file }) => file)
    return { moved, left: readdirSync(dataDir).filter((name) => name.endsWith('.db') && !known.includes(name)) }
  } finally {
    lock.release()
  }
}

/** Brings the file's tables up to date, since an older gateway may have been the last to use it. False: there is nothing to copy. */
async function isReady(
  { schema, file, isDerived }: CopiedPort,
  dataDir: string,
  warn: (message: string) => void,
): Promise<boolean> {
  const path = join(dataDir, file)
  if (!existsSync(path)) return false
  try {
    const database = new SqliteSql(path, { durable: true })
    try {
      const [row] = await database.all<{ quick_check: string }>(DOING, 'PRAGMA quick_check(1)')
      if (row?.quick_check !== 'ok')
        throw new PalimpsestError('storage_failed', `${path} is damaged (${row?.quick_check}). Put back a backup.`)
      await migrate(database, schema)
      return true
    } finally {
      await database.close()
    }
  } catch (error) {
    if (isDerived !== true) throw error
    warn(`${file} is left out, and gateways make its content again: ${(error as Error).message}`)
    return false
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

interface Column {
  readonly column_name: string
  readonly is_identity: 'YES' | 'NO'
}

async function copyTable(from: Database, into: Sql, { name, rowid, dense }: CopiedTable, file: string): Promise<number> {
  const own = from.prepare<{ name: string }>(`SELECT name FROM pragma_table_info('${name}')`).all()
  const columns = [...own.map((column) => column.name), ...(rowid === undefined ? [] : [rowid])]
  const known = await into.all<Column>(
    DOING,
    'SELECT column_name, is_identity FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = ?',
    name,
  )
  const lost = columns.filter((column) => !known.some(({ column_name }) => column_name === column))
  if (lost.length > 0)
    throw new PalimpsestError('storage_failed', `Table ${name} can't be copied: PostgreSQL has no column ${lost.join(', ')}.`)
  const chosen = [...own.map((column) => column.name), ...(rowid === undefined ? [] : [`rowid AS ${rowid}`])].join(', ')
  // The columns' own types read the texts of JSON.
  const insert = `INSERT INTO ${name} (${columns.join(', ')}) OVERRIDING SYSTEM VALUE
    SELECT ${columns.join(', ')} FROM json_populate_recordset(CAST(NULL AS ${name}), CAST(? AS JSON))`
  // A row that the table begins with is in the file, too.
  if ((await into.all(DOING, `SELECT 1 AS one FROM ${name} LIMIT 1`)).length > 0) await into.run(DOING, `DELETE FROM ${name}`)
  let copied = 0
  for (const page of pagesOf(from.rows<Row>(`SELECT ${chosen} FROM ${name}`))) copied += await into.run(DOING, insert, page)
  if (dense !== undefined) await assertDense(into, name, dense, file)
  for (const { column_name: column } of known.filter((one) => one.is_identity === 'YES'))
    await into.all(
      DOING,
      `SELECT setval(pg_get_serial_sequence('${name}', '${column}'), coalesce(max(${column}), 0) + 1, false) FROM ${name}`,
    )
  return copied
}

type Row = Readonly<Record<string, Value>>

/** Lists of rows in JSON, bytes as PostgreSQL writes them. */
function* pagesOf(rows: Iterable<Row>): Generator<string> {
  let page: string[] = []
  let bytes = 0
  const text = () => `[${page.join(',')}]`
  for (const row of rows) {
    const one = JSON.stringify(row, (_, value) =>
      value instanceof Uint8Array ? `\\x${Buffer.from(value).toString('hex')}` : value,
    )
    page.push(one)
    bytes += one.length
    if (page.length < PAGE.rows && bytes < PAGE.bytes) continue
    yield text()
    page = []
    bytes = 0
  }
  if (page.length > 0) yield text()
}

/** Gateways follow the log by its numbers, and stop at one that is missing. */
async function assertDense(sql: Sql, table: string, column: string, file: string): Promise<void> {
  const [row] = await sql.all<{ n: number; last: number }>(
    DOING,
    `SELECT count(*) AS n, coalesce(max(${column}), 0) AS last FROM ${table}`,
  )
  if (row !== undefined && row.n === row.last) return
  throw new PalimpsestError(
    'storage_failed',
    `${file} holds ${row?.n} rows of ${table}, and the last is number ${row?.last}: some are missing. Put back a backup.`,
  )
}
