import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from './databases/postgres.ts'

/** For a machine that does other things too. */
const START_MS = 180_000
const LOOK_MS = 50

/** A gateway in a process of its own, which may be ended and started again on the same port and folder. */
export interface GatewayChild {
  readonly url: string
  readonly folder: string
  pid(): number
  /** All that it wrote to stderr. */
  said(): string
  /** Resolves once /readyz says so. */
  start(): Promise<void>
  signal(signal: NodeJS.Signals): void
  /** Its exit code, or the signal that ended it. */
  ended(): Promise<number | NodeJS.Signals | null>
  remove(): Promise<void>
}

/** `script`: the compiled `gateway-child.ts`; `env`: its configuration. It is not started yet. */
export async function gatewayChild(script: string, env: Readonly<Record<string, string>>): Promise<GatewayChild> {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-gateway-'))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  let child: ChildProcess | undefined
  let exited: Promise<number | NodeJS.Signals | null> = Promise.resolve(null)
  let said = ''
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('PALIMPSEST_'))
  const start = async () => {
    const started = spawn(process.execPath, [script], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...Object.fromEntries(inherited), PALIMPSEST_PORT: String(port), PALIMPSEST_BUILD: 'false', ...env },
    })
    child = started
    exited = new Promise((resolve) => started.once('exit', (code, signal) => resolve(signal ?? code)))
    started.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    const end = Date.now() + START_MS
    while (!(await isReady(url))) {
      if (started.exitCode !== null || Date.now() > end) throw new Error(`the gateway did not start: ${said.slice(-4_000)}`)
      await sleep(LOOK_MS)
    }
  }
  return {
    url,
    folder,
    pid: () => child?.pid ?? 0,
    said: () => said,
    start,
    signal: (signal) => void child?.kill(signal),
    ended: () => exited,
    remove: async () => {
      if (child !== undefined && child.exitCode === null) child.kill('SIGKILL')
      await exited
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export async function isReady(url: string): Promise<boolean> {
  return fetch(`${url}/readyz`).then(
    ({ ok }) => ok,
    () => false,
  )
}

/** Sends each request to the next gateway that was ready at the last look, as a load balancer does. */
export class RoundRobin {
  readonly #ready = new Map<string, boolean>()
  readonly #stop = new AbortController()
  readonly #looking: Promise<unknown>
  #next = 0

  constructor(urls: readonly string[], lookMs: number) {
    for (const url of urls) this.#ready.set(url, true)
    this.#looking = Promise.all(urls.map((url) => this.#look(url, lookMs)))
  }

  async #look(url: string, lookMs: number): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      this.#ready.set(url, await isReady(url))
      await sleep(lookMs, undefined, { signal }).catch(() => {})
    }
  }

  /** Throws where none is ready. */
  next(): string {
    const ready = [...this.#ready].flatMap(([url, is]) => (is ? [url] : []))
    const url = ready[this.#next++ % ready.length]
    if (url === undefined) throw new Error('no gateway is ready')
    return url
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#looking
  }
}

/** Data of the events of a stream, the last of which is `[DONE]` where it was not cut. Throws where the connection breaks. */
export async function eventsOf(response: Response): Promise<string[]> {
  const text = await response.text()
  return text.split('\n').flatMap((line) => (line.startsWith('data: ') ? [line.slice('data: '.length)] : []))
}
