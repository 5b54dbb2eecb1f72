import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { PalimpsestError } from '../errors.ts'
import { Database, type Statement } from '../storage/database.ts'
import { useWriteAheadLog } from '../storage/sqlite.ts'
import { type Digest, digestOf, type Key, matches, newToken, parseToken, type Scope } from './key.ts'

/** What a key has used, as the budgets count it. */
export interface Usage {
  /** Requests that could be made at once, at the moment `bucketAt`. */
  readonly bucket: number
  readonly bucketAt: number
  /** Days since the epoch, UTC. */
  readonly day: number
  /** Of that day, those set aside for requests under way included. */
  readonly tokens: number
}

export interface KeyStoreOptions {
  readonly file: string
  /** How long a statement may wait for another process's, once the file is open; everything else waits with it. Absent: seconds. */
  readonly busyMs?: number
  /** Runs `work`; turns its faults into our errors. */
  readonly guarded: <T>(doing: string, work: () => T) => T
}

export type NewKey = Omit<Key, 'id' | 'createdAt' | 'revokedAt'>

interface KeyRow {
  readonly id: string
  readonly name: string
  readonly tenant: string | null
  readonly scopes: string
  readonly requests_per_minute: number | null
  readonly tokens_per_day: number | null
  readonly created_at: number
  readonly expires_at: number | null
  readonly revoked_at: number | null
  readonly salt: Uint8Array
  readonly hash: Uint8Array
}

/** Keys are marked, never deleted, so that a gateway whose last key was revoked does not stand open. */
const SCHEMA = `
  CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant TEXT, scopes TEXT NOT NULL, requests_per_minute INTEGER, tokens_per_day INTEGER,
    created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER, salt BLOB NOT NULL, hash BLOB NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS usage (
    key TEXT PRIMARY KEY, bucket REAL NOT NULL, bucket_at REAL NOT NULL, day INTEGER NOT NULL, tokens INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
`

const OWNER_ONLY = 0o600

/**
 * API keys and what they have used, in a file of their own in the data folder, which a running gateway and the command line open at the
 * same time: every request reads it, so what the command line has written counts from the next request on.
 */
export class KeyStore {
  readonly #db: Database
  readonly #guarded: KeyStoreOptions['guarded']
  readonly #byId: Statement<KeyRow & Digest>
  readonly #save: Statement

  constructor({ file, busyMs, guarded }: KeyStoreOptions) {
    this.#guarded = guarded
    this.#db = guarded('opening the keys', () => {
      mkdirSync(dirname(file), { recursive: true })
      // SQLite gives its log the rights of the file that it finds.
      closeSync(openSync(file, 'a', OWNER_ONLY))
      const db = new Database(file)
      useWriteAheadLog(db, false)
      db.atOnce(() => db.exec(SCHEMA))
      if (busyMs !== undefined) db.exec(`PRAGMA busy_timeout = ${busyMs}`)
      return db
    })
    this.#byId = this.#db.prepare('SELECT * FROM keys WHERE id = ?')
    this.#save = this.#db.prepare(
      `INSERT INTO usage (key, bucket, bucket_at, day, tokens) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
        bucket = excluded.bucket, bucket_at = excluded.bucket_at, day = excluded.day, tokens = excluded.tokens`,
    )
  }

  /** Makes a key. Its token is in the result and nowhere else. */
  create(fields: NewKey, now: number): { readonly key: Key; readonly token: string } {
    const { id, secret, token } = newToken()
    const { salt, hash } = digestOf(secret)
    const { name, tenant, scopes, requestsPerMinute = null, tokensPerDay = null, expiresAt = null } = fields
    const createdAt = Math.round(now)
    this.#guarded('making a key', () =>
      this.#db
        .prepare('INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)')
        .run(id, name, tenant, scopes.join(','), requestsPerMinute, tokensPerDay, createdAt, expiresAt, salt, hash),
    )
    return { key: { ...fields, id, createdAt }, token }
  }

  /** Oldest first, with the tokens that each has used on `day`. */
  list(day: number): (Key & { readonly tokensUsed: number })[] {
    const rows = this.#guarded('reading the keys', () =>
      this.#db
        .prepare(
          'SELECT keys.*, coalesce(tokens, 0) AS used FROM keys LEFT JOIN usage ON key = id AND day = ? ORDER BY created_at, id',
        )
        .all(day),
    ) as (KeyRow & { readonly used: number })[]
    return rows.map((row) => ({ ...keyOf(row), tokensUsed: row.used }))
  }

  /** Revoking again changes nothing. Throws `invalid_value` where there is no such key. */
  revoke(id: string, now: number): Key {
    const row = this.#guarded('revoking a key', () => {
      this.#db.prepare('UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?').run(Math.round(now), id)
      return this.#byId.get(id)
    })
    if (row !== undefined) return keyOf(row)
    throw new PalimpsestError('invalid_value', `There is no key '${id.slice(0, 32)}'. List them with: palimpsest keys list`)
  }

  /** Whether there is or ever was a key. */
  any(): boolean {
    return this.#guarded('reading the keys', () => this.#db.value('SELECT EXISTS (SELECT 1 FROM keys)')) === 1
  }

  /** The key of this token, revoked and expired ones included; null for a token that is none. */
  identify(token: string): Key | null {
    const parsed = parseToken(token)
    if (parsed === null) return null
    const row = this.#guarded('reading the keys', () => this.#byId.get(parsed.id))
    return matches(parsed.secret, row) && row !== undefined ? keyOf(row) : null
  }

  usage(id: string): Usage | undefined {
    const row = this.#guarded('reading what a key has used', () =>
      this.#db.prepare('SELECT bucket, bucket_at AS bucketAt, day, tokens FROM usage WHERE key = ?').get(id),
    )
    return row as Usage | undefined
  }

  saveUsage(id: string, { bucket, bucketAt, day, tokens }: Usage): void {
    // A response that ends with the gateway may end after this.
    if (!this.#db.isOpen) return
    this.#guarded('noting what a key has used', () => this.#save.run(id, bucket, bucketAt, day, tokens))
  }

  close(): void {
    this.#db.close()
  }
}

function keyOf(row: KeyRow): Key {
  const { id, name, tenant, requests_per_minute: requestsPerMinute, tokens_per_day: tokensPerDay } = row
  return {
    id,
    name,
    tenant,
    scopes: row.scopes.split(',') as Scope[],
    createdAt: row.created_at,
    ...(requestsPerMinute !== null && { requestsPerMinute }),
    ...(tokensPerDay !== null && { tokensPerDay }),
    ...(row.expires_at !== null && { expiresAt: row.expires_at }),
    ...(row.revoked_at !== null && { revokedAt: row.revoked_at }),
  }
}
