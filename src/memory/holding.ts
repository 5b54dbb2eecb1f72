import { join } from 'node:path'
import { lockFolder } from '../storage/folder-lock.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import { openLogFile } from './log/edit-log.ts'
import type { MemoryOptions } from './memory-store.ts'

/** What a memory holds besides its log, until it is closed. */
export interface Holding {
  readonly database: SqlDatabase
  readonly setUrl: (url: string) => void
  readonly release: () => Promise<void>
}

/** The database that it was given, which others use, too; else the file of its folder, which is then held. Throws `folder_in_use`, storage errors. */
export function hold({ dataDir, now, database: shared }: MemoryOptions): Holding {
  if (shared !== undefined) return { database: shared, setUrl: () => {}, release: async () => {} }
  const lock = lockFolder(dataDir, now)
  try {
    const database = openLogFile(join(dataDir, 'palimpsest.db'))
    const release = async () => {
      await database.close()
      lock.release()
    }
    return { database, setUrl: lock.setUrl, release }
  } catch (error) {
    lock.release()
    throw error
  }
}
