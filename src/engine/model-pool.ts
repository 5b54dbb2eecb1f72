import { PalimpsestError } from '../errors.ts'
import type { Engine } from './engine.ts'
import { orAborted } from './scheduling/or-aborted.ts'
import { Turns } from './scheduling/shared-lock.ts'
import { shuttingDown } from './scheduling/slot-queue.ts'

/** A model that is opened when asked for. */
export interface PooledModel {
  readonly name: string
  /** Memory that it takes while open: weights and caches. */
  bytes(): Promise<number>
  open(): Promise<Engine>
}

export interface ModelPoolOptions {
  /** Open from the start, and never closed for another. */
  readonly primary: Engine
  readonly primaryBytes: number
  readonly others: readonly PooledModel[]
  /** For all models together. */
  readonly memoryBytes: number
  /** Requests that may wait while a model is loaded. */
  readonly queueLimit: number
  readonly log: (message: string) => void
}

/** An engine, held for one request. */
export interface HeldEngine {
  readonly engine: Engine
  release(): void
}

export interface Residence {
  readonly name: string
  readonly state: 'resident' | 'loading' | 'absent'
  readonly busy: number
  /** null: not known before it is first loaded. */
  readonly bytes: number | null
}

interface PoolEntry {
  readonly model: PooledModel
  opening: Promise<Engine> | null
  engine: Engine | null
  bytes: number | null
  waiting: number
  uses: number
  lastUse: number
}

const RETRY_SECONDS = 5

/**
 * Further models beside the one served, loaded when asked for; where memory is short, the longest unused ones that answer nobody go. All of
 * one process share its threads; where the served model runs in a llama-server, which has threads of its own, it and the others take turns.
 */
export class ModelPool {
  readonly #options: ModelPoolOptions
  readonly #entries: ReadonlyMap<string, PoolEntry>
  readonly #turns = new Turns()
  /** Openings and closings, one after another. */
  #changing: Promise<unknown> = Promise.resolve()
  #uses = 0
  #closed = false

  constructor(options: ModelPoolOptions) {
    this.#options = options
    const entry = (model: PooledModel): PoolEntry => ({
      model,
      opening: null,
      engine: null,
      bytes: null,
      waiting: 0,
      uses: 0,
      lastUse: 0,
    })
    this.#entries = new Map(options.others.map((model) => [model.name, entry(model)]))
  }

  names(): readonly string[] {
    return [...this.#entries.keys()]
  }

  resident(): readonly Engine[] {
    return [...this.#entries.values()].flatMap(({ engine }) => engine ?? [])
  }

  /**
   * The engine of that name, or the primary where it is none of the others. Throws `queue_full` where too many wait for it to be loaded,
   * `engine_unavailable` where there is no memory for it while others answer, and the signal's reason.
   */
  async use(name: string, signal: AbortSignal): Promise<HeldEngine> {
    if (this.#closed) throw shuttingDown()
    const entry = this.#entries.get(name)
    // Asked each time: the primary may have changed over to a server since.
    const apart = (this.#options.primary.backends?.() ?? []).length > 0
    const leave = apart ? await this.#turns.enter(entry !== undefined, signal) : () => {}
    if (entry === undefined) return { engine: this.#options.primary, release: leave }
    entry.uses++
    let held = true
    const release = () => {
      if (held) entry.uses--
      if (held) leave()
      held = false
    }
    try {
      const engine = entry.engine ?? (await this.#wait(entry, signal))
      entry.lastUse = ++this.#uses
      return { engine, release }
    } catch (error) {
      release()
      throw error
    }
  }

  residency(): readonly Residence[] {
    const { primary, primaryBytes } = this.#options
    const others = [...this.#entries.values()].map(({ model, engine, opening, uses, bytes }): Residence => {
      const state = engine !== null ? 'resident' : opening === null ? 'absent' : 'loading'
      return { name: model.name, state, busy: uses, bytes }
    })
    return [{ name: primary.model.name, state: 'resident', busy: primary.load().busy, bytes: primaryBytes }, ...others]
  }

  get memoryBytes(): number {
    return this.#options.memoryBytes
  }

  async close(graceMs: number): Promise<void> {
    this.#closed = true
    await this.#changing
    await Promise.all(this.resident().map((engine) => engine.close(graceMs)))
  }

  async #wait(entry: PoolEntry, signal: AbortSignal): Promise<Engine> {
    const { queueLimit } = this.#options
    if (entry.waiting >= Math.max(1, queueLimit))
      throw new PalimpsestError(
        'queue_full',
        `The model \`${entry.model.name}\` is being loaded and ${entry.waiting} requests wait for it already, which is the limit.`,
        { retryAfterSeconds: RETRY_SECONDS },
      )
    entry.waiting++
    try {
      entry.opening ??= this.#open(entry)
      return await orAborted(entry.opening, signal)
    } finally {
      entry.waiting--
    }
  }

  #open(entry: PoolEntry): Promise<Engine> {
    const opened = this.#changing.then(async () => {
      try {
        entry.bytes = await entry.model.bytes()
        await this.#makeRoom(entry)
        if (this.#closed) throw shuttingDown()
        entry.engine = await entry.model.open()
        this.#options.log(`the model ${entry.model.name} is loaded`)
        return entry.engine
      } finally {
        entry.opening = null
      }
    })
    this.#changing = opened.catch(() => {})
    return opened
  }

  /** Closes idle models, the longest unused first, until `wanted` fits. */
  async #makeRoom(wanted: PoolEntry): Promise<void> {
    const { memoryBytes, primary, primaryBytes, log } = this.#options
    const others = [...this.#entries.values()].filter((entry) => entry.engine !== null)
    const idle = others.filter(({ uses }) => uses === 0).sort((a, b) => a.lastUse - b.lastUse)
    const taken = () => others.reduce((sum, { engine, bytes }) => sum + (engine === null ? 0 : (bytes ?? 0)), primaryBytes)
    const needed = wanted.bytes ?? 0
    while (taken() + needed > memoryBytes) {
      const oldest = idle.shift()
      if (oldest === undefined) {
        const busy = others.filter(({ engine }) => engine !== null).map(({ model }) => model.name)
        const who = [primary.model.name, ...busy].join(', ')
        throw new PalimpsestError(
          'engine_unavailable',
          `The model \`${wanted.model.name}\` takes ${gigabytes(needed)}, and of the ${gigabytes(memoryBytes)} for models ` +
            `${gigabytes(memoryBytes - taken())} are left beside ${who}. Try again later, or allow more with modelMemoryBytes.`,
          { param: 'model', retryAfterSeconds: RETRY_SECONDS },
        )
      }
      const { engine } = oldest
      oldest.engine = null
      await engine?.close(0)
      log(`the model ${oldest.model.name} makes room for ${wanted.model.name}`)
    }
  }
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`
}
