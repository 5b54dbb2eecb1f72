import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { PalimpsestError } from '../errors.ts'
import { isWhole } from '../storage/file-hash.ts'
import { migrate, type Schema } from '../storage/migrate.ts'
import { fillShared, SharedRecords, type SharedTable, sharedTable } from '../storage/shared-records.ts'
import { DATABASE_NOW, type Sql, type SqlDatabase } from '../storage/sql.ts'
import { COPY_SUFFIX, FileCopies } from './file-copies.ts'
import { FILE_TABLES, fileIsWhole, nameFile, sendFile } from './file-pieces.ts'
import type { FolderAdapters } from './folder-store.ts'
import { type Adapter, readRecord, recordText } from './record.ts'
import { ADAPTER_FILE, type AdapterStore, type AdapterTurn } from './store.ts'

export const ADAPTER_SCHEMA: Schema = {
  port: 'adapters',
  oldestReader: 1,
  steps: [
    {
      sqlite: [...sharedTable('adapters'), ...FILE_TABLES('BLOB')],
      postgres: [...sharedTable('adapters'), ...FILE_TABLES('BYTEA')],
    },
  ],
}

const TABLE: SharedTable<Adapter> = { name: 'adapters', read: readRecord, write: recordText }

/** Pieces that no file names are those of a registration under way until they are this old. */
const ORPHANED_AFTER_MS = 3_600_000
/** Deleted in one turn, in which the others wait. */
const DELETED_PIECES = 64
/** A file that is deleted while it is sent is sent again. */
const SENDS = 3

export interface SharedAdaptersOptions {
  readonly database: SqlDatabase
  /** Of this gateway alone: its copies of the files. */
  readonly dir: string
  /** Longest wait of a request for a file that is on its way. */
  readonly waitMs: number
  readonly warn: (message: string) => void
  readonly pollMs?: number
}

/**
 * Adapters of a database that gateways share. A record is a row. A file is pieces under its hash, sent before the record, which is written only
 * where all of them are there; each gateway keeps a copy of its own.
 */
export class SharedAdapters implements AdapterStore {
  readonly dir: string
  readonly #options: SharedAdaptersOptions
  readonly #shared: SharedRecords<Adapter>
  readonly #copies: FileCopies
  readonly #leaving = new Set<Promise<void>>()

  private constructor(options: SharedAdaptersOptions, shared: SharedRecords<Adapter>) {
    this.dir = options.dir
    this.#options = options
    this.#shared = shared
    this.#copies = new FileCopies(options)
  }

  static async open(options: SharedAdaptersOptions): Promise<SharedAdapters> {
    const { database, dir, warn, pollMs } = options
    mkdirSync(dir, { recursive: true })
    await migrate(database, ADAPTER_SCHEMA)
    const shared = await SharedRecords.open({ database, table: TABLE, warn, ...(pollMs !== undefined && { pollMs }) })
    // What was never received whole, and what was deleted while this gateway was not there.
    for (const name of readdirSync(dir))
      if (!isNamed(shared.items, basename(name, COPY_SUFFIX))) rmSync(join(dir, name), { recursive: true, force: true })
    const store = new SharedAdapters(options, shared)
    await store.#deleteOrphans()
    return store
  }

  get records(): ReadonlyMap<string, Adapter> {
    return this.#shared.items
  }

  path({ sha256 }: Pick<Adapter, 'sha256'>): string {
    return this.#copies.path(sha256)
  }

  present(adapter: Adapter, signal?: AbortSignal): Promise<void> {
    return this.#copies.present(adapter, signal)
  }

  async add(adapter: Adapter, folder: string, check: (records: ReadonlyMap<string, Adapter>) => void): Promise<void> {
    const { database } = this.#options
    const { sha256 } = adapter
    const doing = 'registering an adapter'
    await this.#copies.keep(sha256, join(folder, ADAPTER_FILE))
    try {
      for (let sends = 1; ; sends++) {
        const file = await sendFile(database, sha256, this.path(adapter))
        const isWhole = await this.#shared.change(doing, async ({ sql, items, put }) => {
          check(items)
          if (!(await fileIsWhole(sql, sha256, file))) return false
          await nameFile(sql, sha256, file)
          await put(adapter.id, adapter)
          return true
        })
        if (isWhole) return
        if (sends === SENDS)
          throw new Error(`the pieces of adapter '${adapter.id}' were deleted ${SENDS} times while they were sent`)
      }
    } finally {
      await this.#dropCopy(sha256)
    }
  }

  async change<Result>(work: (turn: AdapterTurn) => Promise<Result>): Promise<Result> {
    const doing = 'changing an adapter'
    const unnamed: string[] = []
    const result = await this.#shared.change(doing, (turn) =>
      work({
        records: turn.items,
        write: (adapter) => turn.put(adapter.id, adapter),
        remove: async (id) => {
          const sha256 = turn.items.get(id)?.sha256
          await turn.remove(id)
          if (sha256 === undefined || isNamed(turn.items, sha256)) return
          await turn.sql.run(doing, 'DELETE FROM adapter_files WHERE sha256 = ?', sha256)
          unnamed.push(sha256)
        },
      }),
    )
    await Promise.all(this.#leaving)
    for (const sha256 of unnamed) await this.#deletePieces(sha256)
    return result
  }

  follow(gone: (adapter: Adapter) => Promise<void>): void {
    const look = (before: ReadonlyMap<string, Adapter>) => {
      const now = this.#shared.items
      this.#copies.want([...now.values()])
      if (now === before) return
      for (const adapter of before.values()) if (now.get(adapter.id)?.sha256 !== adapter.sha256) this.#leave(adapter, gone)
    }
    look(this.#shared.items)
    this.#shared.follow(look)
  }

  #leave(adapter: Adapter, gone: (adapter: Adapter) => Promise<void>): void {
    const left = gone(adapter)
      .then(() => this.#dropCopy(adapter.sha256))
      .catch((error: Error) => this.#options.warn(`adapter '${adapter.id}' was deleted and is still in memory: ${error.message}`))
      .finally(() => this.#leaving.delete(left))
    this.#leaving.add(left)
  }

  async #dropCopy(sha256: string): Promise<void> {
    if (!isNamed(this.#shared.items, sha256)) await this.#copies.drop(sha256)
  }

  /** Of what was sent and never registered, or not deleted to its end. */
  async #deleteOrphans(): Promise<void> {
    const { database } = this.#options
    const rows = await database.all<{ sha256: string }>(
      'looking for pieces of files that nothing names',
      `SELECT sha256 FROM adapter_pieces p WHERE NOT EXISTS (SELECT 1 FROM adapter_files f WHERE f.sha256 = p.sha256)
         GROUP BY sha256 HAVING max(written_at) < ${DATABASE_NOW[database.dialect]} - ?`,
      ORPHANED_AFTER_MS,
    )
    for (const { sha256 } of rows) await this.#deletePieces(sha256)
  }

  /** Few at a time; ends where a file names them again. */
  async #deletePieces(sha256: string): Promise<void> {
    const doing = 'deleting the pieces of a file'
    for (;;) {
      const deleted = await this.#shared.change(doing, ({ sql, items }) =>
        isNamed(items, sha256)
          ? Promise.resolve(0)
          : sql.run(
              doing,
              `DELETE FROM adapter_pieces WHERE sha256 = ? AND number IN (
                 SELECT number FROM adapter_pieces WHERE sha256 = ? ORDER BY number LIMIT ${DELETED_PIECES})`,
              ...[sha256, sha256],
            ),
      )
      if (deleted < DELETED_PIECES) return
    }
  }

  async close(): Promise<void> {
    await this.#shared.close()
    await this.#copies.close()
    await Promise.all(this.#leaving)
  }
}

function isNamed(records: ReadonlyMap<string, Adapter>, sha256: string): boolean {
  return [...records.values()].some((adapter) => adapter.sha256 === sha256)
}

/** Throws `storage_failed` where a file is not as it was registered. */
export async function assertWhole(folder: FolderAdapters): Promise<void> {
  for (const adapter of folder.records.values()) {
    const path = folder.path(adapter)
    if (await isWhole(path, adapter.sha256)) continue
    throw new PalimpsestError(
      'storage_failed',
      `${path} is not as it was registered: delete adapter '${adapter.id}', or put its file back.`,
    )
  }
}

/** Moves the adapters of a folder, whose files are whole, into tables that are empty. */
export async function fillAdapters(sql: Sql, from: FolderAdapters): Promise<number> {
  for (const adapter of from.records.values())
    await nameFile(sql, adapter.sha256, await sendFile(sql, adapter.sha256, from.path(adapter)))
  await fillShared(sql, TABLE, from.records)
  return from.records.size
}
