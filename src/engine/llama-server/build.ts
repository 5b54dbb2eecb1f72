import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, copyFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { cpus, devNull, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PalimpsestError } from '../../errors.ts'
import { lockFile } from '../../storage/file-lock.ts'

/**
 * llama.cpp from the source that node-llama-cpp brings along, so that what is built is the release whose prebuilt addon is installed, and
 * nothing is downloaded: the addon with OpenMP (the prebuilt one has none, and its threads spin while they wait), and `llama-server`.
 */

/** What the build of our own differs by; getLlama takes a build with these options where there is one, else the prebuilt addon. */
export const ADDON_OPTIONS = { GGML_OPENMP: 'ON' } as const

export interface BuildOptions {
  /** The user's cache folder. */
  readonly home: string
  readonly threads: number
  /** For the compiler and cmake; absent: this process's. */
  readonly environment?: Environment
  /** Share of the work that is done, 0 to 1. */
  readonly onProgress: (done: number) => void
  /** What the programs print. */
  readonly onText?: (text: string) => void
  readonly signal: AbortSignal
}

type Environment = Readonly<Record<string, string | undefined>>

/** A program that a build needs, and what to do where it is missing. */
export interface BuildTool {
  readonly names: readonly string[]
  readonly mend: string
}

const BUILD_TOOLS: readonly BuildTool[] = [
  { names: ['cmake'], mend: 'Debian: apt install cmake; anywhere: pip install cmake; macOS: brew install cmake.' },
  { names: ['c++', 'g++', 'clang++'], mend: 'Debian: apt install g++; macOS: xcode-select --install.' },
  { names: ['make', 'ninja'], mend: 'Debian: apt install make; macOS: xcode-select --install.' },
  { names: ['git'], mend: 'Debian: apt install git; macOS: xcode-select --install.' },
]

const SOURCE = join(dirname(fileURLToPath(import.meta.resolve('node-llama-cpp'))), '..', 'llama')
const SAID_CHARS = 4_000
const ASK_MS = 10_000

/** Of llama.cpp, as node-llama-cpp names it: "v0.5.0". */
export function llamaRelease(): string {
  return (JSON.parse(readFileSync(join(SOURCE, 'binariesGithubRelease.json'), 'utf8')) as { release: string }).release
}

/** Its model and, where the system tells, what it can: virtual machines of one model can differ in that. */
function processorName(): string {
  const model = cpus()[0]?.model ?? ''
  if (process.platform !== 'linux') return model
  const [features = ''] = /^(?:flags|Features)\s*:.*$/m.exec(readFileSync('/proc/cpuinfo', 'utf8')) ?? []
  return `${model}\n${features}`
}

/**
 * Where a processor can (AVX512-FP16), llama.cpp sums products of halves in halves. Qwen2.5 1.5B answers rubbish then (docs/LOG.md, 2026-11-30),
 * so it is built without. The prebuilt addon, too, sums in single precision.
 */
const NO_HALF_SUMS = '-mno-avx512fp16'

/** Where `llama-server` is kept. It is built for the processor it is built on, and with our flag, so both are part of the name. */
export function serverPath(home: string): string {
  const processor = createHash('sha256').update(processorName()).update(NO_HALF_SUMS).digest('hex').slice(0, 8)
  return join(home, 'engines', `llama-server-${llamaRelease()}-${process.platform}-${process.arch}-${processor}`, 'llama-server')
}

export function hasServer(home: string): boolean {
  return existsSync(serverPath(home))
}

/** Those of the programs that a build needs which do not run here. */
export async function lackingTools(environment?: Environment): Promise<readonly BuildTool[]> {
  const works = (name: string, args: readonly string[]) => runs(name, args, environment)
  // Where Apple's tools are not installed, asking one of them opens a window.
  if (process.platform === 'darwin' && !(await works('xcode-select', ['-p']))) return BUILD_TOOLS
  const found = await Promise.all(
    BUILD_TOOLS.map(async ({ names }) => (await Promise.all(names.map((name) => works(name, ['--version'])))).includes(true)),
  )
  return BUILD_TOOLS.filter((_, i) => found[i] === false)
}

/** Whether a command ends well. */
export function runs(command: string, args: readonly string[], environment: Environment | undefined): Promise<boolean> {
  return new Promise((resolve) => {
    execFile(command, args, { env: environment, timeout: ASK_MS }, (error) => resolve(error === null))
  })
}

/** Where the one build at a time of this cache folder is had; resolves to what ends the turn. `onWait` is told who has it. */
export async function buildTurn(home: string, signal: AbortSignal, onWait: (holder: string) => void): Promise<() => void> {
  await mkdir(join(home, 'engines'), { recursive: true })
  return lockFile(join(home, 'engines', 'build.lock'), signal, Date.now, onWait)
}

/** Of builds nobody asked for, and of the change-over to what they built: why the last one failed. */
export interface BuildFault {
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly why: string
}

/** For so long after a fault nobody tries again unasked. */
const FAULT_MS = 24 * 3_600_000

const faultPath = (home: string) => join(dirname(serverPath(home)), 'fault.json')

/** Of this release, within a day. */
export function recentFault(home: string, now: number): BuildFault | null {
  try {
    const fault = JSON.parse(readFileSync(faultPath(home), 'utf8')) as BuildFault
    return now - fault.at < FAULT_MS ? fault : null
  } catch {
    return null
  }
}

export async function noteFault(home: string, fault: BuildFault): Promise<void> {
  await mkdir(dirname(faultPath(home)), { recursive: true })
  await writeFile(faultPath(home), JSON.stringify(fault))
}

/** Written once a build is whole: asking for one that is under way would wait for its end. */
const ADDON_DONE = join(SOURCE, 'localBuilds', `palimpsest${NO_HALF_SUMS}.done`)

export function hasAddon(): boolean {
  return existsSync(ADDON_DONE)
}

/** Builds node-llama-cpp's addon into that package's own folder of local builds. Throws `engine_failed` with the compiler's last words. */
export async function buildAddon(
  how: Omit<BuildOptions, 'home' | 'threads'> & { readonly environment: Environment },
): Promise<void> {
  const options = { gpu: false, build: 'forceRebuild', cmakeOptions: ADDON_OPTIONS, progressLogs: true }
  const script = `const { getLlama } = await import(${JSON.stringify(import.meta.resolve('node-llama-cpp'))})
    await (await getLlama(${JSON.stringify(options)})).dispose()
    process.exit(0)`
  await rm(ADDON_DONE, { force: true })
  const and = (flags = '') => `${flags} ${NO_HALF_SUMS}`.trim()
  const { CFLAGS, CXXFLAGS } = how.environment
  const flags = (await knowsFlag(how.environment)) ? { CFLAGS: and(CFLAGS), CXXFLAGS: and(CXXFLAGS) } : {}
  await run(process.execPath, ['--input-type=module', '-e', script], { ...how, environment: { ...how.environment, ...flags } })
  await writeFile(ADDON_DONE, '')
}

/** Compilers of other processors know no such flag, nor need it. */
function knowsFlag(environment: Environment | undefined): Promise<boolean> {
  return runs(environment?.CXX ?? 'c++', [NO_HALF_SUMS, '-E', '-x', 'c++', devNull], environment)
}

const CMAKE_FLAGS = [
  '-DCMAKE_BUILD_TYPE=Release',
  '-DBUILD_SHARED_LIBS=OFF',
  '-DLLAMA_BUILD_TESTS=OFF',
  '-DLLAMA_BUILD_EXAMPLES=OFF',
  '-DLLAMA_BUILD_APP=OFF',
  '-DLLAMA_OPENSSL=OFF',
  '-DLLAMA_USE_PREBUILT_UI=OFF',
]

/** Builds `llama-server` into the cache folder; returns its path. Throws `engine_failed` with the compiler's last words. */
export async function buildServer({ home, threads, ...how }: BuildOptions): Promise<string> {
  const path = serverPath(home)
  const work = await mkdtemp(join(tmpdir(), 'palimpsest-build-'))
  const quiet = { ...how, onProgress: () => {} }
  try {
    await run('git', ['clone', '--quiet', join(SOURCE, 'gitRelease.bundle'), join(work, 'source')], quiet)
    const languages = (await knowsFlag(how.environment)) ? ['C', 'CXX'] : []
    const flags = [...CMAKE_FLAGS, ...languages.map((language) => `-DCMAKE_${language}_FLAGS_INIT=${NO_HALF_SUMS}`)]
    await run('cmake', ['-S', join(work, 'source'), '-B', join(work, 'build'), ...flags], quiet)
    await run('cmake', ['--build', join(work, 'build'), '--target', 'llama-server', `-j${threads}`], how)
    await mkdir(dirname(path), { recursive: true })
    const fresh = `${path}.${process.pid}`
    await copyFile(join(work, 'build', 'bin', 'llama-server'), fresh)
    await chmod(fresh, 0o755)
    await rename(fresh, path)
    await rm(faultPath(home), { force: true })
    return path
  } finally {
    // A compiler that is being ended may write once more.
    await rm(work, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** make's own count, "[ 37%] Building …", or ninja's, "[12/345] Building …". */
const COUNT = /\[\s*(\d+)(?:%|\/(\d+))\]/g

function run(
  command: string,
  args: readonly string[],
  { environment, onProgress, onText, signal }: Omit<BuildOptions, 'home' | 'threads'>,
) {
  return new Promise<void>((resolve, reject) => {
    const child = spawn(command, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'], signal })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-SAID_CHARS)
        onText?.(text)
        const count = [...text.matchAll(COUNT)].at(-1)
        if (count !== undefined) onProgress(Number(count[1]) / Number(count[2] ?? 100))
      })
    }
    child.once('error', (cause) => reject(signal.aborted ? signal.reason : failed(command, cause.message, cause)))
    child.once('close', (code) => (code === 0 ? resolve() : reject(failed(command, said.trim() || `it ended with ${code}`))))
  })
}

function failed(command: string, detail: string, cause?: unknown): PalimpsestError {
  return new PalimpsestError(
    'engine_failed',
    `Building llama.cpp failed in ${command}; see "palimpsest doctor" for what is missing. It said last:\n${detail}`,
    { cause },
  )
}
