import { mkdir, open, rename, rm, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PalimpsestError } from '../errors.ts'
import { faultOf } from '../storage/database.ts'
import { lockFile } from '../storage/file-lock.ts'
import { CATALOG, type CatalogModel, catalogModel } from './catalog.ts'
import { examine, fileState, hashFile, isRemembered, writeSidecar } from './checksum.ts'
import { Meter, type Progress } from './meter.ts'
import { convert } from './packages/packages.ts'
import { type Gathering, gatheredBytes, type Source } from './source.ts'

export interface FetchOptions {
  /** The cache shared by all clones; models lie in its folder `models`. */
  readonly home: string
  /** Tried in order. Empty: only what is in the cache already. */
  readonly sources: readonly Source[]
  /** Told a few times a second while something takes time. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
  /** One line for the user: what is wrong, what is being done about it, who is waited for. */
  readonly log: (line: string) => void
  readonly signal?: AbortSignal | undefined
  /** Read the file and compare its checksum even if it was checked before and has not changed since. */
  readonly verify?: boolean
  readonly catalog?: readonly CatalogModel[]
  /** Milliseconds since the epoch. */
  readonly now?: () => number
  /** Bytes that may still be written in a folder. */
  readonly freeBytes?: (folder: string) => Promise<number>
}

export interface ModelFile {
  readonly path: string
  readonly sha256: string
  readonly bytes: number
  /** What came over the network for it this time. */
  readonly fetchedBytes: number
}

/** One fetch under way. */
interface Task {
  readonly model: CatalogModel
  readonly path: string
  readonly gatherings: readonly Gathering[]
  readonly options: FetchOptions
  readonly signal: AbortSignal
  readonly meter: Meter
}

const NEVER = new AbortController().signal
const count = (n: number) => n.toLocaleString('en-GB')

/** Where a model's file lies in the cache, there or not. */
export function modelPath(home: string, model: CatalogModel): string {
  return join(home, 'models', model.file)
}

async function diskFree(folder: string): Promise<number> {
  const s = await statfs(folder)
  return s.bavail * s.bsize
}

/**
 * The catalogue's model as a checked file in the cache, fetched if need be. Safe with any number of processes at once: one fetches,
 * the others wait. A fetch that was cut off goes on where it stopped.
 * Throws `model_not_found`, `network` (no source had it), `storage_full`, `storage_failed`, or the signal's reason.
 */
export async function ensureModel(name: string, options: FetchOptions): Promise<ModelFile> {
  const model = catalogModel(name, options.catalog ?? CATALOG)
  const path = modelPath(options.home, model)
  const signal = options.signal ?? NEVER
  const meter = new Meter(model.file, options.now ?? Date.now, options.onProgress ?? (() => {}))
  const partPaths = model.convert === 'none' ? [`${path}.part`] : model.ingredients.map((i) => `${path}.${i.path}.part`)
  const gatherings = model.ingredients.map((ingredient, i) => ({ ingredient, partPath: partPaths[i] ?? '' }))
  try {
    if (options.verify === true || !(await isRemembered(path, model)))
      await underLock({ model, path, gatherings, options, signal, meter })
  } catch (error) {
    signal.throwIfAborted()
    throw storageFault(error, dirname(path))
  }
  return { path, sha256: model.sha256, bytes: model.bytes, fetchedBytes: meter.fetchedBytes }
}

async function underLock(task: Task): Promise<void> {
  const { model, path, options, signal } = task
  await mkdir(dirname(path), { recursive: true })
  const release = await lockFile(`${path}.lock`, signal, options.now ?? Date.now, (holder) =>
    options.log(`models/${model.file} is being fetched or checked by ${holder}: waiting for it`),
  )
  try {
    // Another process may have brought it while this one waited.
    if (options.verify !== true && (await isRemembered(path, model))) return
    await mend(task)
    await writeSidecar(path, model.sha256)
  } finally {
    release()
  }
}

/** Leaves the right file at `path`, or throws. */
async function mend(task: Task): Promise<void> {
  const { model, path, options, signal, meter } = task
  meter.begin('check', 0, model.bytes)
  const finding = await examine(path, model, signal, (done) => meter.at(done))
  if (finding.kind === 'good') return
  if (finding.kind === 'wrong') {
    options.log(`${finding.why}: fetching it again`)
    await rm(path)
  }
  await rm(`${path}.json`, { force: true })
  const reasons: string[] = []
  for (const source of options.sources) {
    const failed = await bring(source, task)
    if (failed === null) return
    reasons.push(failed)
    options.log(`${model.file}: ${failed}`)
  }
  throw noSource(task, reasons)
}

/** The model from this source: null, or why it could not be had. Faults of the disk are thrown, since no other source helps. */
async function bring(source: Source, task: Task, again = false): Promise<string | null> {
  const { model, gatherings, options, signal, meter } = task
  const scratch = source.scratchBytes(model)
  if (scratch === null) return `${source.described}: not there`
  try {
    const had = (await gatheredBytes(gatherings)).reduce((a, b) => a + b, 0)
    await checkRoom(scratch, task)
    options.log(
      `Fetching ${model.file} (${count(Math.round(model.bytes / 1e6))} MB) from ${source.described}${had > 0 ? `, of which ${count(had)} bytes are there already` : ''}`,
    )
    await source.gather(model, gatherings, { meter, log: options.log, signal })
    const wrong = await checkParts(task)
    if (wrong === null) return await finish(task)
    // What was there before this try may have been bad: once more, from nothing.
    if (had === 0 || again) return `${source.described}: ${wrong}`
    options.log(`${wrong}: fetching it again from the beginning`)
    return await bring(source, task, true)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof PalimpsestError && (error.code === 'network' || error.code === 'model_file')) return error.message
    throw error
  }
}

/** Removes the parts whose checksum is wrong; null when all are right. */
async function checkParts({ gatherings, signal, meter }: Task): Promise<string | null> {
  let wrong: string | null = null
  meter.begin(
    'check',
    0,
    gatherings.reduce((sum, g) => sum + g.ingredient.bytes, 0),
  )
  let before = 0
  for (const { ingredient, partPath } of gatherings) {
    const start = before
    const sha256 = await hashFile(partPath, signal, (done) => meter.at(start + done))
    before += ingredient.bytes
    if (sha256 === ingredient.sha256) continue
    wrong = `what came as ${ingredient.path} has sha256 ${sha256.slice(0, 12)}…, expected ${ingredient.sha256.slice(0, 12)}…`
    await rm(partPath)
  }
  return wrong
}

/** The checked parts become the model file, at once and whole: nobody ever sees half of it. */
async function finish(task: Task): Promise<null> {
  const { model, path, gatherings, signal } = task
  const parts = gatherings.map(({ partPath }) => partPath)
  switch (model.convert) {
    case 'none':
      await rename(parts[0] ?? '', path)
      break
    case 'minilm':
    case 'e5':
    case 'reader': {
      await convert(model.convert, parts, `${path}.part`)
      const sha256 = await hashFile(`${path}.part`, signal, () => {})
      if (sha256 !== model.sha256)
        throw new PalimpsestError('model_file', `The converted ${model.file} has sha256 ${sha256}, expected ${model.sha256}.`)
      await rename(`${path}.part`, path)
      for (const part of parts) await rm(part)
      break
    }
    default:
      model.convert satisfies never
  }
  await syncFolder(dirname(path))
  return null
}

/** Makes the rename durable. Some systems cannot sync a folder, and lose nothing by it but this assurance. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder).catch(() => null)
  await handle?.sync().catch(() => {})
  await handle?.close()
}

async function checkRoom(scratchBytes: number, { model, path, gatherings, options }: Task): Promise<void> {
  const converted = model.convert === 'none' ? 0 : model.bytes
  const parts = gatherings.map(async (g) => Math.max(0, g.ingredient.bytes - ((await fileState(g.partPath))?.bytes ?? 0)))
  const needed = (await Promise.all(parts)).reduce((a, b) => a + b, scratchBytes + converted)
  const free = await (options.freeBytes ?? diskFree)(dirname(path))
  if (free >= needed) return
  throw new PalimpsestError(
    'storage_full',
    `${dirname(path)} has ${count(free)} bytes free; fetching ${model.file} needs ${count(needed)}. Free some, or set PALIMPSEST_HOME to a folder with room.`,
  )
}

function noSource({ model, path, options }: Task, reasons: readonly string[]): PalimpsestError {
  const why = options.sources.length === 0 ? 'fetching is switched off' : reasons.join(' ')
  return new PalimpsestError(
    'network',
    `${model.file} is not in the cache and could not be fetched. ${why} Bring the file yourself (sha256 ${model.sha256}) and put it at ${path}, or name a model file of your own.`,
  )
}

/** Names what the disk refused, and where. */
function storageFault(error: unknown, folder: string): unknown {
  if (error instanceof PalimpsestError) return error
  const code = faultOf(error) ?? String((error as NodeJS.ErrnoException).code)
  if (/ENOSPC|EDQUOT|^full$/.test(code)) {
    return new PalimpsestError(
      'storage_full',
      `No room left in ${folder}. Free some, or set PALIMPSEST_HOME to a folder with room.`,
      { cause: error },
    )
  }
  if (/EACCES|EROFS|EPERM|ENOTDIR|EEXIST|^cannot_open$|^read_only$/.test(code)) {
    return new PalimpsestError(
      'storage_failed',
      `${folder} cannot be written (${code}). Make it writable, or set PALIMPSEST_HOME to a folder that is.`,
      { cause: error },
    )
  }
  return error
}
