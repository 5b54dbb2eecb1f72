import type { LlamaContext, LlamaContextSequence, LlamaModel, Token } from 'node-llama-cpp'
import type { PairReader, TextPair } from '../engine.ts'
import { ItemQueue } from '../scheduling/item-queue.ts'

/** Tokens of a pair, special ones included; a longer one is cut at its end. */
const PAIR_TOKENS = 320
/** From this many tokens on, llama.cpp's flash attention is the faster one on a CPU; below it takes twice as long (docs/LOG.md, 2026-11-28). */
const FLASH_TOKENS = 64

/**
 * A cross-encoder in llama.cpp: the pair as `<s> text </s></s> edit </s>`, its logit from the first token. One pair at a time,
 * queries before imports (see ItemQueue).
 */
export async function openReader(model: LlamaModel, name: string, threads: number): Promise<PairReader> {
  const short = await openRanking(model, FLASH_TOKENS, false, threads)
  const long = await openRanking(model, PAIR_TOKENS, true, threads)
  const { bos, eos } = model.tokens
  if (bos === null || eos === null) throw new Error(`the reader ${name} has no special tokens`)
  const logitOf = async ([text, edit]: TextPair): Promise<number> => {
    const tokens = [bos, ...model.tokenize(text), eos, eos, ...model.tokenize(edit), eos].slice(0, PAIR_TOKENS)
    return (tokens.length < FLASH_TOKENS ? short : long).evaluate(tokens)
  }

  const queue = new ItemQueue(logitOf)
  return {
    name,
    read: async (pairs, priority, signal) => Float32Array.from(await queue.run(pairs, priority, signal)),
    async close() {
      await queue.close()
      await Promise.all([short.context.dispose(), long.context.dispose()])
      await model.dispose()
    },
  }
}

interface Ranking {
  readonly context: LlamaContext
  evaluate(tokens: Token[]): Promise<number>
}

/** What node-llama-cpp 3.22.1 keeps to itself: a context that pools to a rank, and its value before the sigmoid. */
interface Private {
  readonly _ctx: { getEmbedding(tokens: number, values: number): ArrayLike<number> }
}

async function openRanking(model: LlamaModel, contextSize: number, flashAttention: boolean, threads: number): Promise<Ranking> {
  const hidden = { _embeddings: true, _ranking: true }
  const context = await model.createContext({
    contextSize,
    batchSize: contextSize,
    sequences: 1,
    flashAttention,
    threads,
    ...hidden,
  })
  const sequence: LlamaContextSequence = context.getSequence()
  const { _ctx: computed } = context as unknown as Private
  if (typeof computed?.getEmbedding !== 'function')
    throw new Error('node-llama-cpp no longer ranks as engine/embedded/reader.ts expects')
  return {
    context,
    async evaluate(tokens) {
      await sequence.eraseContextTokenRanges([{ start: 0, end: sequence.nextTokenIndex }])
      for await (const _ of sequence.evaluate(tokens, { _noSampling: true } as object)) break
      return computed.getEmbedding(tokens.length, 1)[0] ?? Number.NaN
    },
  }
}
