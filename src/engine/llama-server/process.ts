import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { PalimpsestError } from '../../errors.ts'

export interface ServerProcessOptions {
  readonly command: string
  /** Without the address, which is chosen here; `restart` replaces them. */
  readonly args: readonly string[]
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly log: (level: 'debug' | 'info' | 'warn', message: string) => void
  /** Milliseconds. */
  readonly now: () => number
  /** What it is asked at its first start; where its answer lacks `holds`, its build does not fit the processor. */
  readonly trial?: { readonly body: object; readonly holds: string }
  /** Whether it is started without repacked weights where they fail. It is slower then than the prebuilt addon (docs/LOG.md, 2026-11-29). */
  readonly repacking?: 'preferred' | 'required'
  readonly limits?: Partial<typeof LIMITS>
}

/** Any language model goes on counting. */
export const COUNTING = {
  body: { prompt: '1, 2, 3, 4, 5, 6, 7, 8,', n_predict: 8, temperature: 0, cache_prompt: false },
  holds: '10',
} as const

const LIMITS = {
  /** From its start until it answers: a model of many gigabytes has to be read from a disk. */
  startMs: 600_000,
  /** How long a request waits for a server that is being started again. */
  waitMs: 5_000,
  firstBackoffMs: 250,
  maxBackoffMs: 30_000,
  /** After so long without a fault, the next one counts as the first. */
  steadyMs: 60_000,
  /** Between two signs of life while it answers: a piece of a long prompt takes seconds. */
  silenceMs: 120_000,
  /** From the request to stop to SIGKILL. */
  stopMs: 5_000,
}

const POLL_MS = 25
/**
 * Repacked weights crash some builds in their first evaluation (llama.cpp v0.5.0 by GCC 12 on AMX, docs/LOG.md), and sums of halves made others
 * answer rubbish only with repacked weights: without these it serves, slower.
 */
const CRASHES: readonly string[] = ['SIGSEGV', 'SIGILL', 'SIGBUS']
const UNPACKED = ['--no-repack'] as const
const SAID_CHARS = 4_000
const TRIAL_CHARS = 40

/** Makes llama-server watch its standard input and end when that is closed, which the kernel does for a parent that is killed. */
const WATCH_PARENT = { LLAMA_SERVER_ROUTER_PORT: '0' }

export type ServerState = 'starting' | 'up' | 'restarting' | 'closed'

/** A llama-server of our own, behind a Unix socket that only this user can reach: started, watched, started again when it ends. */
export class ServerProcess {
  readonly #options: ServerProcessOptions
  readonly #limits: typeof LIMITS
  readonly #folder = mkdtempSync(join(tmpdir(), 'palimpsest-server-'))
  readonly #waiting = new Set<() => void>()
  #child: ChildProcess | null = null
  #state: ServerState = 'starting'
  #said = ''
  #nextTryAt = 0
  #args: readonly string[]
  /** Arguments that this machine needs besides. */
  #more: readonly string[] = []
  /** Is told whether it came up, where it was ended to be started with other arguments. */
  #renewed: ((up: boolean) => void) | null = null
  /** How often it has ended unasked, and how it last did. */
  faults = 0
  lastFault: string | null = null

  constructor(options: ServerProcessOptions) {
    this.#options = options
    this.#args = options.args
    this.#limits = { ...LIMITS, ...options.limits }
  }

  get state(): ServerState {
    return this.#state
  }

  get pid(): number | null {
    return this.#child?.pid ?? null
  }

  /** Resolves once it answers for the first time. Throws `engine_failed` with its last words when it ends instead. */
  async start(): Promise<void> {
    let ended = this.#spawn()
    let up = await this.#healthy()
    const fault = up ? await this.#trialFault() : this.#crash('at its start')
    if (fault !== null) {
      await this.#end()
      await ended
      if (this.#options.repacking === 'required') return this.#fail(`llama-server ${fault}: this build of it does not fit here.`)
      this.#options.log('warn', `llama-server ${fault}; it is started without weights repacked for this processor`)
      this.#more = UNPACKED
      ended = this.#spawn()
      up = await this.#healthy()
      if (up && (await this.#trialFault()) !== null)
        this.#options.log('warn', 'llama-server fails its trial without repacked weights, too; the model itself may be at fault')
    }
    if (up) {
      this.#supervise(ended)
      return
    }
    this.#child?.kill('SIGKILL')
    await ended
    this.#fail(`llama-server did not start; it said last:\n${this.#said.trim()}`)
  }

  #fail(message: string): never {
    this.#state = 'closed'
    rmSync(this.#folder, { recursive: true, force: true })
    throw new PalimpsestError('engine_failed', message)
  }

  /**
   * One exchange, its answer still to be read. While the server is being started again it waits for at most `waitMs`, then throws
   * `engine_unavailable` with the time to come back. Aborting the signal closes the connection, which ends the work on it.
   */
  async ask(path: string, body: object | null, signal: AbortSignal): Promise<IncomingMessage> {
    await this.#up(signal)
    return await new Promise((resolve, reject) => {
      const text = body === null ? undefined : JSON.stringify(body)
      const headers = { 'content-type': 'application/json', connection: 'close' }
      const sent = request({
        socketPath: this.#socket,
        path,
        method: body === null ? 'GET' : 'POST',
        headers,
        signal,
        agent: false,
      })
      sent.setTimeout(this.#limits.silenceMs, () => {
        this.#options.log('warn', `llama-server was silent for ${this.#limits.silenceMs / 1000} s and is started again`)
        this.#child?.kill('SIGKILL')
      })
      sent.once('response', resolve)
      sent.on('error', async (cause) => {
        if (!signal.aborted) await this.#settled()
        reject(signal.aborted ? signal.reason : cause)
      })
      sent.end(text)
    })
  }

  /** Ends it and starts it with these arguments; false where it does not come up with them. Nothing should be under way. */
  async restart(args: readonly string[]): Promise<boolean> {
    if (this.#isClosed()) return false
    this.#args = args
    const up = new Promise<boolean>((resolve) => {
      this.#renewed = resolve
    })
    await this.#end()
    return up
  }

  async close(): Promise<void> {
    this.#state = 'closed'
    for (const wake of this.#waiting) wake()
    this.#renewed?.(false)
    await this.#end()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async #end(): Promise<void> {
    const child = this.#child
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), this.#limits.stopMs)
    await ended
    clearTimeout(timer)
  }

  get #socket(): string {
    return join(this.#folder, 'llama.sock')
  }

  async #up(signal: AbortSignal): Promise<void> {
    const until = this.#options.now() + this.#limits.waitMs
    while (this.#state !== 'up') {
      signal.throwIfAborted()
      if (this.#state === 'closed' || this.#options.now() >= until) throw this.#unavailable()
      await this.#pause(Math.min(this.#limits.waitMs, until - this.#options.now()), signal)
    }
  }

  #unavailable(): PalimpsestError {
    const seconds = Math.max(1, Math.ceil((this.#nextTryAt - this.#options.now()) / 1000) + 1)
    return new PalimpsestError(
      'engine_unavailable',
      `The model's server has ended and is being started again; try again in about ${seconds} s.`,
      { retryAfterSeconds: seconds },
    )
  }

  #crash(when: string): string | null {
    return CRASHES.includes(this.#child?.signalCode ?? '') ? `crashed ${when}` : null
  }

  /** What its answer to the trial shows, or null. A server that refuses the question tells nothing. */
  async #trialFault(): Promise<string | null> {
    const { trial } = this.#options
    if (trial === undefined) return null
    const answer = await this.ask('/completion', trial.body, AbortSignal.timeout(this.#limits.silenceMs))
      .then(json)
      .catch(() => null)
    if (answer === null) return this.#crash('at its first question')
    const said = String((answer as { content?: unknown }).content ?? '')
    return said.includes(trial.holds) ? null : `answered its trial with ${JSON.stringify(said.slice(0, TRIAL_CHARS))}`
  }

  /** Resolves to when it has ended. */
  #spawn(): Promise<void> {
    const { command, environment } = this.#options
    rmSync(this.#socket, { force: true })
    const child = spawn(command, [...this.#args, ...this.#more, '--host', this.#socket], {
      env: { ...environment, ...WATCH_PARENT },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.#child = child
    // Its end is learnt from `close`; a pipe that breaks before says no more.
    child.stdin.on('error', () => {})
    this.#said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#said = (this.#said + text).slice(-SAID_CHARS)
      })
    }
    return new Promise((resolve) => {
      child.once('error', (cause) => {
        this.#said += cause.message
        resolve()
      })
      child.once('close', () => resolve())
    })
  }

  /** True once it answers, false when it has ended or takes too long. */
  async #healthy(): Promise<boolean> {
    const child = this.#child
    const until = this.#options.now() + this.#limits.startMs
    while (this.#options.now() < until && this.#state !== 'closed' && child !== null) {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return false
      if (await this.#answers()) {
        this.#setState('up')
        return true
      }
      await this.#pause(POLL_MS)
    }
    return false
  }

  /** A connection breaks a moment before its server's end is learnt: wait for that, so that who asks again meets the next server. */
  async #settled(): Promise<void> {
    const until = this.#options.now() + this.#limits.waitMs
    while (this.#state === 'up' && this.#options.now() < until && !(await this.#answers())) await this.#pause(POLL_MS)
  }

  #answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const sent = request({ socketPath: this.#socket, path: '/health', agent: false }, (response) => {
        response.resume()
        resolve(response.statusCode === 200)
      })
      sent.once('error', () => resolve(false))
      sent.end()
    })
  }

  /** Starts it again whenever it ends: at once where it was asked to, else after a wait that doubles with each fault. */
  async #supervise(first: Promise<void>): Promise<void> {
    let upSince = this.#options.now()
    let faults = 0
    for (let ended = first; ; ) {
      await ended
      if (this.#isClosed()) return
      faults = this.#options.now() - upSince > this.#limits.steadyMs ? 0 : faults
      this.#setState('restarting')
      if (this.#renewed === null)
        await this.#pauseAfterFault(Math.min(this.#limits.maxBackoffMs, this.#limits.firstBackoffMs * 2 ** faults++))
      if (this.#isClosed()) return
      const renewed = this.#renewed
      this.#renewed = null
      ended = this.#spawn()
      const up = await this.#healthy()
      if (up) upSince = this.#options.now()
      else this.#child?.kill('SIGKILL')
      renewed?.(up)
    }
  }

  async #pauseAfterFault(backoffMs: number): Promise<void> {
    this.#nextTryAt = this.#options.now() + backoffMs
    const how = this.#child?.signalCode ?? `code ${this.#child?.exitCode}`
    this.faults++
    this.lastFault = `it ended with ${how}`
    this.#options.log('warn', `llama-server ended (${how}); it is started again in ${backoffMs} ms`)
    await this.#pause(backoffMs)
  }

  #isClosed(): boolean {
    return this.#state === 'closed'
  }

  #setState(state: ServerState): void {
    if (this.#state === 'closed') return
    this.#state = state
    for (const wake of this.#waiting) wake()
  }

  /** Until `ms` have passed, the state changes or the signal is aborted. */
  #pause(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', wake)
        this.#waiting.delete(wake)
        resolve()
      }
      const timer = setTimeout(wake, Math.max(0, ms))
      signal?.addEventListener('abort', wake, { once: true })
      this.#waiting.add(wake)
    })
  }
}
