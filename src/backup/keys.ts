import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { SCOPES } from '../access/key.ts'
import { KeyStore } from '../access/key-store.ts'
import { PalimpsestError } from '../errors.ts'
import { Database } from '../storage/database.ts'
import { copyDatabase } from '../storage/folder-copy.ts'
import { SqliteSql } from '../storage/sqlite-sql.ts'

/** The keys of a data folder, beside its memory. */
export const KEYS_FILE = 'keys.db'

/** Which keys a restored folder asks for. */
export interface RestoredKeys {
  /** `own`: those that the folder had before, since what was revoked meanwhile stays revoked; `snapshot`: it had none; `none`: neither had any. */
  readonly from: 'own' | 'snapshot' | 'none'
  /** Those that still let somebody in. */
  readonly live: readonly { readonly id: string; readonly name: string; readonly scopes: readonly string[] }[]
}

/** The keys and what they have used, with those of the snapshot; where there are none, no file. */
export async function copyKeys(dataDir: string, to: string): Promise<void> {
  const file = join(dataDir, KEYS_FILE)
  if (existsSync(file)) await copyDatabase(file, join(to, KEYS_FILE))
}

/**
 * Decides whose keys `fresh`, which takes the place of `dataDir`, is to have: whoever makes a snapshot up must not let himself in. Throws
 * `snapshot_broken` where the snapshot's keys are none that Palimpsest writes.
 */
export async function settleKeys(dataDir: string, fresh: string, now: number): Promise<RestoredKeys> {
  const [own, kept] = [join(dataDir, KEYS_FILE), join(fresh, KEYS_FILE)]
  const isOwn = existsSync(own) && (await keysIn(own)).length > 0
  if (isOwn) {
    for (const name of [kept, `${kept}-wal`, `${kept}-shm`]) await rm(name, { force: true })
    await copyDatabase(own, kept)
  } else if (existsSync(kept)) await assertOurs(kept, join(fresh, '.expected.db'))
  const keys = existsSync(kept) ? await keysIn(kept) : []
  const live = keys.filter(({ revokedAt, expiresAt }) => revokedAt === undefined && (expiresAt ?? now + 1) > now)
  return {
    from: isOwn ? 'own' : keys.length > 0 ? 'snapshot' : 'none',
    live: live.map(({ id, name, scopes }) => ({ id, name, scopes })),
  }
}

async function keysIn(file: string) {
  const database = new SqliteSql(file, { durable: false })
  try {
    return await (await KeyStore.open(database)).list(0)
  } finally {
    await database.close()
  }
}

/** Tables and triggers as ours, and every row a key as we make them: a view or a trigger more could let keys appear later. */
async function assertOurs(file: string, empty: string): Promise<void> {
  const keys = await keysIn(file).catch((error: Error) => {
    throw broken(`its keys can't be read: ${error.message}`)
  })
  await keysIn(empty)
  const [found, expected] = [objectsIn(file), objectsIn(empty)]
  await rm(empty, { force: true })
  const other = [...found].find(([name, sql]) => expected.get(name) !== sql)
  if (other !== undefined || found.size !== expected.size)
    throw broken(`its keys hold ${other?.[0] ?? 'less'} than Palimpsest makes`)
  const wrong = keys.find(
    ({ id, tenant, scopes }) =>
      !/^[0-9a-f]{16}$/.test(id) ||
      scopes.length === 0 ||
      scopes.some((scope) => !SCOPES.includes(scope)) ||
      (tenant === null && scopes.some((scope) => scope !== 'admin')),
  )
  if (wrong !== undefined) throw broken(`its key '${wrong.id.slice(0, 32)}' is none that Palimpsest makes`)
}

function objectsIn(file: string): Map<string, string> {
  const db = new Database(file, { readOnly: true })
  try {
    const rows = db.prepare<{ type: string; name: string; sql: string | null }>('SELECT type, name, sql FROM sqlite_master').all()
    return new Map(rows.map(({ type, name, sql }) => [`${type} ${name}`, sql ?? '']))
  } finally {
    db.close()
  }
}

function broken(why: string): PalimpsestError {
  return new PalimpsestError('snapshot_broken', `The snapshot can't be used: ${why}. Nothing was changed.`)
}
