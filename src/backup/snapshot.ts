import { constants, existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, copyFile, cp, lstat, mkdir, mkdtemp, realpath, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, normalize, relative, resolve } from 'node:path'
import * as tar from 'tar'
import { z } from 'zod'
import { writeDurably } from '../adapters/record.ts'
import { PalimpsestError } from '../errors.ts'
import { Database } from '../storage/database.ts'
import { sha256Of } from '../storage/file-hash.ts'
import { copyMemory } from '../storage/folder-copy.ts'
import { lockFolder } from '../storage/folder-lock.ts'
import { copyKeys, type RestoredKeys, settleKeys } from './keys.ts'

const FORMAT = 'palimpsest-snapshot'
const VERSION = 1
const MANIFEST = 'manifest.json'
const DATA = 'data'
const DATABASE = 'palimpsest.db'
const CONFIGURATION = 'configuration'
/** Types of entries, as tar's own names have them. */
const UNPACKED: ReadonlySet<string> = new Set(['File', 'OldFile', 'ContiguousFile', 'Directory'])
const OWNER_ONLY = { folder: 0o700, file: 0o600 } as const

const manifest = z.object({
  format: z.literal(FORMAT),
  version: z.literal(VERSION),
  created: z.iso.datetime(),
  palimpsest: z.string(),
  reason: z.string(),
  files: z.array(z.object({ path: z.string(), bytes: z.number(), sha256: z.string() })),
})
export type Manifest = z.output<typeof manifest>

/** Where a data folder's snapshots are kept unless somewhere else is named: beside it, so that a restored folder does not take them along. */
export function snapshotsDir(dataDir: string): string {
  return `${dataDir}-snapshots`
}

export interface SnapshotOptions {
  readonly dataDir: string
  /** A folder, or a file that ends in `.tar`; must not be there yet. */
  readonly to: string
  /** Files and folders of configuration, by the name they are kept under; those that are not there are passed over. */
  readonly configuration: Readonly<Record<string, string>>
  readonly reason: string
  readonly palimpsest: string
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/**
 * Memory, API keys, adapters, records of hand-offs and configuration, with a manifest of checksums, for their owner alone; also while a gateway
 * runs. Throws `storage_failed`, `storage_full`.
 */
export async function createSnapshot({
  dataDir,
  to,
  configuration,
  reason,
  palimpsest,
  now,
}: SnapshotOptions): Promise<Manifest> {
  if (existsSync(to))
    throw new PalimpsestError('invalid_value', `${to} is there already: name another folder or file.`, { param: 'out' })
  const staging = `${to}.${process.pid}.part`
  try {
    await mkdir(join(staging, DATA), { recursive: true, mode: OWNER_ONLY.folder })
    await copyMemory(dataDir, join(staging, DATA))
    await copyKeys(dataDir, join(staging, DATA))
    await copyAdapters(join(dataDir, 'adapters'), join(staging, DATA, 'adapters'))
    await copyRecords(join(dataDir, 'handoffs'), join(staging, DATA, 'handoffs'))
    for (const [name, path] of Object.entries(configuration))
      if (existsSync(path)) await copyConfiguration(path, join(staging, CONFIGURATION, name))
    const made: Manifest = {
      format: FORMAT,
      version: VERSION,
      created: new Date(now()).toISOString(),
      palimpsest,
      reason,
      files: await Promise.all(filesUnder(staging).map((path) => entryOf(staging, path))),
    }
    await writeDurably(join(staging, MANIFEST), `${JSON.stringify(made, null, 2)}\n`)
    await closeToOthers(staging)
    if (isTar(to)) {
      await writeFile(`${staging}.tar`, '', { mode: OWNER_ONLY.file })
      await tar.create({ file: `${staging}.tar`, cwd: staging }, ['.'])
    }
    await rename(isTar(to) ? `${staging}.tar` : staging, to)
    return made
  } catch (cause) {
    throw failed('Taking the snapshot', cause)
  } finally {
    await rm(staging, { recursive: true, force: true })
    await rm(`${staging}.tar`, { force: true })
  }
}

export interface Restored {
  readonly manifest: Manifest
  /** Where what was there before is kept; null: nothing was. */
  readonly aside: string | null
  /** Which keys are asked for from now on. */
  readonly keys: RestoredKeys
  /** Where the configuration of then is, to be compared with and put back by hand. */
  readonly configuration: string | null
}

/** Two may be restored within a second, each of them keeping aside what it found. */
function freeStamp(dataDir: string, second: string): string {
  let stamp = second
  for (let next = 2; existsSync(`${dataDir}.before-${stamp}`); next++) stamp = `${second}-${next}`
  return stamp
}

/**
 * Puts a snapshot in the place of a data folder that nobody serves. Everything is checked against the manifest before anything is touched;
 * then the folder is renamed aside and the new one takes its name. Throws `folder_in_use`, `snapshot_broken`, `storage_failed`.
 */
export async function restoreSnapshot(from: string, dataDir: string, now: () => number): Promise<Restored> {
  const lock = lockFolder(dataDir, now)
  const staging = await mkdtemp(`${dataDir}.restoring-`)
  try {
    const folder = isTar(from) ? join(staging, 'unpacked') : from
    if (isTar(from)) {
      await mkdir(folder)
      unpack(from, folder)
    }
    const read = await verify(folder)
    const fresh = join(staging, DATA)
    await cp(join(folder, DATA), fresh, { recursive: true, mode: constants.COPYFILE_FICLONE })
    checkDatabase(join(fresh, DATABASE))
    const keys = await settleKeys(dataDir, fresh, now())
    await closeToOthers(fresh)
    const stamp = freeStamp(dataDir, new Date(now()).toISOString().slice(0, 19).replace(/[-:]/g, ''))
    const aside = `${dataDir}.before-${stamp}`
    const hasConfiguration = existsSync(join(folder, CONFIGURATION))
    const configuration = hasConfiguration ? `${dataDir}.configuration-${stamp}` : null
    if (configuration !== null) await cp(join(folder, CONFIGURATION), configuration, { recursive: true })
    await rename(dataDir, aside)
    await rename(fresh, dataDir).catch(async (error) => {
      await rename(aside, dataDir).catch(() => {})
      throw error
    })
    return { manifest: read, aside, configuration, keys }
  } catch (cause) {
    throw failed('Restoring', cause)
  } finally {
    lock.release()
    await rm(staging, { recursive: true, force: true })
  }
}

/** Links lead to what the snapshot's maker does not have, and devices are no files. At once: what is refused has then written its last. */
function unpack(file: string, cwd: string): void {
  try {
    const filter = (path: string, entry: object) => {
      const type = 'type' in entry ? String(entry.type) : 'File'
      if (!UNPACKED.has(type)) throw new Error(`${path} is a ${type}`)
      return true
    }
    tar.extract({ file, cwd, strict: true, sync: true, filter })
  } catch (error) {
    throw broken(`${file} does not unpack: ${error instanceof Error ? error.message : error}`)
  }
}

/** Snapshots of a folder, latest first; `manifest` null: it can't be read. */
export async function listSnapshots(
  dir: string,
): Promise<{ readonly path: string; readonly manifest: Manifest | null; readonly bytes: number }[]> {
  if (!existsSync(dir)) return []
  const names = readdirSync(dir).filter((name) => !name.endsWith('.part') && !name.startsWith('.'))
  const all = await Promise.all(
    names.map(async (name) => {
      const path = join(dir, name)
      if (isTar(path)) return { path, manifest: null, bytes: (await stat(path)).size }
      const read = readManifest(path)
      return { path, manifest: read, bytes: read?.files.reduce((sum, file) => sum + file.bytes, 0) ?? 0 }
    }),
  )
  return all.sort((a, b) => ((a.manifest?.created ?? '') < (b.manifest?.created ?? '') ? 1 : -1))
}

function readManifest(folder: string): Manifest | null {
  try {
    return manifest.parse(JSON.parse(readFileSync(join(folder, MANIFEST), 'utf8')))
  } catch {
    return null
  }
}

/** Every file of the manifest is there with its checksum, and no other. */
async function verify(folder: string): Promise<Manifest> {
  const read = readManifest(folder)
  if (read === null) throw broken(`${folder} has no ${MANIFEST} of a snapshot that this version reads`)
  for (const entry of read.files) await verifyFile(folder, entry)
  const known = new Set(read.files.map(({ path }) => path))
  const stray = filesUnder(folder).find((path) => path !== MANIFEST && !known.has(path))
  if (stray !== undefined) throw broken(`it holds ${stray}, which its manifest does not name`)
  if (!known.has(join(DATA, DATABASE))) throw broken('it holds no memory')
  return read
}

async function verifyFile(folder: string, { path, bytes, sha256 }: Manifest['files'][number]): Promise<void> {
  if (isAbsolute(path) || normalize(path).startsWith('..')) throw broken(`it names '${path}', which lies outside of it`)
  const file = join(folder, path)
  const found = await lstat(file).catch(() => null)
  if (found === null || !found.isFile()) throw broken(`${path} is missing`)
  if (found.size !== bytes) throw broken(`${path} is not as it was: expected ${bytes} bytes, got ${found.size}`)
  const sum = await sha256Of(file)
  if (sum !== sha256) throw broken(`${path} is not as it was: expected sha256 ${sha256.slice(0, 12)}…, got ${sum.slice(0, 12)}…`)
}

function checkDatabase(path: string): void {
  const db = new Database(path, { readOnly: true })
  try {
    const health = db.value('PRAGMA quick_check(1)')
    if (health !== 'ok') throw broken(`its memory is damaged: ${health}`)
  } finally {
    db.close()
  }
}

/** Registered adapters are written once and replaced whole, so a second name for the same file does where the file system has it. */
async function copyAdapters(from: string, to: string): Promise<void> {
  for (const id of folders(from)) {
    await mkdir(join(to, id), { recursive: true })
    for (const file of readdirSync(join(from, id)).filter((name) => !name.endsWith('.part')))
      await copyFile(join(from, id, file), join(to, id, file), constants.COPYFILE_FICLONE)
  }
}

/** Files that links lead to are kept as files; linked folders, which may lead in circles, are not. */
async function copyConfiguration(from: string, to: string): Promise<void> {
  const isKept = async (path: string) => {
    const found = await lstat(path)
    return !found.isSymbolicLink() || (await stat(path).catch(() => null))?.isFile() === true
  }
  await cp(await realpath(from), to, { recursive: true, dereference: true, filter: isKept })
}

/** Keys, prompts and edits are nobody else's on the machine. */
async function closeToOthers(folder: string): Promise<void> {
  await chmod(folder, OWNER_ONLY.folder)
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }))
    if (!entry.isSymbolicLink())
      await chmod(join(entry.parentPath, entry.name), entry.isDirectory() ? OWNER_ONLY.folder : OWNER_ONLY.file)
}

/** Of hand-offs the records; what they worked with can be made again. */
async function copyRecords(from: string, to: string): Promise<void> {
  for (const id of folders(from)) {
    await mkdir(join(to, id), { recursive: true })
    for (const file of ['job.json', 'edits.json'])
      if (existsSync(join(from, id, file))) await copyFile(join(from, id, file), join(to, id, file))
  }
}

function folders(path: string): string[] {
  if (!existsSync(path)) return []
  return readdirSync(path, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() && !entry.name.startsWith('.') ? [entry.name] : [],
  )
}

/** Files below, relative, sorted. */
function filesUnder(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort()
}

async function entryOf(folder: string, path: string) {
  const file = join(folder, path)
  return { path, bytes: (await stat(file)).size, sha256: await sha256Of(file) }
}

export function isTar(path: string): boolean {
  return /\.tar$/i.test(path)
}

function broken(why: string): PalimpsestError {
  return new PalimpsestError('snapshot_broken', `The snapshot can't be used: ${why}. Nothing was changed.`)
}

function failed(what: string, cause: unknown): PalimpsestError {
  if (cause instanceof PalimpsestError) return cause
  const { code, message } = cause as NodeJS.ErrnoException
  const full = code === 'ENOSPC' || code === 'EDQUOT'
  return new PalimpsestError(full ? 'storage_full' : 'storage_failed', `${what} failed: ${message}`, { cause })
}

/** `NAME` of a data folder's own snapshots, or a path. */
export function snapshotPath(nameOrPath: string, dataDir: string): string {
  const own = join(snapshotsDir(dataDir), nameOrPath)
  return basename(nameOrPath) === nameOrPath && existsSync(own) ? own : resolve(dirname(nameOrPath), basename(nameOrPath))
}
