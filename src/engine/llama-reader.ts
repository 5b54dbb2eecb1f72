import type { LlamaContext, LlamaContextSequence, LlamaModel, Token } from 'node-llama-cpp'
import type { PairReader, TextPair } from './engine.ts'
import { shuttingDown } from './queue.ts'

/** Tokens of a pair, special ones included; a longer one is cut at its end. */
const PAIR_TOKENS = 320
/** From this many tokens on, llama.cpp's flash attention is the faster one on a CPU; below it takes twice as long (docs/LOG.md, 2026-11-28). */
const FLASH_TOKENS = 64

type Priority = 'query' | 'import'

interface Job {
  readonly pairs: readonly TextPair[]
  readonly signal: AbortSignal | undefined
  readonly logits: number[]
  readonly done: (logits: Float32Array) => void
  readonly failed: (reason: unknown) => void
}

/**
 * A cross-encoder in llama.cpp: the pair as `<s> text </s></s> edit </s>`, its logit from the first token. One pair at a time; after each pair a
 * waiting query goes before every import. An abort takes effect between pairs.
 */
export async function openReader(model: LlamaModel, name: string, threads: number): Promise<PairReader> {
  const short = await openRanking(model, FLASH_TOKENS, false, threads)
  const long = await openRanking(model, PAIR_TOKENS, true, threads)
  const { bos, eos } = model.tokens
  if (bos === null || eos === null) throw new Error(`the reader ${name} has no special tokens`)
  const waiting: Record<Priority, Job[]> = { query: [], import: [] }
  let closed = false
  let working: Promise<void> | null = null

  const logitOf = async ([text, edit]: TextPair): Promise<number> => {
    const tokens = [bos, ...model.tokenize(text), eos, eos, ...model.tokenize(edit), eos].slice(0, PAIR_TOKENS)
    return (tokens.length < FLASH_TOKENS ? short : long).evaluate(tokens)
  }

  async function work(): Promise<void> {
    // Not in the caller's turn: a job of no pairs would be over before `working` is set, and nothing would begin again.
    await Promise.resolve()
    for (;;) {
      const queue = waiting.query.length > 0 ? waiting.query : waiting.import
      const job = queue[0]
      if (job === undefined) break
      try {
        if (closed) throw shuttingDown()
        job.signal?.throwIfAborted()
        const pair = job.pairs[job.logits.length]
        if (pair !== undefined) job.logits.push(await logitOf(pair))
        if (job.logits.length < job.pairs.length) continue
        job.done(Float32Array.from(job.logits))
      } catch (error) {
        job.failed(error)
      }
      queue.shift()
    }
    working = null
  }

  return {
    name,
    read: (pairs, priority, signal) =>
      new Promise((done, failed) => {
        waiting[priority].push({ pairs, signal, logits: [], done, failed })
        working ??= work()
      }),
    async close() {
      closed = true
      await working
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
  if (typeof computed?.getEmbedding !== 'function') throw new Error('node-llama-cpp no longer ranks as llama-reader.ts expects')
  return {
    context,
    async evaluate(tokens) {
      await sequence.eraseContextTokenRanges([{ start: 0, end: sequence.nextTokenIndex }])
      for await (const _ of sequence.evaluate(tokens, { _noSampling: true } as object)) break
      return computed.getEmbedding(tokens.length, 1)[0] ?? Number.NaN
    },
  }
}
