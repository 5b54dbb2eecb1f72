import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { type PostgresServer, startPostgres } from '../../test/support/databases/postgres.ts'
import { type Child, startProgram } from '../served.ts'
import { findPgbouncer, type Pooler, startPgbouncer } from './pgbouncer.ts'
import { NetworkProxy } from './proxy.ts'

/** The script of a gateway and its arguments; it prints its URL as `palimpsest serve` does. */
export type Program = (dataDir: string, database: string) => readonly string[]

const RETRY_MS = 250

/** A gateway that is started anew whenever it has ended, behind a proxy of its own. */
export class Node {
  readonly proxy: NetworkProxy
  readonly #program: Program
  readonly #dataDir: string
  readonly #database: string
  readonly #number: number
  #starts = 0
  #child: Child | undefined
  #closed = false

  constructor(number: number, program: Program, dataDir: string, database: string, proxy: NetworkProxy) {
    this.#number = number
    this.#program = program
    this.#dataDir = dataDir
    this.#database = database
    this.proxy = proxy
  }

  /** The gateway and which start of it; what one start has shown, another need not have seen. */
  get name(): string {
    return `${this.#number}#${this.#starts}`
  }

  /** Undefined while it is down. */
  get url(): string | undefined {
    return this.#child?.url
  }

  /** Until it serves: without its database it ends at once. */
  async start(): Promise<void> {
    while (!this.#closed) {
      try {
        const child = await startProgram(this.#program(this.#dataDir, this.#database))
        if (this.#closed) return child.kill()
        this.#starts++
        this.#child = child
        child.process.once('exit', () => {
          if (this.#child === child) this.#child = undefined
        })
        return
      } catch (error) {
        if (!/unavailable|cannot be reached/.test(String(error))) throw error
        await sleep(RETRY_MS)
      }
    }
  }

  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child?.process.kill(signal)
  }

  async kill(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    await child?.kill()
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.kill()
    await this.proxy.close()
  }
}

export interface Cluster {
  readonly server: PostgresServer
  readonly nodes: readonly Node[]
  /** Undefined where there is no PgBouncer on this machine. */
  readonly pooler: Pooler | undefined
  /** A connection of nobody's, straight to the database. */
  connect(): Promise<pg.Client>
  close(): Promise<void>
}

/** A real PostgreSQL, a PgBouncer where there is one, and gateways, each with a proxy between it and the two. */
export async function openCluster(
  program: Program,
  gateways: number,
  settings: Readonly<Record<string, string>> = {},
): Promise<Cluster> {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-history-'))
  const undo: (() => Promise<void>)[] = [async () => rmSync(folder, { recursive: true, force: true })]
  const close = async () => {
    for (const one of undo.splice(0).reverse()) await one()
  }
  try {
    // What is killed are processes: the system still has what they wrote. So no commit waits for the disk, and no start for all of them.
    const server = await startPostgres({ fsync: 'off', ...settings })
    undo.push(() => server.remove())
    const url = await server.database()
    const bouncer = findPgbouncer()
    const pooler = bouncer === undefined ? undefined : await startPgbouncer(bouncer, server.port)
    if (pooler !== undefined) undo.push(() => pooler.remove())
    const nodes: Node[] = []
    for (let number = 1; number <= gateways; number++) {
      const proxy = await NetworkProxy.open(server.port)
      const dataDir = join(folder, String(number))
      mkdirSync(dataDir)
      const node = new Node(number, program, dataDir, url.replace(`:${server.port}`, `:${proxy.port}`), proxy)
      undo.push(() => node.close())
      nodes.push(node)
    }
    await Promise.all(nodes.map((node) => node.start()))
    const connect = async () => {
      const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 })
      // A server that is killed ends it; what then fails says so.
      client.on('error', () => {})
      await client.connect()
      return client
    }
    return { server, nodes, pooler, connect, close }
  } catch (error) {
    await close()
    throw error
  }
}
