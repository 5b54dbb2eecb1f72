import type { LlamaContext, LlamaModel, Token } from 'node-llama-cpp'
import type { PairReader, TextPair } from '../engine.ts'
import { ItemQueue, itemsFor, sideBySide } from '../scheduling/item-queue.ts'
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
  const share = Math.floor(threads / count)
  const lanes = count === 1 ? [alone] : await Promise.all(Array.from({ length: count }, () => openLane(model, share)))
  const logitsOf = (pairs: readonly TextPair[]): Promise<number[]> =>
    sideBySide(pairs.length === 1 ? [alone] : lanes, pairs, (lane, pair) => lane.evaluate(tokensOf(pair)))

  const queue = new ItemQueue(logitsOf, () => itemsFor(count))
  return {
    name,
    read: async (pairs, priority, signal) => Float32Array.from(await queue.run(pairs, priority, signal)),
    async close() {
      await queue.close()
      await Promise.all([...new Set([alone, ...lanes])].flatMap(({ contexts }) => contexts.map((context) => context.dispose())))
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
