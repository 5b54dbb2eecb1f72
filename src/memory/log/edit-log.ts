import { existsSync } from 'node:fs'
import type { Edit } from '../../edit/edit.ts'
import { PalimpsestError } from '../../errors.ts'
import { lockStatement } from '../../storage/advisory-locks.ts'
import { Database } from '../../storage/database.ts'
import { assertStillReadable, migrate, type Schema } from '../../storage/migrate.ts'
import type { Listening, Sql, SqlDatabase, Statement } from '../../storage/sql.ts'
import { guarded } from '../../storage/sqlite.ts'
import { SqliteSql } from '../../storage/sqlite-sql.ts'
import type { LogKind, LogRecord } from '../memory.ts'
import { inSlices } from '../slices.ts'

/** How a batch came: posted edits, a withdrawal, a restoration, or an edit file that was read. */
export type BatchKind = 'add' | 'withdraw' | 'restore' | 'sync'

export interface Batch {
  readonly id: string
  readonly tenant: string
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly source: string
  readonly kind: BatchKind
  /** How many edits it carried, those that changed nothing included. */
  readonly edits: number
  /** Hash of what it carried, to tell a repeat from another batch under the same id. */
  readonly digest: string
}

/** A log record with the tenant it belongs to. */
export interface TenantRecord extends LogRecord {
  readonly tenant: string
}

/** A batch and the records it makes. */
export interface Entry {
  readonly batch: Batch
  readonly records: readonly TenantRecord[]
  /** Supersession keys of their edits, where they are known already. */
  readonly keys?: readonly string[]
}

/** How far a reader has come: the last record, and the number of the last batch, which may have made none. Both are dense. */
export interface Position {
  readonly seq: number
  readonly batches: number
}

/** Batches whole and in order; `position` is behind the last of them. */
export interface LogPage {
  readonly entries: readonly Entry[]
  readonly position: Position
}

/** One writer's turn. No other writer comes between what is read and what is written. */
export interface Turn {
  /** How far this node has applied the log. */
  readonly applied: () => Position
  /** Applies what others have written since. */
  readonly missed: (page: LogPage) => void
  /** What to write, given all that was written before; nothing where there is none. */
  readonly plan: () => Promise<readonly Entry[]>
}

/** "PLMP", so that another program's database is not mistaken for a log. https://www.sqlite.org/pragma.html#pragma_application_id */
const APPLICATION_ID = 0x504c4d50
/** Of files before tables had versions of their own; a larger one is of a Palimpsest that we know nothing of. */
const FILE_VERSION = 1
/** SQLITE_CORRUPT, for what `quick_check` says instead of throwing it. */
const CORRUPT = 11

const only = (dialect: 'sqlite' | 'postgres', table: string, name: string, event: string) =>
  dialect === 'sqlite'
    ? `CREATE TRIGGER IF NOT EXISTS ${name} BEFORE ${event} ON ${table} BEGIN SELECT RAISE(ABORT, 'the log only grows'); END`
    : `CREATE TRIGGER ${name} BEFORE ${event} ON ${table} FOR EACH STATEMENT EXECUTE FUNCTION palimpsest_log_only_grows()`

export const LOG_SCHEMA: Schema = {
  port: 'edit log',
  oldestReader: 1,
  steps: [
    {
      // Files from before tables had versions have these tables already.
      sqlite: [
        `CREATE TABLE IF NOT EXISTS batches (
          tenant TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, source TEXT NOT NULL,
          kind TEXT NOT NULL CHECK (kind IN ('add', 'withdraw', 'restore', 'sync')),
          edits INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (tenant, id)
        ) STRICT`,
        `CREATE TABLE IF NOT EXISTS log (
          seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, tenant TEXT NOT NULL,
          kind TEXT NOT NULL CHECK (kind IN ('add', 'withdraw', 'restore')),
          edit_id TEXT NOT NULL, batch_id TEXT NOT NULL, body TEXT CHECK ((body IS NOT NULL) = (kind = 'add'))
        ) STRICT`,
        only('sqlite', 'log', 'log_keeps_rows', 'DELETE'),
        only('sqlite', 'log', 'log_keeps_text', 'UPDATE'),
        only('sqlite', 'batches', 'batches_keep_rows', 'DELETE'),
        only('sqlite', 'batches', 'batches_keep_text', 'UPDATE'),
        `PRAGMA application_id = ${APPLICATION_ID}`,
        `PRAGMA user_version = ${FILE_VERSION}`,
      ],
      postgres: [
        `CREATE TABLE batches (
          n BIGINT NOT NULL UNIQUE, tenant TEXT NOT NULL, id TEXT NOT NULL, at BIGINT NOT NULL, source TEXT NOT NULL,
          kind TEXT NOT NULL CHECK (kind IN ('add', 'withdraw', 'restore', 'sync')),
          edits INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (tenant, id)
        )`,
        `CREATE TABLE log (
          seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, tenant TEXT NOT NULL,
          kind TEXT NOT NULL CHECK (kind IN ('add', 'withdraw', 'restore')),
          edit_id TEXT NOT NULL, batch_id TEXT NOT NULL, body TEXT CHECK ((body IS NOT NULL) = (kind = 'add'))
        )`,
        `CREATE FUNCTION palimpsest_log_only_grows() RETURNS trigger LANGUAGE plpgsql
          AS $$ BEGIN RAISE EXCEPTION 'the log only grows'; END $$`,
        only('postgres', 'log', 'log_only_grows', 'UPDATE OR DELETE OR TRUNCATE'),
        only('postgres', 'batches', 'batches_only_grow', 'UPDATE OR DELETE OR TRUNCATE'),
      ],
    },
  ],
}

/** Who writes holds the lock. A commit is on the disk before it is acknowledged, also in a database whose default is not to wait for that. */
const TURN = `${lockStatement('log')},
  CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END`
const CHANNEL = 'palimpsest_log'
/** Both reads of a page see the same moment. */
const SNAPSHOT = 'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY'
/** Records read or written by one statement. */
const PAGE_RECORDS = 5_000

/** Number of a batch: SQLite's own, of a table from which no row ever goes. */
const NUMBER = { sqlite: 'rowid', postgres: 'n' } as const

const INSERT = {
  batch: {
    sqlite: 'INSERT INTO batches (tenant, id, at, source, kind, edits, digest) VALUES (?, ?, ?, ?, ?, ?, ?)',
    postgres: 'INSERT INTO batches (tenant, id, at, source, kind, edits, digest, n) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
  },
  record: 'INSERT INTO log (seq, at, tenant, kind, edit_id, batch_id, body) VALUES (?, ?, ?, ?, ?, ?, ?)',
  /** One trip for thousands. */
  records: `INSERT INTO log (seq, at, tenant, kind, edit_id, batch_id, body)
    SELECT seq, at, tenant, kind, edit_id, batch_id, body FROM json_to_recordset(?)
      AS r(seq BIGINT, at BIGINT, tenant TEXT, kind TEXT, edit_id TEXT, batch_id TEXT, body TEXT)`,
} as const

interface LogRow {
  readonly seq: number
  readonly at: number
  readonly tenant: string
  readonly kind: LogKind
  readonly edit_id: string
  readonly batch_id: string
  readonly body: string | null
}

/** Opens the file of a log that this process alone holds. Throws `storage_failed` for a damaged file, another program's, or one of a newer version. */
export function openLogFile(file: string): SqliteSql {
  if (existsSync(file)) assertOurs(file)
  return new SqliteSql(file, { durable: true })
}

/** Looks before anything is touched: a file that is not ours is left as it is. */
function assertOurs(file: string): void {
  const doing = 'opening the edit log'
  const db = guarded(file, doing, () => new Database(file))
  try {
    guarded(file, doing, () => {
      const id = db.value('PRAGMA application_id')
      const version = Number(db.value('PRAGMA user_version'))
      if (id === 0 && version === 0 && db.value('SELECT count(*) FROM sqlite_master') === 0) return
      if (id !== APPLICATION_ID)
        throw new PalimpsestError(
          'storage_failed',
          `${file} is a database of another program. Move it away, or choose another data folder.`,
        )
      if (version > FILE_VERSION)
        throw new PalimpsestError(
          'storage_failed',
          `${file} was written by a newer Palimpsest (format ${version}; this one reads up to ${FILE_VERSION}). Update Palimpsest, or choose another data folder.`,
        )
      const health = String(db.value('PRAGMA quick_check(1)'))
      if (health !== 'ok') throw Object.assign(new Error(health.replaceAll('\n', ' ')), { errcode: CORRUPT })
    })
  } finally {
    db.close()
  }
}

/** The append-only record of everything that was ever said about any edit: the one truth, from which all else is derived. */
export class EditLog {
  readonly #database: SqlDatabase

  private constructor(database: SqlDatabase) {
    this.#database = database
  }

  /** Throws storage errors. A SQLite file must be this process's alone. */
  static async open(database: SqlDatabase): Promise<EditLog> {
    await migrate(database, LOG_SCHEMA)
    return new EditLog(database)
  }

  /** Whether other processes may write, too. */
  get isShared(): boolean {
    return this.#database.dialect === 'postgres'
  }

  /** Tells of positions that were written, as hints; absent where nobody else writes. */
  listen(heard: (seq: number) => void): Listening | undefined {
    return this.#database.listen?.(CHANNEL, (payload) => heard(Number(payload)))
  }

  /** Where the log ends. */
  head(): Promise<Position> {
    return this.#head(this.#database)
  }

  async #head(sql: Sql): Promise<Position> {
    const [row] = await sql.all<Position>(
      'looking where the log ends',
      `SELECT (SELECT coalesce(max(seq), 0) FROM log) AS seq, (SELECT coalesce(max(${NUMBER[sql.dialect]}), 0) FROM batches) AS batches`,
    )
    return row ?? { seq: 0, batches: 0 }
  }

  /** The next batches, of about `most` records together. Throws `storage_failed` where one is missing between. */
  async after(position: Position, most = PAGE_RECORDS): Promise<LogPage> {
    if (!this.isShared) return this.#page(this.#database, position, most)
    // A newer gateway may have changed the tables since.
    await assertStillReadable(this.#database, LOG_SCHEMA)
    return this.#database.atOnce('reading the log', async (sql) => {
      await sql.run('reading the log', SNAPSHOT)
      return this.#page(sql, position, most)
    })
  }

  async #page(sql: Sql, position: Position, most: number): Promise<LogPage> {
    const [records, isWhole] = await this.#records(sql, position.seq, most)
    const last = isWhole ? undefined : records.at(-1)
    const number = NUMBER[sql.dialect]
    const rows = await sql.all<Batch & { readonly n: number }>(
      'reading the log',
      `SELECT ${number} AS n, tenant, id, at, source, kind, edits, digest FROM batches
         WHERE ${number} > ? AND ${number} <= coalesce((SELECT ${number} FROM batches WHERE tenant = ? AND id = ?), ?) ORDER BY ${number}`,
      ...[position.batches, last?.tenant ?? '', last?.batchId ?? '', Number.MAX_SAFE_INTEGER],
    )
    let at = 0
    const entries = rows.map(({ n, ...batch }, i): Entry => {
      if (n !== position.batches + i + 1) throw this.#gap(`batch ${position.batches + i + 1}`)
      const from = at
      while (records[at]?.batchId === batch.id && records[at]?.tenant === batch.tenant) at++
      return { batch, records: records.slice(from, at) }
    })
    if (at < records.length) throw this.#gap(`the batch of record ${records[at]?.seq}`)
    return {
      entries,
      position: { seq: position.seq + records.length, batches: position.batches + rows.length },
    }
  }

  /** Records of whole batches; true when there are no more. */
  async #records(sql: Sql, after: number, most: number): Promise<[TenantRecord[], boolean]> {
    const records: TenantRecord[] = []
    for (;;) {
      const rows = await sql.all<LogRow>(
        'reading the log',
        'SELECT seq, at, tenant, kind, edit_id, batch_id, body FROM log WHERE seq > ? ORDER BY seq LIMIT ?',
        ...[after + records.length, most],
      )
      for (const row of rows) {
        if (row.seq !== after + records.length + 1) throw this.#gap(`record ${after + records.length + 1}`)
        records.push(this.#record(row, records.at(-1)))
      }
      if (rows.length < most) return [records, true]
      const { tenant, batchId } = records.at(-1) ?? {}
      const cut = records.findLastIndex((record) => record.batchId !== batchId || record.tenant !== tenant) + 1
      if (cut > 0) return [records.slice(0, cut), false]
    }
  }

  /** `before`: the record before it, most of whose texts are its own, too. */
  #record({ seq, at, tenant, kind, edit_id: editId, batch_id: batchId, body }: LogRow, before?: TenantRecord): TenantRecord {
    const [ofTenant, ofKind] = [oneOf(tenant, before?.tenant), oneOf(kind, before?.kind)]
    const ofBatch = oneOf(batchId, before?.batchId)
    if (body === null) return { seq, at, tenant: ofTenant, kind: ofKind, editId, batchId: ofBatch }
    try {
      const edit = JSON.parse(body) as Edit
      return { seq, at, tenant: ofTenant, kind: ofKind, editId: oneOf(editId, edit.id), batchId: ofBatch, edit }
    } catch (error) {
      throw new PalimpsestError('storage_failed', `${this.#database.name}: record ${seq} cannot be read. Put back a backup.`, {
        cause: error,
      })
    }
  }

  #gap(what: string): PalimpsestError {
    return new PalimpsestError(
      'storage_failed',
      `${this.#database.name}: ${what} is missing from the log, so it cannot be followed. Put back a backup.`,
    )
  }

  /** Throws where the log ends before what was read from it: an older backup was put in its place. */
  assertReaches(head: Position, { seq, batches }: Position): void {
    if (head.seq < seq || head.batches < batches) throw this.#gap(head.seq < seq ? `record ${seq}` : `batch ${batches}`)
  }

  /** Writes what the turn plans: all of it is kept when this resolves, or none of it and a throw. */
  async append(turn: Turn): Promise<LogPage> {
    if (this.isShared) {
      await assertStillReadable(this.#database, LOG_SCHEMA)
      return this.#database.atOnce('recording changes', (sql) => this.#taking(sql, turn))
    }
    // This process holds the folder, so nothing can have been missed. In one go: another connection of it may write to the same file.
    const written = await this.#planned(turn)
    if (written.entries.length > 0) await this.#database.runAll('recording changes', await insertions(written.entries))
    return written
  }

  async #taking(sql: Sql, turn: Turn): Promise<LogPage> {
    // A statement of its own: what follows sees all that earlier holders have written.
    await sql.all('waiting for other writers', TURN)
    const head = await this.#head(sql)
    this.assertReaches(head, turn.applied())
    while (isBehind(turn.applied(), head)) turn.missed(await this.#page(sql, turn.applied(), PAGE_RECORDS))
    const written = await this.#planned(turn)
    for (const [i, { batch: b }] of written.entries.entries())
      await sql.run(
        'recording changes',
        INSERT.batch.postgres,
        ...[b.tenant, b.id, b.at, b.source, b.kind, b.edits, b.digest, head.batches + i + 1],
      )
    const records = written.entries.flatMap((entry) => entry.records)
    for (let from = 0; from < records.length; from += PAGE_RECORDS) {
      const rows = await inSlices(records.slice(from, from + PAGE_RECORDS), rowOf)
      await sql.run('recording changes', INSERT.records, JSON.stringify(rows))
    }
    if (written.entries.length > 0)
      await sql.all('telling other nodes', 'SELECT pg_notify(?, ?)', CHANNEL, String(written.position.seq))
    return written
  }

  async #planned({ applied, plan }: Turn): Promise<LogPage> {
    const entries = await plan()
    const { seq, batches } = applied()
    const records = entries.reduce((sum, entry) => sum + entry.records.length, 0)
    return { entries, position: { seq: seq + records, batches: batches + entries.length } }
  }
}

export function isBehind(applied: Position, head: Position): boolean {
  return applied.seq < head.seq || applied.batches < head.batches
}

/** `text`, as the same object as `known` where the two are equal: a million edits hold each text once, not a copy a record. */
function oneOf<Text extends string>(text: Text, known: Text | undefined): Text {
  return text === known ? known : text
}

function rowOf({ seq, at, tenant, kind, editId, batchId, edit }: TenantRecord): LogRow {
  return { seq, at, tenant, kind, edit_id: editId, batch_id: batchId, body: edit === undefined ? null : JSON.stringify(edit) }
}

async function insertions(entries: readonly Entry[]): Promise<Statement[]> {
  const batches = entries.map(
    ({ batch: b }): Statement => [INSERT.batch.sqlite, b.tenant, b.id, b.at, b.source, b.kind, b.edits, b.digest],
  )
  const all = entries.flatMap((entry) => entry.records)
  const records = await inSlices(all, (record): Statement => {
    const { seq, at, tenant, kind, edit_id, batch_id, body } = rowOf(record)
    return [INSERT.record, seq, at, tenant, kind, edit_id, batch_id, body]
  })
  return [...batches, ...records]
}
