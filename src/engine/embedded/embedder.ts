import type { LlamaModel } from 'node-llama-cpp'
import { PalimpsestError } from '../../errors.ts'
import type { Embedder } from '../engine.ts'
import { tokenize } from '../format/chat-format.ts'
import { ItemQueue, itemsFor, sideBySide } from '../scheduling/item-queue.ts'

/** What the reference implementation of all-MiniLM-L6-v2 reads of a text (its `max_seq_length`). */
export const DEFAULT_EMBED_TOKENS = 256

/** Text beyond this many characters for every token is not even tokenized, which costs time in proportion. */
const CHARS_PER_TOKEN = 100

type Evaluate = (tokens: number[]) => Promise<readonly number[]>

export interface EmbedderParts {
  readonly name: string
  readonly dimensions: number
  /** Longer texts are cut to this, `wrap` included. */
  readonly maxTokens: number
  readonly tokenize: (text: string) => number[]
  /** Special tokens before and after every text. */
  readonly wrap: { readonly first: readonly number[]; readonly last: readonly number[] }
  /** Each evaluates a text at a time. */
  readonly lanes: readonly Evaluate[]
  /** While it is true, they are evaluated one at a time: a chat has the other threads. */
  readonly isBusy: () => boolean
  readonly free: () => Promise<void>
}

/**
 * Some texts at a time, queries before imports (see ItemQueue). Vectors have unit length. A text longer than `maxTokens` is represented by its
 * beginning.
 */
export function createEmbedder(parts: EmbedderParts): Required<Embedder> {
  const { lanes, isBusy } = parts
  const embed = (texts: readonly string[]) => sideBySide(lanes, texts, (evaluate, text) => embedOne(text, evaluate, parts))
  const queue = new ItemQueue(embed, () => itemsFor(isBusy() ? 1 : lanes.length))
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

export interface OpenEmbedderOptions extends Pick<EmbedderParts, 'name' | 'isBusy'> {
  /** See `EmbedderOptions`. */
  readonly maxTokens?: number
  readonly prefix?: string
  readonly threads: number
}

/** Texts evaluated side by side, at most, each on one thread: on two cores two take 8 ms each so, one after the other 15 (docs/LOG.md, 2026-11-30). */
const LANES = 4

/**
 * An embedder in llama.cpp. A text has one thread: a question takes a few milliseconds on one, and two that spin beside a busy chat take
 * hundreds.
 */
export async function openEmbedder(model: LlamaModel, options: OpenEmbedderOptions): Promise<Required<Embedder>> {
  const { name, isBusy, threads, maxTokens = DEFAULT_EMBED_TOKENS, prefix = '' } = options
  const limit = Math.min(maxTokens, model.trainContextSize - 1)
  const size = { contextSize: limit + 1, batchSize: limit + 1, threads: 1 }
  const contexts = await Promise.all(Array.from({ length: Math.min(threads, LANES) }, () => model.createEmbeddingContext(size)))
  const vocabulary = {
    tokens: model.tokens,
    tokenize: (text: string, special?: boolean): number[] => model.tokenize(text, special),
  }
  const [first, last] = [model.tokens.bos ?? [], model.tokens.sep ?? model.tokens.eos ?? []].map((token) => [token].flat())
  return createEmbedder({
    ...{ name, isBusy, dimensions: model.embeddingVectorSize, maxTokens: limit },
    tokenize: (text) => tokenize(vocabulary, [{ kind: 'text', text: prefix + text }]),
    wrap: { first: first ?? [], last: last ?? [] },
    lanes: contexts.map((context) => async (tokens) => (await context.getEmbeddingFor(tokens as never)).vector),
    free: async () => {
      await Promise.all(contexts.map((context) => context.dispose()))
      await model.dispose()
    },
  })
}

async function embedOne(
  text: string,
  evaluate: Evaluate,
  { tokenize, wrap, maxTokens, dimensions, name }: EmbedderParts,
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
