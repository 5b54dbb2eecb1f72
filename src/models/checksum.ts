import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, rename, stat, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'

/** What a cached file must be. */
export interface Expected {
  readonly bytes: number
  readonly sha256: string
}

/** Note beside a checked file, so that the next start need not read a gigabyte: valid while length and time of change are the same. */
interface Sidecar {
  readonly sha256: string
  readonly bytes: number
  readonly mtimeMs: number
}

export type Finding = { readonly kind: 'good' } | { readonly kind: 'absent' } | { readonly kind: 'wrong'; readonly why: string }

const HASH_CHUNK_BYTES = 4 * 1024 * 1024

/** Length and time of change of a file; null when there is none. */
export async function fileState(path: string): Promise<{ bytes: number; mtimeMs: number } | null> {
  try {
    const s = await stat(path)
    return { bytes: s.size, mtimeMs: s.mtimeMs }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

async function readSidecar(path: string): Promise<Partial<Sidecar>> {
  try {
    return JSON.parse(await readFile(`${path}.json`, 'utf8')) as Partial<Sidecar>
  } catch {
    return {}
  }
}

export async function writeSidecar(path: string, sha256: string): Promise<void> {
  const state = await fileState(path)
  if (state === null) return
  const note: Sidecar = { sha256, bytes: state.bytes, mtimeMs: state.mtimeMs }
  await writeFile(`${path}.json.tmp`, `${JSON.stringify(note)}\n`)
  await rename(`${path}.json.tmp`, `${path}.json`)
}

/** True when the file is there, as long as expected, and unchanged since it was last checked. */
export async function isRemembered(path: string, expected: Expected): Promise<boolean> {
  const state = await fileState(path)
  if (state === null || state.bytes !== expected.bytes) return false
  const note = await readSidecar(path)
  return note.sha256 === expected.sha256 && note.bytes === state.bytes && note.mtimeMs === state.mtimeMs
}

/** sha256 of a file, hex. `onBytes` gets the bytes read so far. */
export async function hashFile(path: string, signal: AbortSignal, onBytes: (done: number) => void): Promise<string> {
  const hash = createHash('sha256')
  let done = 0
  for await (const chunk of createReadStream(path, { highWaterMark: HASH_CHUNK_BYTES, signal })) {
    hash.update(chunk as Buffer)
    done += (chunk as Buffer).length
    onBytes(done)
  }
  return hash.digest('hex')
}

/** Reads the file as far as needed to say whether it is the expected one. */
export async function examine(
  path: string,
  expected: Expected,
  signal: AbortSignal,
  onBytes: (done: number) => void,
): Promise<Finding> {
  const state = await fileState(path)
  if (state === null) return { kind: 'absent' }
  const shown = `models/${basename(path)}`
  if (state.bytes !== expected.bytes) {
    const [is, should] = [state.bytes.toLocaleString('en-GB'), expected.bytes.toLocaleString('en-GB')]
    return { kind: 'wrong', why: `${shown} is ${is} bytes, expected ${should}` }
  }
  const sha256 = await hashFile(path, signal, onBytes)
  if (sha256 === expected.sha256) return { kind: 'good' }
  return {
    kind: 'wrong',
    why: `${shown} has the right length but sha256 ${sha256.slice(0, 12)}…, expected ${expected.sha256.slice(0, 12)}…`,
  }
}
