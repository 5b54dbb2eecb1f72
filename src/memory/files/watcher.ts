import { createHash } from 'node:crypto'
import { existsSync, lstatSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { basename, extname, join, relative, sep } from 'node:path'
import { type FSWatcher, watch as watchFolder } from 'chokidar'
import type { Edit } from '../../edit/edit.ts'
import { PalimpsestError, type Problem } from '../../errors.ts'
import type { Logger } from '../../logger.ts'
import type { MemoryStore } from '../memory-store.ts'

export interface FolderOptions {
  /** Searched with its subfolders; names that begin with a dot are passed over. Need not exist. */
  readonly dir: string
  readonly memory: Pick<MemoryStore, 'sync' | 'sources'>
  /** A file's content to edits; throws `invalid_batch` with the problems found in `file`. */
  readonly parse: (content: Uint8Array, file: string) => readonly Edit[]
  /** Follow changes on disk. */
  readonly watch: boolean
  readonly log: Logger
}

/** What one file of the folder said when it was last read without a fault. */
export interface FolderCount {
  /** Path with the folder's own name first, `edits/starter.yaml`: the source that its edits carry in the log. */
  readonly file: string
  readonly edits: number
}

export interface EditFolder {
  /** Faults of files as they now are on disk; the edits that landed from such a file earlier stay as they were. */
  problems(): readonly Problem[]
  /** Sorted by file. */
  counts(): readonly FolderCount[]
  /** Reads what has changed, after whoever reads already; the watcher calls it. */
  reload(): Promise<void>
  close(): Promise<void>
}

const ENDINGS: ReadonlySet<string> = new Set(['.jsonl', '.ndjson', '.json', '.yaml', '.yml', '.csv', '.txt'])
/** A file that is still growing is left alone until it has kept its size for this long. */
const SETTLED_MS = 100
const POLL_MS = 25
const BROKEN = 'is a link to nothing: remove it, or put back what it leads to'
/** Problems of one file that the log lists; `problems()` has them all. */
const LOGGED_PROBLEMS = 20

/**
 * Keeps the memory in step with a folder of edit files. Each file is one source: edits new in it are landed, edits that vanish from it are
 * withdrawn, and with the file go its edits. A file with any fault changes nothing.
 */
export async function openFolder({ dir, memory, parse, watch, log }: FolderOptions): Promise<EditFolder> {
  const digests = new Map<string, string>()
  const counts = new Map<string, number>()
  const faults = new Map<string, readonly Problem[]>()
  const sourceOf = (path: string) => `${basename(dir)}/${relative(dir, path).split(sep).join('/')}`

  /** Runs one file's work; what it throws is kept as the file's problems, for a bad file must stop neither the others nor the gateway. */
  const attempt = async (source: string, work: () => Promise<void>) => {
    try {
      await work()
      faults.delete(source)
    } catch (error) {
      const found = problemsOf(error, source)
      faults.set(source, found)
      for (const problem of found.slice(0, LOGGED_PROBLEMS)) log.warn({}, `edits not taken: ${describeProblem(problem)}`)
      if (found.length > LOGGED_PROBLEMS) log.warn({}, `${source}: ${found.length - LOGGED_PROBLEMS} more problems`)
    }
  }

  const read = (path: string, source: string) =>
    attempt(source, async () => {
      const content = readFileSync(path)
      const digest = createHash('sha256').update(content).digest('base64')
      if (digests.get(source) === digest) return
      const edits = parse(content, source)
      const { unchanged, ...changed } = await memory.sync(source, edits)
      digests.set(source, digest)
      counts.set(source, edits.length)
      const said = Object.entries(changed).map(([outcome, ids]) => `${ids.length} ${outcome}`)
      log.info({}, `${source}: ${said.join(', ')}, ${unchanged} unchanged`)
    })

  const forget = (source: string) =>
    attempt(source, async () => {
      const { withdrawn } = await memory.sync(source, [])
      digests.delete(source)
      counts.delete(source)
      log.info({}, `${source} is gone: ${withdrawn.length} edits withdrawn`)
    })

  const readAll = async () => {
    const paths = new Map<string, string>()
    const found: Found = { files: [], broken: [], linked: [] }
    try {
      collect(dir, found, new Set())
      for (const path of found.files) paths.set(sourceOf(path), path)
    } catch (error) {
      // Not to be read is not the same as empty: nothing is withdrawn.
      faults.set(basename(dir), problemsOf(error, basename(dir)))
      log.warn({}, `the folder of edits can't be read: ${(error as Error).message}`)
      return
    }
    faults.delete(basename(dir))
    watcher?.add(found.linked)
    for (const source of new Set([...memory.sources(), ...digests.keys()])) if (!paths.has(source)) await forget(source)
    for (const source of faults.keys()) if (!paths.has(source)) faults.delete(source)
    for (const path of found.broken) faults.set(sourceOf(path), [{ file: sourceOf(path), field: null, message: BROKEN }])
    for (const [source, path] of paths) await read(path, source)
  }
  let watcher: FSWatcher | undefined
  let reading = Promise.resolve()
  const reload = () => {
    reading = reading.then(readAll)
    return reading
  }

  watcher = watch && existsSync(dir) ? await watched(dir, reload, log) : undefined
  await reload()
  return {
    problems: () => [...faults.values()].flat(),
    counts: () => [...counts].map(([file, edits]) => ({ file, edits })).sort((a, b) => (a.file < b.file ? -1 : 1)),
    reload,
    close: async () => {
      await watcher?.close()
      await reading
    },
  }
}

/** `file:line: field: message`, leaving out what is not known. */
export function describeProblem({ file, line, field, message }: Problem): string {
  const place = [file, line].filter((part) => part !== undefined).join(':')
  return [place, field, message].filter((part) => part !== '' && part !== null).join(': ')
}

/** Watching begins before the first reading, so that no change falls between them. */
async function watched(dir: string, reload: () => Promise<void>, log: Logger): Promise<FSWatcher> {
  const watcher = watchFolder(dir, {
    ignored: (path, stats) =>
      path !== dir && (basename(path).startsWith('.') || (stats?.isFile() === true && !ENDINGS.has(extname(path).toLowerCase()))),
    ignoreInitial: true,
    // Links may lead to nothing or in a circle, at which the watcher would wait or end the process: where they lead is watched by its own path.
    followSymlinks: false,
    awaitWriteFinish: { stabilityThreshold: SETTLED_MS, pollInterval: POLL_MS },
  })
  watcher.on('all', () => void reload())
  watcher.on('error', (error) => log.warn({ err: error }, `${dir} is no longer watched`))
  await new Promise<void>((resolve) => {
    watcher.once('ready', resolve)
    watcher.once('error', () => resolve())
  })
  return watcher
}

interface Found {
  readonly files: string[]
  /** Links to nothing. */
  readonly broken: string[]
  /** Where other links lead. */
  readonly linked: string[]
}

/**
 * In a fixed order, so that of two files that say different things of one fact the later name wins on every machine. Linked folders are
 * searched, each folder once, since links may lead in a circle.
 */
function collect(dir: string, found: Found, seen: Set<string>): void {
  if (!existsSync(dir)) return
  const real = realpathSync(dir)
  if (seen.has(real)) return
  seen.add(real)
  const names = readdirSync(dir).filter((name) => !name.startsWith('.'))
  for (const name of names.sort((a, b) => (a < b ? -1 : 1))) {
    const path = join(dir, name)
    const stats = statSync(path, { throwIfNoEntry: false })
    if (stats !== undefined && lstatSync(path).isSymbolicLink()) found.linked.push(realpathSync(path))
    if (stats === undefined) found.broken.push(path)
    else if (stats.isDirectory()) collect(path, found, seen)
    else if (stats.isFile() && ENDINGS.has(extname(name).toLowerCase())) found.files.push(path)
  }
}

function problemsOf(error: unknown, file: string): readonly Problem[] {
  if (error instanceof PalimpsestError && error.problems.length > 0)
    return error.problems.map((problem) => ({ file, ...problem }))
  return [{ file, field: null, message: error instanceof Error ? error.message : String(error) }]
}
