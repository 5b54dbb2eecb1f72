import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PalimpsestError } from '../errors.ts'
import { Database, faultOf } from './database.ts'
import { guarded, storageError } from './sqlite.ts'

/** Who holds a data folder. */
export interface Holder {
  readonly pid: number
  /** Milliseconds since the epoch. */
  readonly since: number
  /** Where it serves; null while it starts, or when it serves nothing (the command line at work). */
  readonly url: string | null
}

/** A folder held until `release`. */
export interface FolderLock {
  setUrl(url: string): void
  release(): void
}

/** Held exclusively for as long as a gateway lives; the system drops the lock however the process ends. Never opened but through SQLite. */
const LOCK_FILE = 'gateway.lock'
const HOLDER_FILE = 'gateway.json'
/** Time for another process that merely looks who holds the folder to finish. */
const LOOK_MS = 250

function readHolder(dataDir: string): Holder | null {
  try {
    return JSON.parse(readFileSync(join(dataDir, HOLDER_FILE), 'utf8')) as Holder
  } catch {
    return null
  }
}

function writeHolder(dataDir: string, holder: Holder): void {
  const file = join(dataDir, HOLDER_FILE)
  try {
    writeFileSync(`${file}.tmp`, `${JSON.stringify(holder)}\n`)
    renameSync(`${file}.tmp`, file)
  } catch (error) {
    throw storageError(error, file, 'noting who holds the data folder')
  }
}

function inUse(dataDir: string): PalimpsestError {
  const holder = readHolder(dataDir)
  const who =
    holder === null
      ? 'another process'
      : `process ${holder.pid}, since ${new Date(holder.since).toISOString()}${holder.url === null ? '' : `, serving at ${holder.url}`}`
  return new PalimpsestError(
    'folder_in_use',
    `The data folder ${dataDir} is in use by ${who}. Stop it, or choose another data folder for this one.`,
  )
}

/**
 * The process that holds the folder, or null. A note left behind by a killed process does not count: the lock is what is asked.
 */
export function holder(dataDir: string): Holder | null {
  const file = join(dataDir, LOCK_FILE)
  if (!existsSync(file)) return null
  const db = new Database(file, { readOnly: true, timeoutMs: 0 })
  try {
    db.prepare('SELECT count(*) FROM sqlite_master').get()
    return null
  } catch (error) {
    if (faultOf(error) !== 'busy') throw storageError(error, file, 'looking who holds the data folder')
    return readHolder(dataDir)
  } finally {
    db.close()
  }
}

/** Takes the folder, creating it if need be; throws `folder_in_use` naming the holder. `now`: milliseconds since the epoch. */
export function lockFolder(dataDir: string, now: () => number): FolderLock {
  const file = join(dataDir, LOCK_FILE)
  const db = guarded(file, 'taking the data folder', () => {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 })
    return new Database(file, { timeoutMs: LOOK_MS })
  })
  const me = { pid: process.pid, since: now(), url: null }
  try {
    db.exec('BEGIN EXCLUSIVE')
    writeHolder(dataDir, me)
  } catch (error) {
    db.close()
    throw faultOf(error) === 'busy' ? inUse(dataDir) : storageError(error, file, 'taking the data folder')
  }
  return {
    setUrl: (url) => writeHolder(dataDir, { ...me, url }),
    release: () => {
      if (!db.isOpen) return
      rmSync(join(dataDir, HOLDER_FILE), { force: true })
      db.exec('ROLLBACK')
      db.close()
    },
  }
}
