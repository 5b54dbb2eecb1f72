import { setTimeout as sleep } from 'node:timers/promises'
import { type Digest, type Key, matches, parseToken } from './key.ts'
import type { KeyStore } from './key-store.ts'

/** How often what other gateways and the command line changed is looked for: it counts within a second. */
const POLL_MS = 250
/** Tokens that nobody knows, however many are sent, have the database asked no more often than this. */
const APART_MS = 50
/** Ids that the database did not know, so that sending one again asks nobody. */
const UNKNOWN_IDS = 1_000

interface Held {
  readonly key: Key
  readonly digest: Digest
}

/**
 * The keys in memory, fed by their changes alone. A file of this machine is looked at before each request, which costs some microseconds;
 * a database that is shared is polled. While it is away, the keys go on as they were last known.
 */
export class KeyView {
  readonly #store: KeyStore
  readonly #warn: (message: string) => void
  readonly #unknown = new Set<string>()
  #held = new Map<string, Held>()
  /** The number of the last change seen; 0: all are read. */
  #seen = 0
  #any = false
  #fault: unknown = null
  #reading: Promise<void> = Promise.resolve()
  #next: Promise<void> | null = null
  #beganMs = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #closed = false

  private constructor(store: KeyStore, warn: (message: string) => void) {
    this.#store = store
    this.#warn = warn
  }

  /** Throws storage errors where the keys can't be read at all. */
  static async open(store: KeyStore, warn: (message: string) => void = () => {}): Promise<KeyView> {
    const view = new KeyView(store, warn)
    await view.#read()
    if (view.#shared) view.#poll()
    return view
  }

  get #shared(): boolean {
    return this.#store.database.dialect === 'postgres'
  }

  /** Whether there is or ever was a key. */
  any(): boolean {
    return this.#any
  }

  /** As the file has them now; of a shared database: as they were last polled. Never throws. */
  async current(): Promise<void> {
    if (!this.#shared) await this.#readOrNote()
  }

  /**
   * The key of this token, revoked and expired ones included; null for a token that is none. One that is not in memory may have been made
   * just now on another gateway: throws `storage_unavailable` where that can't be told.
   */
  async identify(token: string): Promise<Key | null> {
    const parsed = parseToken(token)
    if (parsed === null) return null
    if (this.#shared && !this.#held.has(parsed.id) && !this.#unknown.has(parsed.id)) {
      if (this.#fault === null) await this.#readSoon()
      if (this.#fault !== null) throw this.#fault
      if (!this.#held.has(parsed.id)) this.#forget(parsed.id)
    }
    const held = this.#held.get(parsed.id)
    return matches(parsed.secret, held?.digest) && held !== undefined ? held.key : null
  }

  #forget(id: string): void {
    // A flood of guesses costs the memory of who else guessed, and no more.
    if (this.#unknown.size >= UNKNOWN_IDS) this.#unknown.clear()
    this.#unknown.add(id)
  }

  /** Resolves when a reading is over that began after this call. All who ask while one is under way share the next. */
  #readSoon(): Promise<void> {
    this.#next ??= this.#reading.then(async () => {
      const wait = this.#beganMs + APART_MS - performance.now()
      if (wait > 0) await sleep(wait, undefined, { ref: false })
      this.#next = null
      this.#beganMs = performance.now()
      this.#reading = this.#readOrNote()
      await this.#reading
    })
    return this.#next
  }

  #poll(): void {
    if (this.#closed) return
    this.#timer = setTimeout(() => void this.#readSoon().then(() => this.#poll()), POLL_MS).unref()
  }

  async #readOrNote(): Promise<void> {
    if (this.#closed) return
    try {
      await this.#read()
    } catch (error) {
      if (this.#fault === null && !this.#closed)
        this.#warn(`the keys can't be read and go on as last known: ${error instanceof Error ? error.message : error}`)
      this.#fault = error
      // Whoever comes back may be an older copy: all is read again.
      this.#seen = 0
      return
    }
    if (this.#fault !== null) this.#warn('the keys are read again')
    this.#fault = null
  }

  async #read(): Promise<void> {
    const from = this.#seen
    const changes = await this.#store.changesAfter(from)
    const last = changes.at(-1)
    if (last === undefined && from > 0) return
    const held = from === 0 ? new Map<string, Held>() : this.#held
    for (const { id, kept } of changes) {
      if (kept === null) held.delete(id)
      else held.set(id, kept)
    }
    this.#held = held
    this.#any ||= last !== undefined
    this.#seen = last?.n ?? 0
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#reading
  }
}
