import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, copyFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PalimpsestError } from '../../errors.ts'

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
  /** For the compiler and cmake. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Share of the work that is done, 0 to 1. */
  readonly onProgress: (done: number) => void
  readonly signal: AbortSignal
}

/** Programs that a build needs, and what to do where one is missing. */
export const BUILD_TOOLS = [
  { names: ['cmake'], mend: 'Debian: apt install cmake; anywhere: pip install cmake; macOS: brew install cmake.' },
  { names: ['c++', 'g++', 'clang++'], mend: 'Debian: apt install g++; macOS: xcode-select --install.' },
  { names: ['make', 'ninja'], mend: 'Debian: apt install make; macOS: xcode-select --install.' },
  { names: ['git'], mend: 'Debian: apt install git; macOS: xcode-select --install.' },
] as const

const SOURCE = join(dirname(fileURLToPath(import.meta.resolve('node-llama-cpp'))), '..', 'llama')
const SAID_CHARS = 4_000

/** Of llama.cpp, as node-llama-cpp names it: "v0.5.0". */
export function llamaRelease(): string {
  return (JSON.parse(readFileSync(join(SOURCE, 'binariesGithubRelease.json'), 'utf8')) as { release: string }).release
}

/** Where `llama-server` is kept. It is built for the processor it is built on, so that is part of the name. */
export function serverPath(home: string): string {
  const processor = createHash('sha256')
    .update(cpus()[0]?.model ?? '')
    .digest('hex')
    .slice(0, 8)
  return join(home, 'engines', `llama-server-${llamaRelease()}-${process.platform}-${process.arch}-${processor}`, 'llama-server')
}

export function hasServer(home: string): boolean {
  return existsSync(serverPath(home))
}

/** Written once a build is whole: asking for one that is under way would wait for its end. */
const ADDON_DONE = join(SOURCE, 'localBuilds', 'palimpsest.done')

export function hasAddon(): boolean {
  return existsSync(ADDON_DONE)
}

/** Builds node-llama-cpp's addon into that package's own folder of local builds. Throws `engine_failed` with the compiler's last words. */
export async function buildAddon({ environment, onProgress, signal }: Omit<BuildOptions, 'home' | 'threads'>): Promise<void> {
  const options = { gpu: false, build: 'forceRebuild', cmakeOptions: ADDON_OPTIONS, progressLogs: true }
  const script = `const { getLlama } = await import(${JSON.stringify(import.meta.resolve('node-llama-cpp'))})
    await (await getLlama(${JSON.stringify(options)})).dispose()
    process.exit(0)`
  await rm(ADDON_DONE, { force: true })
  await run(process.execPath, ['--input-type=module', '-e', script], { environment, onProgress, signal })
  await writeFile(ADDON_DONE, '')
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
    await run('cmake', ['-S', join(work, 'source'), '-B', join(work, 'build'), ...CMAKE_FLAGS], quiet)
    await run('cmake', ['--build', join(work, 'build'), '--target', 'llama-server', `-j${threads}`], how)
    await mkdir(dirname(path), { recursive: true })
    const fresh = `${path}.${process.pid}`
    await copyFile(join(work, 'build', 'bin', 'llama-server'), fresh)
    await chmod(fresh, 0o755)
    await rename(fresh, path)
    return path
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** make's own count, "[ 37%] Building …", or ninja's, "[12/345] Building …". */
const COUNT = /\[\s*(\d+)(?:%|\/(\d+))\]/g

function run(
  command: string,
  args: readonly string[],
  { environment, onProgress, signal }: Omit<BuildOptions, 'home' | 'threads'>,
) {
  return new Promise<void>((resolve, reject) => {
    const child = spawn(command, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'], signal })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-SAID_CHARS)
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
