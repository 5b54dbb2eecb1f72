import { PalimpsestError } from '../errors.ts'
import { lockStatement } from './advisory-locks.ts'
import type { Dialect, Sql, SqlDatabase } from './sql.ts'

/**
 * The tables of one port and how they came to be. Each step is a list of statements in the dialect; a step that was released never changes.
 * A step must leave what the gateways one version back can read and write, so that two versions run side by side while nodes are replaced.
 * Where it cannot, `oldestReader` is raised to it, and older gateways stop.
 */
export interface Schema {
  readonly port: string
  readonly steps: readonly Readonly<Record<Dialect, readonly string[]>>[]
  /** A gateway that knows fewer steps than this must not touch the tables. */
  readonly oldestReader: number
}

const TABLE = `CREATE TABLE IF NOT EXISTS schema_versions (
  port TEXT PRIMARY KEY, version INTEGER NOT NULL, oldest_reader INTEGER NOT NULL
)`

/** What the tables of a port are now. */
export interface PortVersion {
  readonly port: string
  readonly version: number
  readonly oldest_reader: number
}

/** Brings the tables up to what this gateway knows, one gateway at a time. Throws `storage_failed` where they are too new for it. */
export function migrate(database: SqlDatabase, schema: Schema): Promise<void> {
  return database.atOnce(doingOf(schema), (sql) => migrateWithin(sql, database.name, schema))
}

const doingOf = ({ port }: Schema) => `preparing the tables of ${port}`

/** The same as a part of a transaction, which holds the lock of the tables until its end; `name` is the database's. */
export async function migrateWithin(sql: Sql, name: string, schema: Schema): Promise<void> {
  const { port, steps, oldestReader } = schema
  const doing = doingOf(schema)
  await lockTables(sql, doing)
  await sql.run(doing, TABLE)
  const found = await versionOf(sql, port)
  assertReadable(name, schema, found)
  const version = found?.version ?? 0
  if (version >= steps.length) return
  for (const step of steps.slice(version)) for (const statement of step[sql.dialect]) await sql.run(doing, statement)
  await sql.run(
    doing,
    `INSERT INTO schema_versions (port, version, oldest_reader) VALUES (?, ?, ?)
       ON CONFLICT (port) DO UPDATE SET version = excluded.version, oldest_reader = excluded.oldest_reader`,
    ...[port, steps.length, oldestReader],
  )
}

/** Nobody else prepares tables until the transaction ends. */
export async function lockTables(sql: Sql, doing: string): Promise<void> {
  if (sql.dialect === 'postgres') await sql.all(doing, lockStatement('tables'))
}

/** Throws `storage_failed` where a newer gateway has changed the tables beyond what this one can read. */
export async function assertStillReadable(database: SqlDatabase, schema: Schema): Promise<void> {
  assertReadable(database.name, schema, await versionOf(database, schema.port))
}

const READING = 'reading the version of the tables'
const VERSIONS = 'SELECT port, version, oldest_reader FROM schema_versions'

/** Of every port. The tables must have been prepared once. */
export function portVersions(sql: Sql): Promise<PortVersion[]> {
  return sql.all<PortVersion>(READING, VERSIONS)
}

async function versionOf(sql: Sql, port: string): Promise<PortVersion | undefined> {
  return (await sql.all<PortVersion>(READING, `${VERSIONS} WHERE port = ?`, port))[0]
}

/** Why a gateway that knows this schema must not touch the tables that were found; `name` is the database's. */
export function whyUnreadable(
  name: string,
  { port, steps }: Schema,
  found: PortVersion | undefined,
): PalimpsestError | undefined {
  if (found === undefined || found.oldest_reader <= steps.length) return undefined
  return new PalimpsestError(
    'storage_failed',
    `${name}: the tables of ${port} have format ${found.version}, and this Palimpsest knows up to ${steps.length}. Update Palimpsest on this machine.`,
  )
}

function assertReadable(name: string, schema: Schema, found: PortVersion | undefined): void {
  const why = whyUnreadable(name, schema, found)
  if (why !== undefined) throw why
}
