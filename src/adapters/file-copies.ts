import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { PalimpsestError } from '../errors.ts'
import { isWhole } from '../storage/file-hash.ts'
import type { Sql } from '../storage/sql.ts'
import { fetchFile } from './file-pieces.ts'
import type { Adapter } from './record.ts'

/** After the hash of a file. */
export const COPY_SUFFIX = '.gguf'
/** After a failure; doubled with each further one. */
const RETRY_MS = 1_000
const LONGEST_RETRY_MS = 60_000
const RETRY_AFTER_SECONDS = 2

interface Wanted {
  readonly adapter: Adapter
  failures: number
  /** Of `performance.now()`. */
  notBefore: number
}

export interface FileCopiesOptions {
  readonly database: Sql
  readonly dir: string
  readonly waitMs: number
  readonly warn: (message: string) => void
}

/** One gateway's copies of the files in a shared database: fetched one after another, those that requests wait for first. */
export class FileCopies {
  readonly #options: FileCopiesOptions
  readonly #here = new Set<string>()
  readonly #wanted = new Map<string, Wanted>()
  /** An event for each file that has come, by its hash. */
  readonly #arrivals = new EventEmitter().setMaxListeners(0)
  #fetching: Promise<void> | null = null
  #closed = false

  constructor(options: FileCopiesOptions) {
    this.#options = options
  }

  path(sha256: string): string {
    return join(this.#options.dir, sha256 + COPY_SUFFIX)
  }

  /** Throws `storage_unavailable` after the longest wait, or the signal's reason. */
  async present(adapter: Adapter, signal?: AbortSignal): Promise<void> {
    const { sha256, id } = adapter
    if (this.#here.has(sha256)) return
    const { waitMs } = this.#options
    const timeout = AbortSignal.timeout(waitMs)
    const arrival = once(this.#arrivals, sha256, { signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]) })
    this.want([adapter])
    try {
      await arrival
    } catch {
      signal?.throwIfAborted()
      throw new PalimpsestError(
        'storage_unavailable',
        `The file of adapter '${id}' is still on its way to this gateway after ${waitMs / 1_000} s. Try again in a moment.`,
        { retryAfterSeconds: RETRY_AFTER_SECONDS },
      )
    }
  }

  /** Fetches those that are not here, and again what failed once it is time. */
  want(adapters: readonly Adapter[]): void {
    for (const adapter of adapters) {
      const { sha256 } = adapter
      if (!this.#here.has(sha256) && !this.#wanted.has(sha256)) this.#wanted.set(sha256, { adapter, failures: 0, notBefore: 0 })
    }
    if (this.#fetching !== null || this.#closed || this.#next() === undefined) return
    this.#fetching = this.#fetchAll().finally(() => {
      this.#fetching = null
    })
  }

  /** A file that is on this machine already takes its place among the copies. */
  async keep(sha256: string, from: string): Promise<void> {
    if (!this.#here.has(sha256)) await rename(from, this.path(sha256))
    this.#arrived(sha256)
  }

  async drop(sha256: string): Promise<void> {
    this.#wanted.delete(sha256)
    this.#here.delete(sha256)
    await rm(this.path(sha256), { force: true })
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#fetching
  }

  #arrived(sha256: string): void {
    this.#wanted.delete(sha256)
    this.#here.add(sha256)
    this.#arrivals.emit(sha256)
  }

  #next(): Wanted | undefined {
    const due = [...this.#wanted.values()].filter(({ notBefore }) => notBefore <= performance.now())
    return due.find(({ adapter }) => this.#arrivals.listenerCount(adapter.sha256) > 0) ?? due[0]
  }

  async #fetchAll(): Promise<void> {
    for (let next = this.#next(); next !== undefined && !this.#closed; next = this.#next()) await this.#fetch(next)
  }

  async #fetch(wanted: Wanted): Promise<void> {
    const { database, dir, warn } = this.#options
    const { id, sha256 } = wanted.adapter
    const part = join(dir, `.${randomUUID()}`)
    try {
      // It may be here from before a restart.
      if (!(await isWhole(this.path(sha256), sha256))) {
        await fetchFile(database, sha256, part)
        if (this.#wanted.get(sha256) !== wanted) return
        await rename(part, this.path(sha256))
      }
      this.#arrived(sha256)
    } catch (error) {
      const waitMs = Math.min(RETRY_MS * 2 ** wanted.failures, LONGEST_RETRY_MS)
      wanted.failures++
      wanted.notBefore = performance.now() + waitMs
      warn(
        `adapter '${id}' is not served here yet: ${(error as Error).message}. Its file is fetched again in ${waitMs / 1_000} s.`,
      )
    } finally {
      await rm(part, { force: true })
    }
  }
}
