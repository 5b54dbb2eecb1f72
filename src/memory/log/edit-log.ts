import type { Edit } from '../../edit/edit.ts'
import { PalimpsestError } from '../../errors.ts'
import { Database } from '../../storage/database.ts'
import { guarded, useWriteAheadLog } from '../../storage/sqlite.ts'
import type { LogKind, LogRecord } from '../memory.ts'

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

/** "PLMP", so that another program's database is not mistaken for a log. https://www.sqlite.org/pragma.html#pragma_application_id */
const APPLICATION_ID = 0x504c4d50
const SCHEMA_VERSION = 1
/** SQLITE_CORRUPT, for what `quick_check` says instead of throwing it. */
const CORRUPT = 11

const SCHEMA = `
  CREATE TABLE batches (
    tenant TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, source TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('add', 'withdraw', 'restore', 'sync')),
    edits INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (tenant, id)
  ) STRICT;
  CREATE TABLE log (
    seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, tenant TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('add', 'withdraw', 'restore')),
    edit_id TEXT NOT NULL, batch_id TEXT NOT NULL, body TEXT CHECK ((body IS NOT NULL) = (kind = 'add'))
  ) STRICT;
  CREATE TRIGGER log_keeps_rows BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
  CREATE TRIGGER log_keeps_text BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
  CREATE TRIGGER batches_keep_rows BEFORE DELETE ON batches BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
  CREATE TRIGGER batches_keep_text BEFORE UPDATE ON batches BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${SCHEMA_VERSION};
`

interface LogRow {
  seq: number
  at: number
  tenant: string
  kind: LogKind
  edit_id: string
  batch_id: string
  body: string | null
}

/** The append-only record of everything that was ever said about any edit: the one truth, from which all else is derived. */
export class EditLog {
  readonly file: string
  readonly #db: Database
  readonly #write: (batches: readonly Batch[], records: readonly TenantRecord[]) => void

  /** Throws `storage_failed` for a damaged file, another program's, or one of a newer version; `storage_full`. */
  constructor(file: string) {
    this.file = file
    this.#db = guarded(file, 'opening the edit log', () => new Database(file))
    try {
      guarded(file, 'opening the edit log', () => this.#prepare())
      this.#write = this.#writer()
    } catch (error) {
      this.#db.close()
      throw error
    }
  }

  /** Looks before it touches: a file that is not ours is left as it is. */
  #prepare(): void {
    const id = this.#db.value('PRAGMA application_id')
    const version = Number(this.#db.value('PRAGMA user_version'))
    const isNew = id === 0 && version === 0 && this.#db.value('SELECT count(*) FROM sqlite_master') === 0
    if (!isNew) this.#assertReadable(id, version)
    useWriteAheadLog(this.#db, true)
    if (isNew) this.#db.atOnce(() => this.#db.exec(SCHEMA))
  }

  #assertReadable(id: unknown, version: number): void {
    if (id !== APPLICATION_ID) {
      throw new PalimpsestError(
        'storage_failed',
        `${this.file} is a database of another program. Move it away, or choose another data folder.`,
      )
    }
    if (version > SCHEMA_VERSION) {
      throw new PalimpsestError(
        'storage_failed',
        `${this.file} was written by a newer Palimpsest (format ${version}; this one reads up to ${SCHEMA_VERSION}). Update Palimpsest, or choose another data folder.`,
      )
    }
    const health = String(this.#db.value('PRAGMA quick_check(1)'))
    if (health !== 'ok') throw Object.assign(new Error(health.replaceAll('\n', ' ')), { errcode: CORRUPT })
  }

  #writer(): (batches: readonly Batch[], records: readonly TenantRecord[]) => void {
    const batch = this.#db.prepare(
      'INSERT INTO batches (tenant, id, at, source, kind, edits, digest) VALUES (?, ?, ?, ?, ?, ?, ?)',
    )
    const record = this.#db.prepare(
      'INSERT INTO log (seq, at, tenant, kind, edit_id, batch_id, body) VALUES (?, ?, ?, ?, ?, ?, ?)',
    )
    return (batches, records) =>
      this.#db.atOnce(() => {
        for (const b of batches) batch.run(b.tenant, b.id, b.at, b.source, b.kind, b.edits, b.digest)
        for (const r of records)
          record.run(r.seq, r.at, r.tenant, r.kind, r.editId, r.batchId, r.edit ? JSON.stringify(r.edit) : null)
      })
  }

  /** All of it on the disk when this returns, or none of it and a throw. */
  append(batches: readonly Batch[], records: readonly TenantRecord[]): void {
    guarded(this.file, `recording ${records.length} change${records.length === 1 ? '' : 's'}`, () =>
      this.#write(batches, records),
    )
  }

  /** Every record, in order. */
  *records(): Generator<TenantRecord> {
    const rows = this.#db.prepare<LogRow>('SELECT seq, at, tenant, kind, edit_id, batch_id, body FROM log ORDER BY seq').iterate()
    for (const row of rows) {
      const { seq, at, tenant, kind } = row
      const head = { seq, at, tenant, kind, editId: row.edit_id, batchId: row.batch_id }
      yield row.body === null ? head : { ...head, edit: this.#parse(row.body, seq) }
    }
  }

  #parse(body: string, seq: number): Edit {
    try {
      return JSON.parse(body) as Edit
    } catch (error) {
      throw new PalimpsestError('storage_failed', `${this.file}: record ${seq} cannot be read. Put back a backup.`, {
        cause: error,
      })
    }
  }

  /** Every batch, in the order they came. */
  batches(): Batch[] {
    return this.#db.prepare<Batch>('SELECT tenant, id, at, source, kind, edits, digest FROM batches ORDER BY rowid').all()
  }

  close(): void {
    this.#db.close()
  }
}
