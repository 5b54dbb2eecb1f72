import { LOG_SCHEMA } from '../memory/log/edit-log.ts'
import { openDatabase } from '../server/database.ts'
import { SHARED_SCHEMAS } from '../server/schemas.ts'
import { type PortVersion, portVersions, whyUnreadable } from '../storage/migrate.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import type { Check } from './text/check-line.ts'

export interface DatabaseCheckOptions {
  /** Of the database. */
  readonly url: string
  /** Where a gateway of this machine answers, if it runs. */
  readonly gateway: string
  /** An API key for it. */
  readonly key?: string | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

const WHAT = 'Database'
const LOOKING = 'looking at the database'
const ASK_MS = 3_000

/** Whether the database that gateways share is reached, its tables are of formats that this version knows, and a gateway here keeps up. */
export async function checkDatabase({ url, gateway, key, now }: DatabaseCheckOptions): Promise<Check[]> {
  let database: SqlDatabase | undefined
  try {
    database = openDatabase({ database: url, databaseConnections: 1 }, () => {})
    if (database === undefined) return []
    return await checksOf(database, gateway, key, now)
  } catch (error) {
    const mend = 'Start it, or correct PALIMPSEST_DATABASE_URL or --database.'
    return [{ state: 'missing', what: WHAT, found: error instanceof Error ? error.message : String(error), mend }]
  } finally {
    await database?.close()
  }
}

async function checksOf(database: SqlDatabase, gateway: string, key: string | undefined, now: () => number): Promise<Check[]> {
  const begun = now()
  const [server] = await database.all<{ version: string; prepared: string | null }>(
    LOOKING,
    "SELECT current_setting('server_version') AS version, CAST(to_regclass('schema_versions') AS TEXT) AS prepared",
  )
  const reached: Check = {
    state: 'ok',
    what: WHAT,
    found: `${database.name}, version ${server?.version}, in ${now() - begun} ms`,
  }
  if (server?.prepared == null)
    return [reached, { state: 'note', what: `${WHAT} tables`, found: 'none: the first gateway makes them' }]
  const versions = await portVersions(database)
  const tables = checkTables(database.name, versions)
  if (tables.state === 'missing' || !versions.some(({ port }) => port === LOG_SCHEMA.port)) return [reached, tables]
  const [head] = await database.all<{ seq: number }>(LOOKING, 'SELECT coalesce(max(seq), 0) AS seq FROM log')
  return [reached, tables, await checkLag(head?.seq ?? 0, gateway, key)]
}

function checkTables(name: string, versions: readonly PortVersion[]): Check {
  const what = `${WHAT} tables`
  const found = new Map(versions.map((version) => [version.port, version]))
  for (const schema of SHARED_SCHEMAS) {
    const why = whyUnreadable(name, schema, found.get(schema.port))
    if (why !== undefined) return { state: 'missing', what, found: 'too new for this version', mend: why.message }
  }
  const older = SHARED_SCHEMAS.filter(({ port, steps }) => (found.get(port)?.version ?? steps.length) < steps.length)
  const shown = SHARED_SCHEMAS.flatMap(({ port }) => (found.has(port) ? `${port} ${found.get(port)?.version}` : [])).join(', ')
  if (older.length === 0) return { state: 'ok', what, found: `format of ${shown}` }
  return { state: 'note', what, found: `format of ${shown}`, mend: 'The next gateway that starts brings older ones up to date.' }
}

async function checkLag(head: number, gateway: string, key: string | undefined): Promise<Check> {
  const what = 'Edit log'
  const applied = await appliedBy(gateway, key)
  const found = `${head} records`
  if (applied === null) return { state: 'ok', what, found: `${found}; no gateway to compare with answers at ${gateway}` }
  const behind = Math.max(0, head - applied)
  return { state: behind === 0 ? 'ok' : 'note', what, found: `${found}; the gateway at ${gateway} is ${behind} behind` }
}

/** How far a running gateway has followed the log; null: none says so. */
async function appliedBy(gateway: string, key: string | undefined): Promise<number | null> {
  try {
    const headers = key === undefined ? {} : { authorization: `Bearer ${key}` }
    const response = await fetch(`${gateway}/health`, { headers, signal: AbortSignal.timeout(ASK_MS) })
    const { memory } = (await response.json()) as { memory?: { version?: unknown } }
    return typeof memory?.version === 'number' ? memory.version : null
  } catch {
    return null
  }
}
