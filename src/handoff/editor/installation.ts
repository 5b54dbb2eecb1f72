import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readFile, rm, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { writeDurably } from '../../adapters/record.ts'
import { PalimpsestError } from '../../errors.ts'
import { PACKAGE_ROOT } from '../../package-root.ts'
import { lockFile } from '../../storage/file-lock.ts'
import type { Editor } from './process.ts'
import { PROTOCOL } from './protocol.ts'

/** The package's own folder; it is run from there, so that it always is of this version. */
export const EDITOR_SOURCE = join(PACKAGE_ROOT, 'editor')
/** What torch and the rest take (measured on Linux: 1.9 GB fetched, 5.4 GB on the disk). */
const DISK_BYTES = 8e9
const FETCHED_BYTES = 1.9e9
const CHECK_MS = 120_000
const SAID_CHARS = 4_000

type Environment = Readonly<Record<string, string | undefined>>

export interface SetupOptions {
  /** The user's cache folder. */
  readonly home: string
  /** The Python 3 that the environment is made with. */
  readonly python: string
  readonly environment: Environment
  readonly progress: (label: string, fetchedBytes: number, ofBytes: number) => void
  readonly onWait: (holder: string) => void
  readonly signal: AbortSignal
  readonly now: () => number
}

const versions = z.looseObject({ protocol: z.string(), torch: z.string(), transformers: z.string(), python: z.string() })
export type Versions = z.output<typeof versions>

/** Pinned by the package, one a line as pip takes them. */
export function requirements(pyproject = readFileSync(join(EDITOR_SOURCE, 'pyproject.toml'), 'utf8')): string[] {
  const list = /^dependencies = \[(.*?)^\]/ms.exec(pyproject)?.[1] ?? ''
  return [...list.matchAll(/"([^"]+)"/g)].map(([, one]) => one as string)
}

/** One for each set of requirements: another version of the editor gets its own, and this one stays whole. */
export function venvPath(home: string): string {
  const hash = createHash('sha256').update(requirements().join('\n')).digest('hex').slice(0, 12)
  return join(home, 'handoff', `venv-${hash}`)
}

const pythonOf = (venv: string): string =>
  process.platform === 'win32' ? join(venv, 'Scripts', 'python.exe') : join(venv, 'bin', 'python')
const readyFile = (venv: string): string => join(venv, 'palimpsest-ready.json')

/** The editor that a hand-off runs: in `given`, or in the environment that `setUp` made; null where it has made none. */
export function installedEditor(home: string, given: string | undefined, environment: Environment): Editor | null {
  const venv = venvPath(home)
  if (given === undefined && !existsSync(readyFile(venv))) return null
  return { python: given ?? pythonOf(venv), source: EDITOR_SOURCE, environment }
}

/** What an editor says of itself; throws `handoff_failed` where it does not import, or speaks another protocol. */
export async function checkEditor({ python, source, environment }: Editor): Promise<Versions> {
  const script =
    'import json, torch, transformers, peft, safetensors, gguf; from palimpsest_editor.__main__ import versions; print(json.dumps(versions()))'
  const env = { ...environment, ...(source !== null && { PYTHONPATH: source }) }
  const said = await new Promise<string>((resolve, reject) => {
    execFile(python, ['-c', script], { env, timeout: CHECK_MS }, (error, stdout, stderr) => {
      const last = stderr.trim().split('\n').at(-1) || error?.message
      if (error === null) resolve(stdout.trim().split('\n').at(-1) ?? '')
      else reject(new PalimpsestError('handoff_failed', `The parameter editor does not import in ${python}: ${last}`))
    })
  })
  const read = versions.safeParse(JSON.parse(said))
  if (read.data?.protocol === String(PROTOCOL)) return read.data
  throw new PalimpsestError(
    'handoff_failed',
    `The parameter editor in ${python} speaks another protocol than ${PROTOCOL}: ${said.slice(0, 200)}`,
  )
}

/** Makes the environment, or what of it is missing; verified by importing it. Throws `handoff_failed`, `storage_full`. */
export async function setUp(
  options: SetupOptions,
): Promise<{ readonly venv: string; readonly versions: Versions; readonly made: boolean }> {
  const { home, python, environment, signal, now, onWait } = options
  const venv = venvPath(home)
  const editor: Editor = { python: pythonOf(venv), source: EDITOR_SOURCE, environment }
  await mkdir(dirname(venv), { recursive: true })
  const release = await lockFile(`${venv}.lock`, signal, now, onWait)
  try {
    if (existsSync(readyFile(venv))) {
      const found = await checkEditor(editor).catch(() => null)
      if (found !== null) return { venv, versions: found, made: false }
      await rm(readyFile(venv), { force: true })
    }
    await checkDisk(dirname(venv))
    if (!existsSync(pythonOf(venv))) await run(python, ['-m', 'venv', venv], options, () => {})
    await install(pythonOf(venv), options)
    const found = await checkEditor(editor)
    await writeDurably(readyFile(venv), `${JSON.stringify(found, null, 2)}\n`)
    return { venv, versions: found, made: true }
  } finally {
    release()
  }
}

/** One requirement after the other: what is there already is not fetched again, so a second attempt goes on where the first ended. */
async function install(python: string, options: SetupOptions): Promise<void> {
  const pip = ['-m', 'pip', 'install', '--no-input', '--disable-pip-version-check', '--progress-bar', 'off']
  let fetched = 0
  for (const requirement of requirements()) {
    options.progress(`installing ${requirement}`, fetched, FETCHED_BYTES)
    await run(python, [...pip, requirement], options, (line) => {
      const [, name, size, unit] = /^\s*Downloading (\S+) \(([\d.]+) (kB|MB|GB)\)/.exec(line) ?? []
      if (name === undefined) {
        if (line.startsWith('Installing collected packages')) options.progress(`unpacking ${requirement}`, fetched, FETCHED_BYTES)
        return
      }
      fetched += Number(size) * { kB: 1e3, MB: 1e6, GB: 1e9 }[unit as 'kB' | 'MB' | 'GB']
      options.progress(`fetching ${name.split('-')[0]}`, fetched, Math.max(FETCHED_BYTES, fetched))
    })
  }
}

async function checkDisk(folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  const free = bavail * bsize
  if (free >= DISK_BYTES) return
  throw new PalimpsestError(
    'storage_full',
    `The parameter editor takes up to ${DISK_BYTES / 1e9} GB, and ${(free / 1e9).toFixed(1)} GB are free in ${folder}. Free some, or set PALIMPSEST_HOME to a folder with room.`,
  )
}

function run(
  command: string,
  args: readonly string[],
  { environment, signal }: SetupOptions,
  onLine: (line: string) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: environment, signal, stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-SAID_CHARS)
        for (const line of text.split('\n')) onLine(line)
      })
    child.once('error', (cause) => reject(signal.aborted ? signal.reason : failed(command, cause.message)))
    child.once('close', (code) => (code === 0 ? resolve() : reject(failed([command, ...args].join(' '), said))))
  })
}

function failed(command: string, said: string): PalimpsestError {
  if (/No space left on device|Disk quota exceeded/.test(said))
    return new PalimpsestError(
      'storage_full',
      'No room left on the disk. Free some, or set PALIMPSEST_HOME to a folder with room, and run it again.',
    )
  const lines = said.split('\n').filter((line) => line.trim() !== '')
  const last = lines.filter((line) => /^(?:ERROR|Error)/.test(line)).at(-1) ?? lines.at(-1) ?? 'it said nothing'
  const hint = /ensurepip|No module named venv/.test(said)
    ? ' Debian: apt install python3-venv.'
    : ' Run it again: it goes on where it ended.'
  return new PalimpsestError('handoff_failed', `${command} failed: ${last.trim()}.${hint}`)
}

/** What the environment was found to hold when it was made; null: there is none. */
export async function recordedVersions(home: string): Promise<Versions | null> {
  try {
    return versions.parse(JSON.parse(await readFile(readyFile(venvPath(home)), 'utf8')))
  } catch {
    return null
  }
}
