import { PalimpsestError } from '../../errors.ts'
import type { Embedder } from '../engine.ts'
import { ItemQueue } from '../scheduling/item-queue.ts'

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

/**
 * One text at a time, queries before imports (see ItemQueue). Vectors have unit length. A text longer than `maxTokens` is represented by its
 * beginning.
 */
export function createEmbedder(parts: EmbedderParts): Required<Embedder> {
  const queue = new ItemQueue((text: string) => embedOne(text, parts))
  return {
    name: parts.name,
    dimensions: parts.dimensions,
    maxTokens: parts.maxTokens,
    async countTokens(text) {
      const { wrap, maxTokens } = parts
      const read = text.slice(0, maxTokens * CHARS_PER_TOKEN)
      const tokens = wrap.first.length + parts.tokenize(read).length + wrap.last.length
      return text.length > read.length ? Math.max(tokens, maxTokens + 1) : tokens
    },
    embed: (texts, priority, signal) => queue.run(texts, priority, signal),
    async close() {
      await queue.close()
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
