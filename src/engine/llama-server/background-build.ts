import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { GiveWay } from '../scheduling/give-way.ts'
import { buildTurn, hasServer, noteFault, recentFault, runs } from './build.ts'

export interface BackgroundBuildOptions {
  /** The user's cache folder. */
  readonly home: string
  /** Compilers at once. */
  readonly jobs: number
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Aborting it ends the build, its compilers included. */
  readonly signal: AbortSignal
  /** Is told who builds, where another process does. */
  readonly onWait: (holder: string) => void
  /** Whether an answer is being written: the build pauses meanwhile. */
  readonly isBusy: () => boolean
  /** What builds, given the cache folder and `jobs`; absent: build-child.js. */
  readonly builder?: readonly string[]
  readonly limitMs?: number
}

/** Two cores take 5 minutes where nothing else runs. */
const LIMIT_MS = 2 * 3_600_000
/** From the request to stop to SIGKILL. */
const STOP_MS = 10_000
const WHY_CHARS = 300
/** An engine's threads wait for each other many times a token: beside a compiler, of whatever priority, an answer took five times as long. */
const PAUSES = { quietMs: 3_000, pauseMs: 60_000, runMs: 5_000 }

const BUILDER = [process.execPath, fileURLToPath(new URL('./build-child.js', import.meta.url))]
const NICE = ['nice', '-n', '19']
/** Linux: only while nobody else wants the processor. */
const IDLE = ['chrt', '--idle', '0']

export const buildLog = (home: string): string => join(home, 'engines', 'build.log')

/**
 * Builds llama-server at the lowest priority; resolves to null once it is there, whoever built it, or to why not. Of several processes one
 * builds, the others wait for it. Within a day of a fault nothing is tried. Throws the signal's reason.
 */
export async function buildInBackground(options: BackgroundBuildOptions): Promise<string | null> {
  const { home, signal } = options
  const leave = await buildTurn(home, signal, options.onWait)
  try {
    if (hasServer(home)) return null
    const why = recentFault(home, Date.now())?.why ?? (await build(options))
    signal.throwIfAborted()
    if (why !== null) await noteFault(home, { at: Date.now(), why })
    return why
  } finally {
    leave()
  }
}

async function build({ home, jobs, environment, signal, isBusy, builder = BUILDER, limitMs = LIMIT_MS }: BackgroundBuildOptions) {
  const [command = '', ...args] = [...(await lowestPriority(environment)), ...builder, home, String(jobs)]
  signal.throwIfAborted()
  const log = openSync(buildLog(home), 'w')
  // In a group of its own, which is ended as a whole. Its input is closed when this process ends, however it does.
  const child = spawn(command, args, { env: environment, detached: true, stdio: ['pipe', log, log] })
  closeSync(log)
  child.stdin?.on('error', () => {})
  const late = AbortSignal.timeout(limitMs)
  const way = new GiveWay({ kill: (what) => pauseGroup(child, what) }, isBusy, PAUSES, () => {})
  const how = await ended(child, AbortSignal.any([signal, late])).finally(() => way.end())
  if (how === 'code 0' && hasServer(home)) return null
  if (late.aborted) return `it took longer than ${limitMs / 60_000} minutes`
  return complaint(readFileSync(buildLog(home), 'utf8')) ?? `it ended with ${how}`
}

/** What has a command run at the lowest priority there is; nothing where neither program works. */
async function lowestPriority(environment: BackgroundBuildOptions['environment']): Promise<readonly string[]> {
  const works = async ([command = '', ...args]: readonly string[]) => runs(command, [...args, 'true'], environment)
  const idle = process.platform === 'linux' && (await works(IDLE)) ? IDLE : []
  return (await works(NICE)) ? [...NICE, ...idle] : idle
}

/** Resolves to how it ended; aborting the signal ends its whole group. */
function ended(child: ChildProcess, signal: AbortSignal): Promise<string> {
  return new Promise((resolve) => {
    let timer: NodeJS.Timeout | undefined
    const end = () => {
      signalGroup(child, 'SIGTERM')
      // One that is paused ends when it goes on.
      signalGroup(child, 'SIGCONT')
      timer = setTimeout(() => signalGroup(child, 'SIGKILL'), STOP_MS)
    }
    const done = (how: string) => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve(how)
    }
    child.once('error', (cause) => done(cause.message))
    child.once('close', (code, killed) => done(killed ?? `code ${code}`))
    signal.addEventListener('abort', end, { once: true })
    if (signal.aborted) end()
  })
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch {
    // It has ended already.
  }
}

/** All of the group but its first: that one notices when this process ends, and then ends the others. */
function pauseGroup(child: ChildProcess, signal: 'SIGSTOP' | 'SIGCONT'): boolean {
  signalGroup(child, signal)
  return child.kill('SIGCONT')
}

/** make ends with lines that name no cause. */
function complaint(log: string): string | undefined {
  const lines = log.trim().split('\n')
  return (lines.findLast((line) => /error:/i.test(line)) ?? lines.at(-1))?.trim().slice(-WHY_CHARS) || undefined
}
