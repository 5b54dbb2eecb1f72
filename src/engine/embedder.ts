import { PalimpsestError } from '../errors.ts'
import type { Embedder } from './engine.ts'
import { shuttingDown } from './queue.ts'

/** What the reference implementation of all-MiniLM-L6-v2 reads of a text (its `max_seq_length`). */
export const DEFAULT_EMBED_TOKENS = 256

/** Text beyond this many characters for every token is not even tokenized, which costs time in proportion. */
const CHARS_PER_TOKEN = 100

export interface EmbedderParts {
  readonly name: string
  readonly dimensions: number
  /** Longer texts are cut to this, `wrap` included. */
  readonly maxTokens: number
  readonly tokenize: (text: string) => number[]
  /** Special tokens before and after every text. */
  readonly wrap: { readonly first: readonly number[]; readonly last: readonly number[] }
  readonly evaluate: (tokens: number[]) => Promise<readonly number[]>
  readonly free: () => Promise<void>
}

type Priority = 'query' | 'import'

/**
 * One text at a time; between two texts a waiting query goes before every import. Vectors have unit length. A text longer than
 * `maxTokens` is represented by its beginning. An abort takes effect between texts.
 */
export function createEmbedder(parts: EmbedderParts): Embedder {
  const turns = new Turns()
  return {
    name: parts.name,
    dimensions: parts.dimensions,
    maxTokens: parts.maxTokens,
    async embed(texts, priority, signal) {
      const vectors: Float32Array[] = []
      for (const text of texts) {
        signal?.throwIfAborted()
        vectors.push(await turns.run(priority, signal, () => embedOne(text, parts)))
      }
      return vectors
    },
    async close() {
      await turns.close()
      await parts.free()
    },
  }
}

async function embedOne(
  text: string,
  { tokenize, wrap, maxTokens, evaluate, dimensions, name }: EmbedderParts,
): Promise<Float32Array> {
  const room = maxTokens - wrap.first.length - wrap.last.length
  const tokens = tokenize(text.slice(0, maxTokens * CHARS_PER_TOKEN)).slice(0, room)
  const vector = unit(await evaluate([...wrap.first, ...tokens, ...wrap.last]))
  if (vector !== null && vector.length === dimensions) return vector
  throw new PalimpsestError(
    'engine_failed',
    `Expected ${dimensions} finite numbers, not all zero, from ${name} for a text of ${text.length} characters; check the embedder's model file.`,
  )
}

/** Scaled to length 1; null when that is impossible. */
export function unit(vector: readonly number[]): Float32Array | null {
  const length = Math.hypot(...vector)
  return Number.isFinite(length) && length > 0 ? Float32Array.from(vector, (x) => x / length) : null
}

/** Lets one piece of work run at a time, queries before imports, each kind in order of arrival. */
class Turns {
  readonly #waiting: Record<Priority, (() => void)[]> = { query: [], import: [] }
  #busy = false
  #closed = false

  async run<T>(priority: Priority, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    if (this.#busy) await new Promise<void>((resolve) => this.#waiting[priority].push(resolve))
    this.#busy = true
    try {
      if (this.#closed) throw shuttingDown()
      signal?.throwIfAborted()
      return await work()
    } finally {
      this.#next()
    }
  }

  /** Resolves once the work in progress is done and all that waited has been refused. */
  async close(): Promise<void> {
    this.#closed = true
    while (this.#busy) await new Promise<void>((resolve) => this.#waiting.import.push(() => resolve(this.#next())))
  }

  #next(): void {
    const next = this.#waiting.query.shift() ?? this.#waiting.import.shift()
    if (next === undefined) this.#busy = false
    else next()
  }
}
