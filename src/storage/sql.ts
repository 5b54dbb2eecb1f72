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

/** One database: a SQLite file, or a PostgreSQL that many gateways share. */
export interface SqlDatabase extends Sql {
  /** What errors call it: a file, or a host and a name. Never a password. */
  readonly name: string
  /** All that `work` writes lands, or none of it, and what it reads changes under nobody's hand but its own. */
  atOnce<Result>(doing: string, work: (sql: Sql) => Promise<Result>): Promise<Result>
  close(): Promise<void>
}

/** Milliseconds since the epoch by the database's clock, as an expression: gateways' own clocks may differ. */
export function clockMs({ dialect }: Pick<Sql, 'dialect'>): string {
  return dialect === 'postgres'
    ? '(extract(epoch FROM clock_timestamp()) * 1000)::bigint'
    : "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
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
