import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Access, accessBy, accessByOne, isLoopback } from '../access/access.ts'
import { KeyStore } from '../access/key-store.ts'
import { KEYS_FILE } from '../backup/keys.ts'
import type { Config } from '../config.ts'
import { PalimpsestError } from '../errors.ts'
import type { Limits } from '../gateway.ts'
import type { Logger } from '../logger.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import { guarded } from '../storage/sqlite.ts'
import { SqliteSql } from '../storage/sqlite-sql.ts'

/** A gateway waits no longer than this for what the command line writes: no answer goes on meanwhile. */
const BUSY_MS = 50

/** The keys of a data folder, which are those of one gateway, and of the command line beside it. Close its `database` at the end. */
export async function openKeys(dataDir: string, busyMs?: number): Promise<KeyStore> {
  // Beside the memory, but not within what its lock guards: keys are made and revoked while a gateway runs.
  const file = join(dataDir, KEYS_FILE)
  guarded(file, 'opening the keys', () => mkdirSync(dataDir, { recursive: true, mode: 0o700 }))
  const database = new SqliteSql(file, { durable: false })
  try {
    const store = await KeyStore.open(database)
    // Not before: the tables are worth a longer wait.
    if (busyMs !== undefined) await database.run('opening the keys', `PRAGMA busy_timeout = ${busyMs}`)
    return store
  } catch (error) {
    await database.close()
    throw error
  }
}

interface AccessOptions {
  readonly host: string
  /** The one token that is let in. */
  readonly token?: string | undefined
  /** What many gateways share, and its owner closes; absent: a file in the data folder. */
  readonly database?: SqlDatabase
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly log: Logger
}

/**
 * Who may use the gateway that listens at `host`; with `token`, whoever sends that alone.
 * Throws `invalid_value` where nobody would be asked for a key though others than this machine can reach it.
 */
export async function openAccess(
  { auth, dataDir }: Pick<Config<Limits>, 'auth' | 'dataDir'>,
  { host, token, database, now, log }: AccessOptions,
): Promise<Access> {
  if (token !== undefined) return accessByOne(token)
  const loopback = isLoopback(host)
  if (auth === 'none' && !loopback)
    throw new PalimpsestError(
      'invalid_value',
      `With --auth none everybody who reaches ${host} could use and change this gateway. Leave --auth away; behind a proxy that checks who comes, say --auth none-anywhere.`,
      { param: 'auth' },
    )
  const store = database === undefined ? await openKeys(dataDir, BUSY_MS) : await KeyStore.open(database)
  const closeFile = async () => {
    if (database === undefined) await store.database.close()
  }
  const access = await accessBy(store, auth, loopback, now, (message) => log.warn({}, message)).catch(async (error: unknown) => {
    await closeFile()
    throw error
  })
  if (!access.required() && !loopback)
    log.warn({}, `no key is asked for: everybody who reaches ${host} can use and change this gateway`)
  if (access.required() && !access.anyKey())
    log.warn({}, 'keys are asked for and there is none: make one with palimpsest keys create')
  const close = async () => {
    await access.close()
    await closeFile()
  }
  return { ...access, close }
}
