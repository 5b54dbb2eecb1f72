import type { Dialect } from '../../storage/sql.ts'

/** What SQLite and PostgreSQL say differently in the ledger's statements. */
interface Differences {
  /** Ends the choice of rows that nobody changes until the transaction ends. */
  readonly held: string
  /** Ends the choice of rows that no other transaction has chosen. */
  readonly unheld: string
  /** The elements of a JSON array, as `value`. */
  readonly elements: string
  /** A number of a piece of feedback `f`, by `nameOfNumber`. */
  readonly number: string
  nameOfNumber(name: string): string
}

export const DIFFERENCES: Readonly<Record<Dialect, Differences>> = {
  sqlite: {
    // A transaction has the whole file.
    held: '',
    unheld: '',
    elements: 'json_each(?)',
    number: 'f.numbers ->> ?',
    nameOfNumber: (name) => `$.${JSON.stringify(name)}`,
  },
  postgres: {
    held: 'FOR UPDATE',
    unheld: 'FOR UPDATE SKIP LOCKED',
    elements: 'json_array_elements(CAST(? AS JSON)) AS element (value)',
    number: 'CAST(CAST(f.numbers AS JSON) ->> CAST(? AS TEXT) AS DOUBLE PRECISION)',
    nameOfNumber: (name) => name,
  },
}
