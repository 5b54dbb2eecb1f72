import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import type { Dialect, SqlDatabase } from '../../../src/storage/sql.ts'
import { SqliteSql } from '../../../src/storage/sqlite-sql.ts'
import { type PostgresServer, startPostgres } from './postgres.ts'

export const DIALECTS: readonly Dialect[] = ['sqlite', 'postgres']

export interface Databases {
  /** A new, empty database; closed after the tests of the suite. */
  open(): Promise<SqlDatabase>
  /** Another connection to one that `open` gave. */
  again(database: SqlDatabase): SqlDatabase
  /** Earlier than after the tests of the suite: a server takes a hundred connections. Closed already is well. */
  close(database: SqlDatabase): Promise<void>
}

/** Databases of one kind for the tests of a suite: call it in `describe`. */
export function databases(dialect: Dialect): Databases {
  const addresses = new Map<SqlDatabase, string>()
  let server: PostgresServer | undefined
  let folder = ''
  let files = 0
  const connect = (address: string) => {
    const database =
      dialect === 'postgres' ? new Postgres({ url: address, warn: () => {} }) : new SqliteSql(address, { durable: true })
    addresses.set(database, address)
    return database
  }
  const close = async (database: SqlDatabase) => {
    if (addresses.delete(database)) await database.close()
  }
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'palimpsest-databases-'))
    if (dialect === 'postgres') server = await startPostgres({ fsync: 'off' })
  }, 120_000)
  afterAll(async () => {
    await Promise.all([...addresses.keys()].map(close))
    await server?.remove()
    rmSync(folder, { recursive: true, force: true })
  }, 120_000)
  return {
    open: async () => connect((await server?.database()) ?? join(folder, `${++files}.db`)),
    again: (database) => connect(addresses.get(database) ?? ''),
    close,
  }
}
