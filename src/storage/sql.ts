/** What a column may hold in both SQLite and PostgreSQL. Truth values are 0 and 1, moments milliseconds since the epoch. */
export type Value = string | number | bigint | null | Uint8Array

export type Dialect = 'sqlite' | 'postgres'

/**
 * Statements that SQLite and PostgreSQL understand alike, `?` standing for each value in turn. `doing` completes "so … failed" for the user:
 * "making a key".
 */
export interface Sql {
  readonly dialect: Dialect
  all<Row>(doing: string, text: string, ...values: readonly Value[]): Promise<Row[]>
  /** Number of rows changed. */
  run(doing: string, text: string, ...values: readonly Value[]): Promise<number>
}

export type Statement = readonly [text: string, ...values: readonly Value[]]

/** What a database was told by `notify` on a channel. Hints: any may be lost. */
export interface Listening {
  /** False while the connection is broken, and for good behind a pooler that passes no notifications on. */
  readonly up: boolean
  close(): Promise<void>
}

/** One database: a SQLite file, or a PostgreSQL that many gateways share. */
export interface SqlDatabase extends Sql {
  /** What errors call it: a file, or a host and a name. Never a password. */
  readonly name: string
  /** All that `work` writes lands, or none of it, and what it reads changes under nobody's hand but its own. */
  atOnce<Result>(doing: string, work: (sql: Sql) => Promise<Result>): Promise<Result>
  /** Statements that are known beforehand, all of them or none. Over SQLite nothing of this process comes between them. */
  runAll(doing: string, statements: readonly Statement[]): Promise<void>
  /**
   * The rows of a SELECT without values, all of whose columns are bytes, `fieldBytes` of them in a row and `rows` at most. Absent where `all` costs no more.
   */
  copy?(doing: string, select: string, rows: number, fieldBytes: readonly number[]): Promise<Iterable<readonly Uint8Array[]>>
  /** Absent where one process alone writes. `heard` gets the payloads; an empty one says that some may have been missed. */
  listen?(channel: string, heard: (payload: string) => void): Listening
  close(): Promise<void>
}

/** Milliseconds since the epoch by the database's clock, in a statement: those of the gateways may differ. */
export const DATABASE_NOW: Readonly<Record<Dialect, string>> = {
  sqlite: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
  postgres: 'CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)',
}

const numbered = new Map<string, string>()

/** `?` as PostgreSQL's `$1`, `$2` … Statements are constants, so each is rewritten once. */
export function withNumbers(text: string): string {
  const known = numbered.get(text)
  if (known !== undefined) return known
  let count = 0
  const rewritten = text.replaceAll('?', () => `$${++count}`)
  numbered.set(text, rewritten)
  return rewritten
}
