import type { LlamaModel } from 'node-llama-cpp'
import type { PairReader, TextPair } from '../engine.ts'
import { ItemQueue } from '../scheduling/item-queue.ts'
import { openRanking } from './native.ts'

/** Tokens of a pair, special ones included; a longer one is cut at its end. */
const PAIR_TOKENS = 320
/** From this many tokens on, llama.cpp's flash attention is the faster one on a CPU; below it takes twice as long (docs/LOG.md, 2026-11-28). */
const FLASH_TOKENS = 64

/**
 * A cross-encoder in llama.cpp: the pair as `<s> text </s></s> edit </s>`, its logit from the first token. One pair at a time,
 * queries before imports (see ItemQueue).
 */
export async function openReader(model: LlamaModel, name: string, threads: number): Promise<PairReader> {
  const sized = (tokens: number) => ({ contextSize: tokens, batchSize: tokens, threads })
  const short = await openRanking(model, { ...sized(FLASH_TOKENS), flashAttention: false })
  const long = await openRanking(model, { ...sized(PAIR_TOKENS), flashAttention: true })
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
