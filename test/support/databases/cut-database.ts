import { PalimpsestError } from '../../../src/errors.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'

/** A database as a gateway sees it whose line to it can be cut. */
export interface CutDatabase extends SqlDatabase {
  cut(): void
  mend(): void
}

/** Closing it leaves `own` open. */
export function cutDatabase(own: SqlDatabase): CutDatabase {
  let isCut = false
  const reached = () => {
    if (isCut) throw new PalimpsestError('storage_unavailable', `${own.name} cannot be reached`)
    return own
  }
  return {
    dialect: own.dialect,
    name: own.name,
    all: async (...asked) => reached().all(...asked),
    run: async (...asked) => reached().run(...asked),
    atOnce: async (...asked) => reached().atOnce(...asked),
    runAll: async (...asked) => reached().runAll(...asked),
    close: async () => {},
    cut: () => {
      isCut = true
    },
    mend: () => {
      isCut = false
    },
  }
}
