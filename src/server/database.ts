import type { Config } from '../config.ts'
import type { Limits } from '../gateway.ts'
import { Postgres } from '../storage/postgres/postgres.ts'
import type { SqlDatabase } from '../storage/sql.ts'

/** What this gateway shares with others; undefined: it keeps its files alone. Throws `invalid_value` for a malformed address. */
export function openDatabase(
  { database: url, databaseConnections: connections }: Pick<Config<Limits>, 'database' | 'databaseConnections'>,
  warn: (message: string) => void,
): SqlDatabase | undefined {
  if (url === undefined) return undefined
  return new Postgres({ url, connections, warn })
}
