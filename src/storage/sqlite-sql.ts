import { resolve } from 'node:path'
import { Database, type Statement as Prepared } from './database.ts'
import type { Sql, SqlDatabase, Statement, Value } from './sql.ts'
import { guarded, storageError, useWriteAheadLog } from './sqlite.ts'

interface SqliteOptions {
  /** True: a commit is on the disk when it returns. False: it survives the process, and a power cut may take the latest. */
  readonly durable: boolean
  /** How long a statement may wait for another process's; everything else in this process waits with it. */
  readonly busyMs?: number
}

/** Ends with the transaction that is open. */
interface Turn {
  open: Promise<void> | null
  connections: number
}

/** Of each file that this process has open: its connections take turns, else one would block the process in the middle of another's transaction. */
const turns = new Map<string, Turn>()
const IN_MEMORY = ':memory:'

function turnOf(file: string): Turn {
  const turn = turns.get(file) ?? { open: null, connections: 0 }
  if (file !== IN_MEMORY) turns.set(file, turn)
  turn.connections++
  return turn
}

/**
 * A SQLite file behind the interface of databases that answer later. Statements run at once, one after the other; while a transaction is open,
 * all others of this process on that file wait for its end.
 */
export class SqliteSql implements SqlDatabase {
  readonly dialect = 'sqlite'
  readonly name: string
  readonly #db: Database
  readonly #statements = new Map<string, Prepared>()
  readonly #turn: Turn

  /** Throws storage errors. */
  constructor(file: string, { durable, busyMs }: SqliteOptions) {
    this.name = file
    this.#db = guarded(file, 'opening the database', () => {
      const db = new Database(file)
      useWriteAheadLog(db, durable)
      if (busyMs !== undefined) db.exec(`PRAGMA busy_timeout = ${busyMs}`)
      return db
    })
    this.#turn = turnOf(file === IN_MEMORY ? file : resolve(file))
  }

  /** A database that ends with the process. */
  static inMemory(): SqliteSql {
    return new SqliteSql(IN_MEMORY, { durable: false })
  }

  async all<Row>(doing: string, text: string, ...values: readonly Value[]): Promise<Row[]> {
    while (this.#turn.open !== null) await this.#turn.open
    return this.#all<Row>(doing, text, values)
  }

  async run(doing: string, text: string, ...values: readonly Value[]): Promise<number> {
    while (this.#turn.open !== null) await this.#turn.open
    return this.#run(doing, text, values)
  }

  async atOnce<Result>(doing: string, work: (sql: Sql) => Promise<Result>): Promise<Result> {
    while (this.#turn.open !== null) await this.#turn.open
    let done = () => {}
    this.#turn.open = new Promise((resolve) => {
      done = resolve
    })
    try {
      guarded(this.name, doing, () => this.#db.exec('BEGIN IMMEDIATE'))
      const result = await work({
        dialect: this.dialect,
        all: async <Row>(what: string, text: string, ...values: readonly Value[]) => this.#all<Row>(what, text, values),
        run: async (what, text, ...values) => this.#run(what, text, values),
      })
      this.#db.exec('COMMIT')
      return result
    } catch (error) {
      this.#db.rollBack()
      throw storageError(error, this.name, doing)
    } finally {
      this.#turn.open = null
      done()
    }
  }

  async runAll(doing: string, statements: readonly Statement[]): Promise<void> {
    while (this.#turn.open !== null) await this.#turn.open
    guarded(this.name, doing, () =>
      this.#db.atOnce(() => {
        for (const [text, ...values] of statements) this.#prepared(text).run(...values)
      }),
    )
  }

  #prepared(text: string): Prepared {
    const known = this.#statements.get(text) ?? this.#db.prepare(text)
    this.#statements.set(text, known)
    return known
  }

  #all<Row>(doing: string, text: string, values: readonly Value[]): Row[] {
    return guarded(this.name, doing, () => this.#prepared(text).all(...values) as Row[])
  }

  #run(doing: string, text: string, values: readonly Value[]): number {
    return guarded(this.name, doing, () => this.#prepared(text).run(...values).changes)
  }

  async close(): Promise<void> {
    while (this.#turn.open !== null) await this.#turn.open
    if (!this.#db.isOpen) return
    this.#db.close()
    if (--this.#turn.connections === 0) turns.delete(resolve(this.name))
  }
}
