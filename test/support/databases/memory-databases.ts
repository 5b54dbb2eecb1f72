import { expect, onTestFinished } from 'vitest'
import { PalimpsestError } from '../../../src/errors.ts'
import type { MemoryOptions, MemoryStore } from '../../../src/memory/memory-store.ts'
import type { Dialect, SqlDatabase } from '../../../src/storage/sql.ts'
import { memory as inFolder, scratch } from '../memory-fixture.ts'
import { databases } from './databases.ts'

export interface Memories {
  /** As `memory` of the fixture. A folder opened again is the same memory again. */
  readonly memory: (options?: Partial<MemoryOptions>) => Promise<MemoryStore>
  /** The database of a folder's memory; over SQLite, the file beside the memory that has it open. */
  readonly databaseOf: (dataDir: string) => SqlDatabase
}

/** Memories over one kind of database, for the tests of a suite: call it in `describe`. */
export function memories(dialect: Dialect): Memories {
  const { open, again, close } = databases(dialect)
  const byFolder = new Map<string, SqlDatabase>()
  const known = (dataDir: string): SqlDatabase => {
    const database = byFolder.get(dataDir)
    if (database === undefined) throw new Error(`no memory was opened in ${dataDir}`)
    return database
  }
  return {
    databaseOf: known,
    memory: async ({ dataDir = scratch(), ...options } = {}) => {
      if (dialect === 'sqlite') return inFolder({ dataDir, ...options })
      const first = byFolder.get(dataDir) ?? (await open())
      byFolder.set(dataDir, first)
      const database = again(first)
      onTestFinished(async () => {
        byFolder.delete(dataDir)
        await Promise.all([close(first), close(database)])
      })
      return inFolder({ dataDir, database, ...options })
    },
  }
}

/** Code and parameter of what the work throws. */
export async function codeOf(work: () => unknown): Promise<string> {
  const fault = await (async () => work())().then(
    () => null,
    (error: unknown) => error,
  )
  expect(fault).toBeInstanceOf(PalimpsestError)
  return fault instanceof PalimpsestError ? `${fault.code}:${fault.param}` : 'no error'
}
