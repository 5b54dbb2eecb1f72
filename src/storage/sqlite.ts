import { statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import { PalimpsestError } from '../errors.ts'
import { type Database, faultOf } from './database.ts'

/** Less room than this on the disk, and a failed write is blamed on it even where the system names another cause. */
const FULL_BELOW_BYTES = 256 * 1024

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function diskIsFull(file: string): boolean {
  try {
    const disk = statfsSync(dirname(file))
    return disk.bavail * disk.bsize < FULL_BELOW_BYTES
  } catch {
    return false
  }
}

/**
 * A fault of SQLite or the file system as a sentence for the user. `doing` completes "so ... failed": "landing 3 edits".
 */
export function storageError(error: unknown, file: string, doing: string): PalimpsestError {
  if (error instanceof PalimpsestError) return error
  const code = codeOf(error)
  const fault = faultOf(error)
  const said = error instanceof Error ? error.message : String(error)
  const cannotWrite = fault === 'io' || fault === 'cannot_open' || code === 'EIO'
  if (fault === 'full' || code === 'ENOSPC' || code === 'EDQUOT' || (cannotWrite && diskIsFull(file))) {
    return new PalimpsestError(
      'storage_full',
      `The disk that holds ${file} is full, so ${doing} failed and nothing of it was kept. Free some space, then try again.`,
      { cause: error },
    )
  }
  if (fault === 'corrupt' || fault === 'not_a_database') {
    return new PalimpsestError(
      'storage_failed',
      `${file} is damaged (${said}), so ${doing} failed. Put back a backup, or move the file away to start with an empty memory; \`sqlite3 FILE .recover\` may rescue its records.`,
      { cause: error },
    )
  }
  return new PalimpsestError(
    'storage_failed',
    `${file}: ${doing} failed and nothing of it was kept (${said}). Check the folder's permissions and the disk, then try again.`,
    { cause: error },
  )
}

/** Run `work`; its faults come out as storage errors. */
export function guarded<T>(file: string, doing: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw storageError(error, file, doing)
  }
}

/** Makes the database keep a write-ahead log; `durable`: a commit is on the disk when it returns. Changes a file that had none. */
export function useWriteAheadLog(db: Database, durable: boolean): void {
  db.exec('PRAGMA journal_mode = WAL')
  db.exec(`PRAGMA synchronous = ${durable ? 'FULL' : 'NORMAL'}`)
}
