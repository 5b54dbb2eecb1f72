import type { Schema } from '../storage/migrate.ts'

/**
 * Keys are marked, never deleted, so that a gateway whose last key was revoked does not stand open. Every change of one, whoever makes it and
 * by whatever program, gets the next number of `key_changes`, from 1 on and without gaps: a reader that has seen one number has seen all before.
 *
 * `usage` has one row for each key with limits. `admitted` and `granted` are what the last statement gave: requests and tokens.
 */
export const ACCESS_SCHEMA: Schema = {
  port: 'access',
  oldestReader: 1,
  steps: [
    {
      sqlite: [
        `CREATE TABLE IF NOT EXISTS keys (
          id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant TEXT, scopes TEXT NOT NULL, requests_per_minute INTEGER, tokens_per_day INTEGER,
          created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER, salt BLOB NOT NULL, hash BLOB NOT NULL
        ) STRICT, WITHOUT ROWID`,
        `CREATE TABLE IF NOT EXISTS usage (
          key TEXT PRIMARY KEY, bucket REAL NOT NULL, bucket_at REAL NOT NULL, day INTEGER NOT NULL, tokens INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID`,
      ],
      postgres: [
        `CREATE TABLE keys (
          id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant TEXT, scopes TEXT NOT NULL, requests_per_minute BIGINT, tokens_per_day BIGINT,
          created_at BIGINT NOT NULL, expires_at BIGINT, revoked_at BIGINT, salt BYTEA NOT NULL, hash BYTEA NOT NULL
        )`,
        // Half of each page stays free, so that a row's new version stands beside the old one and no index changes.
        `CREATE TABLE usage (
          key TEXT PRIMARY KEY, bucket DOUBLE PRECISION NOT NULL, bucket_at DOUBLE PRECISION NOT NULL, day BIGINT NOT NULL,
          tokens BIGINT NOT NULL
        ) WITH (fillfactor = 50)`,
      ],
    },
    {
      sqlite: [
        'CREATE TABLE key_changes (n INTEGER PRIMARY KEY, key TEXT NOT NULL) STRICT',
        'INSERT INTO key_changes (key) SELECT id FROM keys ORDER BY created_at, id',
        ...['INSERT', 'UPDATE', 'DELETE'].map(
          (change) => `CREATE TRIGGER key_change_${change.toLowerCase()} AFTER ${change} ON keys
            BEGIN INSERT INTO key_changes (key) VALUES (${change === 'DELETE' ? 'old' : 'new'}.id); END`,
        ),
        ...['admitted', 'granted', 'reserved', 'reserved_before', 'period'].map(
          (column) => `ALTER TABLE usage ADD COLUMN ${column} INTEGER NOT NULL DEFAULT 0`,
        ),
      ],
      postgres: [
        'CREATE TABLE key_changes (n BIGINT PRIMARY KEY, key TEXT NOT NULL)',
        // The lock is held until the commit, so that numbers become visible in their order.
        `CREATE FUNCTION note_key_change() RETURNS trigger LANGUAGE plpgsql AS $body$
          BEGIN
            LOCK TABLE key_changes IN EXCLUSIVE MODE;
            INSERT INTO key_changes (n, key) SELECT coalesce(max(n), 0) + 1, coalesce(NEW.id, OLD.id) FROM key_changes;
            RETURN NULL;
          END
        $body$`,
        `CREATE TRIGGER key_change AFTER INSERT OR UPDATE OR DELETE ON keys FOR EACH ROW EXECUTE FUNCTION note_key_change()`,
        ...['admitted', 'granted', 'reserved', 'reserved_before', 'period'].map(
          (column) => `ALTER TABLE usage ADD COLUMN ${column} BIGINT NOT NULL DEFAULT 0`,
        ),
        // What was settled, since an answer of PostgreSQL can be lost, and what is sent again must not count twice.
        'CREATE TABLE settlements (id UUID PRIMARY KEY, day BIGINT NOT NULL)',
      ],
    },
  ],
}
