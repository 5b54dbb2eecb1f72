import { PalimpsestError } from '../errors.ts'
import { migrate } from '../storage/migrate.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import { dayOf } from './day.ts'
import { type Digest, digestOf, type Key, newToken, type Scope } from './key.ts'
import { ACCESS_SCHEMA } from './schema.ts'

export type NewKey = Omit<Key, 'id' | 'createdAt' | 'revokedAt'>

/** What became of a key, as it is now. */
export interface KeyChange {
  /** One more than the change before. */
  readonly n: number
  readonly id: string
  /** Null: deleted, by another program than ours. */
  readonly kept: { readonly key: Key; readonly digest: Digest } | null
}

interface KeyRow extends Digest {
  readonly id: string
  readonly name: string
  readonly tenant: string | null
  readonly scopes: string
  readonly requests_per_minute: number | null
  readonly tokens_per_day: number | null
  readonly created_at: number
  readonly expires_at: number | null
  readonly revoked_at: number | null
}

/** By the clock that the gateways share, where they share one. */
const TODAY = { sqlite: '?', postgres: 'floor(extract(epoch FROM now()) / 86400)' } as const

/** API keys and what they have used, which running gateways and the command line read and change at the same time. */
export class KeyStore {
  readonly database: SqlDatabase

  private constructor(database: SqlDatabase) {
    this.database = database
  }

  /** Brings the tables up to date. */
  static async open(database: SqlDatabase): Promise<KeyStore> {
    await migrate(database, ACCESS_SCHEMA)
    return new KeyStore(database)
  }

  /** Makes a key. Its token is in the result and nowhere else. */
  async create(fields: NewKey, now: number): Promise<{ readonly key: Key; readonly token: string }> {
    const { id, secret, token } = newToken()
    const { salt, hash } = digestOf(secret)
    const { name, tenant, scopes, requestsPerMinute = null, tokensPerDay = null, expiresAt = null } = fields
    const createdAt = Math.round(now)
    await this.database.run(
      'making a key',
      `INSERT INTO keys (id, name, tenant, scopes, requests_per_minute, tokens_per_day, created_at, expires_at, salt, hash)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      ...[id, name, tenant, scopes.join(','), requestsPerMinute, tokensPerDay, createdAt, expiresAt, salt, hash],
    )
    return { key: { ...fields, id, createdAt }, token }
  }

  /** Oldest first, with the tokens that each has used today. */
  async list(now: number): Promise<(Key & { readonly tokensUsed: number })[]> {
    const rows = await this.database.all<KeyRow & { readonly used: number }>(
      'reading the keys',
      `SELECT keys.*, coalesce(tokens, 0) AS used FROM keys LEFT JOIN usage ON key = id AND day = ${TODAY[this.database.dialect]}
        ORDER BY created_at, id`,
      ...(this.database.dialect === 'sqlite' ? [dayOf(now)] : []),
    )
    return rows.map((row) => ({ ...keyOf(row), tokensUsed: row.used }))
  }

  /** Revoking again changes nothing. Throws `invalid_value` where there is no such key. */
  async revoke(id: string, now: number): Promise<Key> {
    const [row] = await this.database.all<KeyRow>(
      'revoking a key',
      'UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ? RETURNING *',
      Math.round(now),
      id,
    )
    if (row !== undefined) return keyOf(row)
    throw new PalimpsestError('invalid_value', `There is no key '${id.slice(0, 32)}'. List them with: palimpsest keys list`)
  }

  /** What changed after change number `n`, in order. */
  async changesAfter(n: number): Promise<KeyChange[]> {
    const rows = await this.database.all<{ readonly n: number; readonly changed: string } & (KeyRow | { readonly id: null })>(
      'reading the keys',
      'SELECT n, key AS changed, keys.* FROM key_changes LEFT JOIN keys ON id = key WHERE n > ? ORDER BY n',
      n,
    )
    return rows.map((row) => ({
      n: row.n,
      id: row.changed,
      kept: row.id === null ? null : { key: keyOf(row), digest: { salt: row.salt, hash: row.hash } },
    }))
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
