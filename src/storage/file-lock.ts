import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Database, faultOf } from './database.ts'

const POLL_MS = 250
/**
 * Its holder writes the note just after it has the lock. Two that asked at once can both have been refused, and then ask again in step: the
 * loser looks between the two, so one look without a note says nothing.
 */
const LOOKS_WITHOUT_NOTE = 8

interface Note {
  readonly pid: number
  /** Milliseconds since the epoch. */
  readonly since: number
}

function readNote(path: string): Note | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Note
  } catch {
    return null
  }
}

/** A lock held by the system for as long as this process lives: nothing is left to clear away after a kill. Null when another has it. */
function tryLock(path: string): Database | null {
  const db = new Database(path, { timeoutMs: 0 })
  try {
    db.exec('BEGIN EXCLUSIVE')
    return db
  } catch (error) {
    db.close()
    if (faultOf(error) === 'busy') return null
    throw error
  }
}

/**
 * Waits until this process alone holds `path`, across processes and within this one. `onWait` is told once who has it. Returns what
 * releases it. Throws the signal's reason when aborted while waiting. `now`: milliseconds since the epoch.
 */
export async function lockFile(
  path: string,
  signal: AbortSignal,
  now: () => number,
  onWait: (holder: string) => void,
): Promise<() => void> {
  const notePath = `${path}.json`
  let told = false
  for (let tries = 1; ; tries++) {
    signal.throwIfAborted()
    const db = tryLock(path)
    if (db !== null) {
      writeFileSync(notePath, JSON.stringify({ pid: process.pid, since: now() } satisfies Note))
      return () => {
        rmSync(notePath, { force: true })
        db.exec('ROLLBACK')
        db.close()
      }
    }
    const note = readNote(notePath)
    if (!told && (note !== null || tries >= LOOKS_WITHOUT_NOTE)) {
      onWait(note === null ? 'another process' : `process ${note.pid} (since ${new Date(note.since).toISOString()})`)
      told = true
    }
    await sleep(POLL_MS, undefined, { signal }).catch(() => signal.throwIfAborted())
  }
}
