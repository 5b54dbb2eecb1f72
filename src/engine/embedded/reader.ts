import type { LlamaContext, LlamaModel, Token } from 'node-llama-cpp'
import type { PairReader, TextPair } from '../engine.ts'
import { ItemQueue, sideBySide } from '../scheduling/item-queue.ts'
import { openRanking } from './native.ts'

/** Tokens of a pair, special ones included; a longer one is cut at its end. */
const PAIR_TOKENS = 320
/** From this many tokens on, llama.cpp's flash attention is the faster one on a CPU; below it takes twice as long (docs/LOG.md, 2026-11-28). */
const FLASH_TOKENS = 64
/**
 * Pairs read side by side, at most, each on its share of the threads. So short a text leaves threads waiting for each other: on two cores two
 * pairs of 60 tokens take 62 ms side by side, and 87 one after the other on both (docs/LOG.md, 2026-11-30).
 */
const LANES = 4

/**
 * A cross-encoder in llama.cpp: the pair as `<s> text </s></s> edit </s>`, its logit from the first token. llama.cpp gives the pooled value of
 * one sequence only, so each lane is a context of its own. Queries before imports (see ItemQueue).
 */
export async function openReader(model: LlamaModel, name: string, threads: number): Promise<PairReader> {
  const { bos, eos } = model.tokens
  if (bos === null || eos === null) throw new Error(`the reader ${name} has no special tokens`)
  const tokensOf = ([text, edit]: TextPair): Token[] =>
    [bos, ...model.tokenize(text), eos, eos, ...model.tokenize(edit), eos].slice(0, PAIR_TOKENS)

  const count = Math.min(threads, LANES)
  const alone = await openLane(model, threads)
  const lanes = await Promise.all(
    Array.from({ length: count === 1 ? 0 : count }, () => openLane(model, Math.floor(threads / count))),
  )
  const free = [...lanes]
  const logitOf = async (pair: TextPair): Promise<number> => {
    const lane = free.pop() ?? alone
    try {
      return await lane.evaluate(tokensOf(pair))
    } finally {
      if (lane !== alone) free.push(lane)
    }
  }
  const logitsOf = async (pairs: readonly TextPair[]): Promise<number[]> => {
    const [first] = pairs
    return pairs.length === 1 && first !== undefined ? [await alone.evaluate(tokensOf(first))] : sideBySide(pairs, count, logitOf)
  }

  const queue = new ItemQueue(logitsOf, () => (count === 1 ? 1 : 2 * count))
  return {
    name,
    read: async (pairs, priority, signal) => Float32Array.from(await queue.run(pairs, priority, signal)),
    async close() {
      await queue.close()
      await Promise.all([alone, ...lanes].flatMap(({ contexts }) => contexts.map((context) => context.dispose())))
      await model.dispose()
    },
  }
}

interface Lane {
  readonly contexts: readonly LlamaContext[]
  evaluate(tokens: Token[]): Promise<number>
}

async function openLane(model: LlamaModel, threads: number): Promise<Lane> {
  const sized = (tokens: number) => ({ contextSize: tokens, batchSize: tokens, threads })
  const short = await openRanking(model, { ...sized(FLASH_TOKENS), flashAttention: false })
  const long = await openRanking(model, { ...sized(PAIR_TOKENS), flashAttention: true })
  return {
    contexts: [short.context, long.context],
    evaluate: (tokens) => (tokens.length < FLASH_TOKENS ? short : long).evaluate(tokens),
  }
}
