import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { Listening, Value } from '../sql.ts'

interface ListenerOptions {
  readonly url: string
  /** What messages call the database. */
  readonly name: string
  readonly connectTimeoutMs: number
  readonly channel: string
  readonly heard: (payload: string) => void
  /** Runs a statement on another connection. */
  readonly ask: (text: string, ...values: readonly Value[]) => Promise<unknown>
  readonly warn: (message: string) => void
}

/** Time for a notification of our own to come back. */
const ECHO_MS = 2_000
const END_MS = 1_000
/** Between two attempts, doubled at each further failure up to the second number. */
const RETRY_MS = { first: 500, longest: 30_000 }

/**
 * One connection of its own that hears a channel of PostgreSQL, opened again whenever it breaks. It counts as up once a notification sent
 * on another connection has come back: a pooler in transaction mode takes LISTEN and passes nothing on.
 */
export class Listener implements Listening {
  readonly #options: ListenerOptions
  readonly #stop = new AbortController()
  readonly #running: Promise<void>
  #client: pg.Client | undefined
  #up = false

  constructor(options: ListenerOptions) {
    this.#options = options
    this.#running = this.#run()
  }

  get up(): boolean {
    return this.#up
  }

  async #run(): Promise<void> {
    let waitMs = RETRY_MS.first
    let told = false
    while (!this.#stop.signal.aborted) {
      try {
        await this.#hear(() => {
          waitMs = RETRY_MS.first
          told = false
        })
      } catch (error) {
        if (!told && !this.#stop.signal.aborted)
          this.#options.warn(`${this.#options.name}: notifications are not heard (${(error as Error).message}); polling instead`)
        told = true
      }
      await sleep(waitMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => {})
      waitMs = Math.min(2 * waitMs, RETRY_MS.longest)
    }
  }

  /** Until the connection breaks, which throws. */
  async #hear(onUp: () => void): Promise<void> {
    const { url, connectTimeoutMs, channel, heard, ask } = this.#options
    const client = new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: connectTimeoutMs,
      query_timeout: ECHO_MS,
      application_name: 'palimpsest feed',
      keepAlive: true,
    })
    this.#client = client
    const echo = `echo ${randomUUID()}`
    const broken = new Promise<never>((_, reject) => {
      client.once('error', reject)
      client.once('end', () => reject(new Error('the connection ended')))
    })
    broken.catch(() => {})
    const back = new Promise<void>((resolve) => {
      client.on('notification', ({ payload = '' }) => {
        if (payload === echo) resolve()
        else if (!payload.startsWith('echo ')) heard(payload)
      })
    })
    try {
      await Promise.race([client.connect(), broken])
      await client.query(`LISTEN ${channel}`)
      await ask('SELECT pg_notify(?, ?)', channel, echo)
      await Promise.race([back, broken, silence(this.#stop.signal)])
      this.#up = true
      onUp()
      // What was said while nobody listened.
      heard('')
      await broken
    } finally {
      this.#up = false
      await ended(client)
    }
  }

  async close(): Promise<void> {
    this.#stop.abort()
    if (this.#client !== undefined) await ended(this.#client)
    await this.#running
  }
}

/** A server that no longer answers is not waited for. */
async function ended(client: pg.Client): Promise<void> {
  await Promise.race([client.end().catch(() => {}), sleep(END_MS, undefined, { ref: false })])
}

async function silence(signal: AbortSignal): Promise<never> {
  await sleep(ECHO_MS, undefined, { signal, ref: false }).catch(() => {})
  throw new Error('no notification comes back, as behind a pooler of transactions')
}
