import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream, mkdirSync, readFileSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { join } from 'node:path'
import { writeDurably } from '../../adapters/record.ts'
import { GiveWay } from '../../engine/scheduling/give-way.ts'
import { HandoffFault } from '../fault.ts'
import { PROTOCOL, readEvent, type WorkerEvent, type WorkerJob, type WorkerResult } from './protocol.ts'

/** How the editor is started. */
export interface Editor {
  readonly python: string
  /** Folder that holds the package `palimpsest_editor`; the environment's own, where null. */
  readonly source: string | null
  readonly environment: Readonly<Record<string, string | undefined>>
}

export interface WorkerLimits {
  /** As of `GiveWayLimits`. */
  readonly handoffQuietMs: number
  readonly handoffPauseMs: number
  readonly handoffRunMs: number
  /** Time that a worker has to end by itself once it is told to. */
  readonly handoffCancelMs: number
  /** Of one event. */
  readonly handoffEventBytes: number
  /** Silence after which a worker counts as hung. */
  readonly handoffSilenceMs: number
}

export interface WorkerRun {
  readonly editor: Editor
  readonly job: WorkerJob
  /** Of this run: its job file, its log, its work. */
  readonly folder: string
  readonly limits: WorkerLimits
  readonly signal: AbortSignal
  readonly onEvent: (event: WorkerEvent) => void
  /** Whether answers are being written, to which the worker gives way. */
  readonly isBusy: () => boolean
}

export interface WorkerOutcome {
  /** Its seconds are those that it worked. */
  readonly result: WorkerResult
  readonly pausedSeconds: number
}

const SAID_CHARS = 4_000
const GO_ON = 'What was finished is kept: `palimpsest handoff resume ID` goes on from there.'

/**
 * Runs one job in a process of its own, to its end. Throws HandoffFault, with the editor's own code and advice where it gave them; the
 * signal's reason once the worker that was told to stop has ended.
 */
export async function runWorker({ editor, job, folder, limits, signal, onEvent, isBusy }: WorkerRun): Promise<WorkerOutcome> {
  signal.throwIfAborted()
  mkdirSync(folder, { recursive: true })
  const path = join(folder, 'worker-job.json')
  await writeDurably(path, `${JSON.stringify({ protocol: PROTOCOL, ...job }, null, 1)}\n`)
  const child = spawn(editor.python, ['-m', 'palimpsest_editor', 'run', path], {
    env: {
      ...editor.environment,
      ...(editor.source !== null && { PYTHONPATH: editor.source }),
      PYTHONUNBUFFERED: '1',
      // It ends with this process: a paused one would never notice by itself.
      PALIMPSEST_EDITOR_PARENT: String(process.pid),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  lowerPriority(child)
  const conversation = new Conversation(child, limits, onEvent)
  const log = createWriteStream(join(folder, 'worker.log'), { flags: 'a' })
  // A full disk costs the log, not the gateway.
  log.on('error', () => {})
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-SAID_CHARS)
    log.write(text)
  })
  child.stdout.on('data', (chunk: Buffer) => conversation.read(chunk))
  const pauses = { quietMs: limits.handoffQuietMs, pauseMs: limits.handoffPauseMs, runMs: limits.handoffRunMs }
  const way = new GiveWay(child, isBusy, pauses, (isPaused) => conversation.paused(isPaused))
  const stop = () => {
    way.end()
    conversation.stop()
  }
  signal.addEventListener('abort', stop, { once: true })
  try {
    const ended = await exit(child, editor.python)
    way.end()
    signal.throwIfAborted()
    const result = conversation.outcome(ended, said)
    const pausedSeconds = way.pausedMs / 1_000
    return { result: { ...result, seconds: Math.max(0, result.seconds - pausedSeconds) }, pausedSeconds }
  } finally {
    way.end()
    signal.removeEventListener('abort', stop)
    conversation.over()
    log.end()
  }
}

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

function exit(child: ChildProcess, python: string): Promise<Ended> {
  return new Promise((resolve, reject) => {
    child.once('error', (error) =>
      reject(new HandoffFault('no_editor', `${python} does not start: ${error.message}.`, 'Run `palimpsest handoff setup`.')),
    )
    child.once('close', (code, signal) => resolve({ code, signal }))
  })
}

/** Answers come first. */
function lowerPriority({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL)
  } catch {
    // Not allowed here: it runs as it is.
  }
}

/** What the worker says, and what it is told. */
class Conversation {
  readonly #child: ChildProcess
  readonly #limits: WorkerLimits
  readonly #onEvent: (event: WorkerEvent) => void
  #pending = Buffer.alloc(0)
  #begun = false
  #last: WorkerEvent | null = null
  #fault: HandoffFault | null = null
  #killer: NodeJS.Timeout | undefined
  #silence: NodeJS.Timeout | undefined
  #isPaused = false

  constructor(child: ChildProcess, limits: WorkerLimits, onEvent: (event: WorkerEvent) => void) {
    this.#child = child
    this.#limits = limits
    this.#onEvent = onEvent
    this.#listen()
  }

  read(chunk: Buffer): void {
    this.#listen()
    if (this.#fault !== null) return
    try {
      this.#pending = Buffer.concat([this.#pending, chunk])
      for (let end = this.#pending.indexOf(10); end !== -1; end = this.#pending.indexOf(10)) {
        const line = this.#pending.subarray(0, end).toString('utf8')
        this.#pending = this.#pending.subarray(end + 1)
        if (line.trim() !== '') this.#hear(readEvent(line))
      }
      if (this.#pending.length > this.#limits.handoffEventBytes)
        throw new HandoffFault(
          'malformed_event',
          `The editor wrote a line of more than ${this.#limits.handoffEventBytes} bytes.`,
          'Run `palimpsest handoff setup`.',
        )
    } catch (error) {
      // It can't be followed any more.
      this.#fail(error instanceof HandoffFault ? error : new HandoffFault('internal', String(error), 'Report this.'))
    }
  }

  #hear(event: WorkerEvent): void {
    if (!this.#begun && event.event !== 'started')
      throw new HandoffFault(
        'protocol',
        `The editor began with \`${event.event}\`, not \`started\`.`,
        'Run `palimpsest handoff setup`.',
      )
    this.#begun = true
    if (event.event === 'result' || event.event === 'error') this.#last = event
    this.#onEvent(event)
  }

  /** What is paused says nothing. */
  paused(isPaused: boolean): void {
    this.#isPaused = isPaused
    this.#listen()
  }

  #listen(): void {
    clearTimeout(this.#silence)
    if (this.#isPaused) return
    const ms = this.#limits.handoffSilenceMs
    const hung = () =>
      this.#fail(new HandoffFault('hung', `The editor said nothing for ${Math.round(ms / 1000)} s and was ended.`, GO_ON))
    this.#silence = setTimeout(hung, ms)
  }

  #fail(fault: HandoffFault): void {
    this.#fault ??= fault
    this.#child.kill('SIGKILL')
  }

  /** SIGTERM, on which the worker ends at its next check; then SIGKILL. */
  stop(): void {
    this.#child.kill('SIGTERM')
    this.#killer = setTimeout(() => this.#child.kill('SIGKILL'), this.#limits.handoffCancelMs)
  }

  over(): void {
    clearTimeout(this.#killer)
    clearTimeout(this.#silence)
  }

  outcome({ code, signal }: Ended, said: string): WorkerResult {
    if (this.#fault !== null) throw this.#fault
    const last = this.#last
    if (last?.event === 'error') throw new HandoffFault(last.code, last.message, last.change)
    if (last?.event === 'result' && code === 0) return last
    const words = said.trim().split('\n').at(-1)?.trim()
    if (signal === 'SIGKILL')
      throw new HandoffFault(
        'killed',
        'The editor was killed (SIGKILL), most likely since the system ran out of memory.',
        `Free memory, set --memory below what is free, give --dtype bfloat16, or edit a smaller model. ${GO_ON}`,
      )
    if (/No module named/.test(words ?? ''))
      throw new HandoffFault('no_editor', `The editor does not start: ${words}.`, 'Run `palimpsest handoff setup`.')
    const how = signal === null ? `with status ${code}` : `on ${signal}`
    throw new HandoffFault(
      'crashed',
      `The editor ended ${how} and gave no result${words ? `; it said last: ${words}` : ''}.`,
      GO_ON,
    )
  }
}

/** Ends a worker that outlived the gateway which started it, so that no two write to one folder. */
export function endOrphan(pid: number | null, folder: string): void {
  if (pid === null) return
  try {
    const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    if (line.includes('palimpsest_editor') && line.includes(folder)) process.kill(pid, 'SIGKILL')
  } catch {
    // It is gone, or the system does not tell.
  }
}
