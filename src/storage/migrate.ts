import { PalimpsestError } from '../errors.ts'
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
/** "PLMP" and a number of our own: whoever migrates holds this lock. */
const LOCK = 'SELECT pg_advisory_xact_lock(1347177808, 1)'

interface VersionRow {
  readonly port: string
  readonly version: number
  readonly oldest_reader: number
}

/** What this process has opened in each database: a gateway is outdated where any of it is. */
const opened = new WeakMap<SqlDatabase, readonly Schema[]>()

/** Brings the tables up to what this gateway knows, one gateway at a time. Throws `node_outdated` where they are too new for it. */
export async function migrate(database: SqlDatabase, { port, steps, oldestReader }: Schema): Promise<void> {
  const doing = `preparing the tables of ${port}`
  opened.set(database, [...(opened.get(database) ?? []).filter((known) => known.port !== port), { port, steps, oldestReader }])
  await database.atOnce(doing, async (sql) => {
    if (sql.dialect === 'postgres') await sql.all(doing, LOCK)
    await sql.run(doing, TABLE)
    const found = (await versionsOf(sql)).find((row) => row.port === port)
    assertReadable(database.name, steps.length, found)
    const version = found?.version ?? 0
    if (version >= steps.length) return
    for (const step of steps.slice(version)) for (const statement of step[sql.dialect]) await sql.run(doing, statement)
    await sql.run(
      doing,
      `INSERT INTO schema_versions (port, version, oldest_reader) VALUES (?, ?, ?)
         ON CONFLICT (port) DO UPDATE SET version = excluded.version, oldest_reader = excluded.oldest_reader`,
      ...[port, steps.length, oldestReader],
    )
  })
}

/** Throws `node_outdated` where a newer gateway has changed any tables that this one uses beyond what it can read. One round trip. */
export async function assertStillReadable(database: SqlDatabase): Promise<void> {
  const known = new Map(opened.get(database)?.map(({ port, steps }) => [port, steps.length]))
  for (const found of await versionsOf(database))
    assertReadable(database.name, known.get(found.port) ?? Number.POSITIVE_INFINITY, found)
}

function versionsOf(sql: Sql): Promise<VersionRow[]> {
  return sql.all<VersionRow>('reading the version of the tables', 'SELECT port, version, oldest_reader FROM schema_versions')
}

function assertReadable(name: string, known: number, found: VersionRow | undefined): void {
  if (found === undefined || found.oldest_reader <= known) return
  throw new PalimpsestError(
    'node_outdated',
    `${name}: the tables of ${found.port} have format ${found.version}, and this Palimpsest knows up to ${known}. Update Palimpsest on this machine.`,
  )
}
