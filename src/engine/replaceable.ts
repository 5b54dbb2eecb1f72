import type { Sampling } from '../request.ts'
import type { Trace } from '../trace.ts'
import type {
  Backend,
  Finish,
  Inspection,
  Load,
  Lora,
  LoraEngine,
  ModelInfo,
  OwnEngine,
  Piece,
  Prompt,
  Scorer,
  TextEngine,
} from './engine.ts'
import { shuttingDown } from './scheduling/slot-queue.ts'

/** An engine, and how much of what it was asked it has still to end. */
interface Held {
  readonly engine: OwnEngine
  uses: number
  closed: Promise<void> | null
}

/**
 * An engine that can be exchanged for another of the same model while it serves. What has begun ends where it began; all else goes to the new
 * one. The old one is closed after its last answer.
 */
export class ReplaceableEngine implements OwnEngine {
  readonly text: TextEngine
  readonly loras: LoraEngine
  #current: Held
  /** The current one, and those that have answers to end. */
  readonly #open = new Set<Held>()
  /** Is being made ready, and its owner's until then. */
  #next: OwnEngine | null = null
  /** Adapters asked for, by hash. */
  readonly #asked = new Map<string, Lora>()
  #closed = false

  constructor(first: OwnEngine) {
    this.#current = this.#opened(first)
    const current = () => this.#current.engine
    this.text = {
      complete: (prompt, ...rest) => this.#answer(prompt.lora, ({ text }) => text.complete(prompt, ...rest)),
      detokenize: (tokens) => current().text.detokenize(tokens),
      tokenize: (text) => current().text.tokenize(text),
      marks: first.text.marks,
    }
    this.loras = {
      check: (path) => current().loras.check(path),
      baseSha256: () => current().loras.baseSha256(),
      ...(first.loras.basePath !== undefined && { basePath: first.loras.basePath }),
      load: (lora) => this.#with(lora, ({ loras }) => loras.load(lora)),
      unload: async (lora) => {
        this.#asked.delete(lora.sha256)
        const engines = [...this.#open].map(({ engine }) => engine).concat(this.#next ?? [])
        await Promise.all(engines.map(({ loras }) => loras.unload(lora)))
      },
      loaded: (lora) => current().loras.loaded(lora),
    }
  }

  get model(): ModelInfo {
    return this.#current.engine.model
  }

  generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    return this.#answer(prompt.lora, (engine) => engine.generate(prompt, sampling, trace, signal))
  }

  inspect(prompt: Prompt): Inspection {
    return this.#current.engine.inspect(prompt)
  }

  countTokens(prompt: Prompt): number {
    return this.#current.engine.countTokens(prompt)
  }

  load(): Load {
    return this.#current.engine.load()
  }

  backends(): readonly Backend[] {
    return this.#current.engine.backends?.() ?? []
  }

  async openScorer(lora?: Lora): Promise<Scorer> {
    const held = this.#hold(lora)
    try {
      const scorer = await held.engine.openScorer(lora)
      let open = true
      const close = async () => {
        await scorer.close().finally(() => {
          if (open) this.#release(held)
          open = false
        })
      }
      return { score: (prompt, continuations) => scorer.score(prompt, continuations), close }
    } catch (error) {
      this.#release(held)
      throw error
    }
  }

  /**
   * Resolves once `next` is asked in place of the current one, with the adapters that are loaded in that. Throws what it says of an adapter that
   * it does not take, or that this engine is closed: nothing has changed then, and `next` is its owner's to close.
   */
  async replace(next: OwnEngine): Promise<void> {
    const carried = new Set<string>()
    const missing = () =>
      [...this.#asked.values()].find((lora) => this.#current.engine.loras.loaded(lora) && !carried.has(lora.sha256))
    this.#next = next
    try {
      for (let lora = missing(); lora !== undefined; lora = missing()) {
        carried.add(lora.sha256)
        await next.loras.load(lora)
      }
      if (this.#closed) throw shuttingDown()
    } finally {
      this.#next = null
    }
    const former = this.#current
    this.#current = this.#opened(next)
    this.#retire(former)
  }

  async close(graceMs: number): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#open].map((held) => close(held, graceMs)))
  }

  #opened(engine: OwnEngine): Held {
    const held = { engine, uses: 0, closed: null }
    this.#open.add(held)
    return held
  }

  /** Which engine answers is settled when the answer is begun to be read. */
  async *#answer(
    lora: Lora | undefined,
    ask: (engine: OwnEngine) => AsyncGenerator<Piece, Finish>,
  ): AsyncGenerator<Piece, Finish> {
    const held = this.#hold(lora)
    try {
      return yield* ask(held.engine)
    } finally {
      this.#release(held)
    }
  }

  async #with<T>(lora: Lora, work: (engine: OwnEngine) => Promise<T>): Promise<T> {
    const held = this.#hold(lora)
    try {
      return await work(held.engine)
    } finally {
      this.#release(held)
    }
  }

  #hold(lora: Lora | undefined): Held {
    if (lora !== undefined) this.#asked.set(lora.sha256, lora)
    this.#current.uses++
    return this.#current
  }

  #release(held: Held): void {
    held.uses--
    this.#retire(held)
  }

  #retire(held: Held): void {
    if (held === this.#current || held.uses > 0) return
    // It answers nobody: what goes wrong in freeing it is nobody's either.
    void close(held, 0)
      .catch(() => {})
      .then(() => this.#open.delete(held))
  }
}

/** Once, whoever asks first. */
function close(held: Held, graceMs: number): Promise<void> {
  held.closed ??= held.engine.close(graceMs)
  return held.closed
}
