import { chmodSync, closeSync, openSync, statSync } from 'node:fs'
import { backup, DatabaseSync } from '@photostructure/sqlite'
import type { Value } from './sql.ts'

/** A prepared statement whose rows are `Row`s: the caller's SQL says so. */
export interface Statement<Row = unknown> {
  run(...values: readonly (Value | Readonly<Record<string, Value>>)[]): { readonly changes: number }
  get(...values: readonly Value[]): Row | undefined
  all(...values: readonly Value[]): Row[]
}

/** The package's, whose rows end with a fault once the statement is collected as garbage, though they are still read. */
interface RowStatement<Row> extends Statement<Row> {
  iterate(): IterableIterator<Row>
}

interface OpenOptions {
  /** The file must be there, and is left as it is. */
  readonly readOnly?: boolean
  /** How long a statement waits for another connection's. */
  readonly timeoutMs?: number
}

const TIMEOUT_MS = 5_000
const IN_MEMORY = ':memory:'
const OWNER_ONLY = 0o600
const OTHERS = 0o077

/**
 * Makes the file where it is not there, for its owner alone; SQLite gives its log the rights of the file that it finds. One that is there is
 * not opened: closing it would let go of the locks that this process holds on it.
 */
export function makePrivate(file: string): void {
  try {
    const mode = statSync(file, { throwIfNoEntry: false })?.mode
    if (mode === undefined) closeSync(openSync(file, 'a', OWNER_ONLY))
    else if ((mode & OTHERS) !== 0) chmodSync(file, OWNER_ONLY)
  } catch {
    // Somebody else's, who shares it; or a place where none can be, which SQLite then says.
  }
}
/** SQLite's result codes carry more than the kind of fault in their upper bytes. */
const PRIMARY = 0xff

/** https://www.sqlite.org/rescode.html */
const CODES = { 5: 'busy', 8: 'read_only', 10: 'io', 11: 'corrupt', 13: 'full', 14: 'cannot_open', 26: 'not_a_database' } as const
type Fault = (typeof CODES)[keyof typeof CODES]

/** What SQLite found wrong, where it is a fault that callers tell apart. */
export function faultOf(error: unknown): Fault | null {
  const code = error instanceof Error && 'errcode' in error ? Number(error.errcode) & PRIMARY : 0
  return CODES[code as keyof typeof CODES] ?? null
}

/**
 * One open SQLite file: the API of Node's own `node:sqlite`, which not every Node that we run on has, from a package that carries its
 * binaries. docs/decisions/0013-package.md
 */
export class Database {
  readonly #db: InstanceType<typeof DatabaseSync>
  readonly #read = new Set<Statement>()

  constructor(file: string, { readOnly = false, timeoutMs = TIMEOUT_MS }: OpenOptions = {}) {
    if (!readOnly && file !== IN_MEMORY) makePrivate(file)
    this.#db = new DatabaseSync(file, { readOnly, timeout: timeoutMs })
  }

  get isOpen(): boolean {
    return this.#db.isOpen
  }

  exec(sql: string): void {
    this.#db.exec(sql)
  }

  prepare<Row = unknown>(sql: string): Statement<Row> {
    return this.#db.prepare(sql) as Statement<Row>
  }

  /** One row after another, which are never all in memory. */
  *rows<Row>(sql: string): Generator<Row> {
    const statement = this.#db.prepare(sql) as RowStatement<Row>
    this.#read.add(statement)
    try {
      yield* statement.iterate()
    } finally {
      this.#read.delete(statement)
    }
  }

  /** First column of the first row; undefined where there is none. */
  value(sql: string, ...values: readonly Value[]): unknown {
    const row = this.prepare<Readonly<Record<string, unknown>>>(sql).get(...values)
    return row === undefined ? undefined : Object.values(row)[0]
  }

  /** All that `work` writes lands, or none of it. The file is reserved before `work` reads. */
  atOnce<Result>(work: () => Result): Result {
    this.exec('BEGIN IMMEDIATE')
    try {
      const result = work()
      this.exec('COMMIT')
      return result
    } catch (error) {
      this.rollBack()
      throw error
    }
  }

  /** Some faults have rolled back already. */
  rollBack(): void {
    if (this.#db.isTransaction) this.exec('ROLLBACK')
  }

  /** A whole copy, also while others write. */
  async copyTo(file: string): Promise<void> {
    await backup(this.#db, file)
  }

  close(): void {
    if (this.#db.isOpen) this.#db.close()
  }
}
