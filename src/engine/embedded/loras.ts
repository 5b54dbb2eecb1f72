import type { CustomBatchingPrioritizationStrategy, LlamaContext, LlamaContextSequence, LlamaModel } from 'node-llama-cpp'
import type { Lora } from '../engine.ts'
import { brokenAdapter } from '../gguf/lora.ts'
import { type ContextLoras, contextLoras, loraLoader, type NativeLora, numberOf } from './native.ts'

/**
 * Adapters of a model in this process. llama.cpp sets them on a context, for whole batches; so a batch holds sequences of one adapter only,
 * and the context changes adapters between batches.
 */

/** An adapter in memory, at a scale; held until released. */
export interface HeldLora {
  readonly key: string
  readonly native: NativeLora
  readonly scale: number
  release(): void
}

interface Loaded {
  readonly native: Promise<NativeLora>
  readonly bytes: number
  uses: number
  lastUse: number
}

/** Tells caches apart: what one adapter computed at one scale is no use under another. '' for none, and for one whose scale is 0. */
export function loraKey(lora: Pick<Lora, 'sha256' | 'scale'> | undefined): string {
  return lora === undefined || lora.scale === 0 ? '' : `${lora.sha256}*${lora.scale}`
}

/** Adapters in memory: loaded when first used, the longest unused dropped when they take more than `limitBytes`. */
export class LoadedLoras {
  readonly #open: (path: string) => Promise<NativeLora>
  readonly #limitBytes: number
  readonly #loaded = new Map<string, Loaded>()
  readonly #idle: { readonly sha256: string; readonly done: () => void }[] = []
  readonly #forget: (sha256: string) => void
  #uses = 0

  /** `forget`: it is about to be freed. */
  constructor(model: LlamaModel, limitBytes: number, forget: (sha256: string) => void) {
    this.#forget = forget
    this.#open = loraLoader(model)
    this.#limitBytes = limitBytes
  }

  /** null for none. Throws `adapter_mismatch` where llama.cpp refuses the file. */
  async hold(lora: Lora | undefined): Promise<HeldLora | null> {
    const key = loraKey(lora)
    if (lora === undefined || key === '') return null
    const loaded = this.#loaded.get(lora.sha256) ?? this.#load(lora)
    loaded.uses++
    loaded.lastUse = ++this.#uses
    let held = true
    const release = () => {
      if (held) this.#release(lora.sha256, loaded)
      held = false
    }
    try {
      return { key, native: await loaded.native, scale: lora.scale, release }
    } catch (cause) {
      if (this.#loaded.get(lora.sha256) === loaded) this.#loaded.delete(lora.sha256)
      release()
      throw brokenAdapter(lora.id, cause instanceof Error ? cause.message : String(cause), cause)
    }
  }

  has(sha256: string): boolean {
    return this.#loaded.has(sha256)
  }

  /** Frees it once nothing uses it any more. A later use loads it again. */
  async drop(sha256: string): Promise<void> {
    const loaded = this.#loaded.get(sha256)
    if (loaded === undefined) return
    if (loaded.uses > 0) await new Promise<void>((done) => this.#idle.push({ sha256, done }))
    if (this.#loaded.get(sha256) !== loaded || loaded.uses > 0) return
    this.#loaded.delete(sha256)
    this.#forget(sha256)
    await (await loaded.native).dispose()
  }

  #load(lora: Lora): Loaded {
    const loaded = { native: this.#open(lora.path), bytes: lora.bytes, uses: 0, lastUse: 0 }
    this.#loaded.set(lora.sha256, loaded)
    return loaded
  }

  #release(sha256: string, loaded: Loaded): void {
    loaded.uses--
    if (loaded.uses > 0) return
    for (const waiter of this.#idle.filter((one) => one.sha256 === sha256)) {
      this.#idle.splice(this.#idle.indexOf(waiter), 1)
      waiter.done()
    }
    this.#trim()
  }

  #trim(): void {
    const idle = [...this.#loaded].filter(([, { uses }]) => uses === 0).sort(([, a], [, b]) => a.lastUse - b.lastUse)
    let bytes = [...this.#loaded.values()].reduce((sum, one) => sum + one.bytes, 0)
    for (const [sha256, one] of idle) {
      if (bytes <= this.#limitBytes) return
      bytes -= one.bytes
      void this.drop(sha256).catch(() => {})
    }
  }
}

/** For a context that evaluates with one adapter alone. */
export function setLora(context: LlamaContext, { native, scale }: HeldLora): void {
  contextLoras(context).set([native], [scale])
}

/** Which adapter each sequence of a context is to be evaluated with, and in which order sequences stand in a batch. */
export class SequenceLoras {
  readonly #of = new Map<number, HeldLora>()
  #context: ContextLoras | null = null
  #set = ''

  /** The context that was made with this `strategy`. */
  watch(context: LlamaContext): void {
    this.#context = contextLoras(context)
  }

  assign(sequence: LlamaContextSequence, lora: HeldLora | null): void {
    const id = numberOf(sequence)
    if (lora === null) this.#of.delete(id)
    else this.#of.set(id, lora)
  }

  /** The adapter is to be freed: should the context still have it from its last batch, it lets go of it. */
  forget(sha256: string): void {
    if (this.#set.startsWith(`${sha256}*`)) this.#apply(undefined)
  }

  /**
   * `within` chooses among the sequences whose adapter is that of the one that waits longest; the others' turn comes with later batches.
   * llama.cpp evaluates at once only sequences that stand in the order of their numbers, without a gap (`llama_batch_allocr::split_equal`):
   * 8 answers in the order in which they came took 260 ms a step, sorted 150.
   */
  strategy(within: CustomBatchingPrioritizationStrategy): CustomBatchingPrioritizationStrategy {
    return ({ items, size }) => {
      const queued = this.#context?.queued() ?? []
      if (queued.length !== items.length) throw new Error('node-llama-cpp no longer queues as engine/embedded/native.ts expects')
      const loras = queued.map((number) => this.#of.get(number))
      const [first] = loras
      this.#apply(first)
      const numbers = new Map(items.map((item, at) => [item, queued[at] ?? 0]))
      const chosen = within({ items: items.filter((_, at) => loras[at]?.key === first?.key), size })
      return chosen.toSorted((a, b) => (numbers.get(a.item) ?? 0) - (numbers.get(b.item) ?? 0))
    }
  }

  #apply(lora: HeldLora | undefined): void {
    const key = lora?.key ?? ''
    if (key === this.#set) return
    if (lora === undefined) this.#context?.set([], [])
    else this.#context?.set([lora.native], [lora.scale])
    this.#set = key
  }
}
