import type { CustomBatchingPrioritizationStrategy, EvaluationPriority, LlamaContext, LlamaContextSequence } from 'node-llama-cpp'
import { aroundBatches } from './native.ts'

/** Marks a seeded request's evaluations: nothing else shares a batch with them, so that its logits do not depend on who else is served. */
export const ALONE: EvaluationPriority = 5
export const SHARED: EvaluationPriority = 4

/**
 * llama.cpp's results for one sequence depend on the shape of the whole batch. So a batch is either one evaluation marked ALONE, the
 * one that waits longest, or all the others together; the two kinds take turns. Items fit whole: the batch holds a piece for every slot.
 */
export function alonePerBatch(): CustomBatchingPrioritizationStrategy {
  let lastWasAlone = false
  return ({ items, size }) => {
    const shared = items.filter((item) => item.evaluationPriority !== ALONE)
    const alone = items.find((item) => item.evaluationPriority === ALONE)
    lastWasAlone = alone !== undefined && (shared.length === 0 || !lastWasAlone)
    const chosen = lastWasAlone && alone !== undefined ? [alone] : shared
    let left = size
    return chosen
      .map((item) => {
        const processAmount = Math.min(item.tokens.length, left)
        left -= processAmount
        return { item, processAmount }
      })
      .filter(({ processAmount }) => processAmount > 0)
  }
}

/** Work of a context that can only be done while no batch is under way, and how much of it waits. */
interface Between {
  waiting: number
  done: Promise<void>
}
const betweenOf = new WeakMap<LlamaContext, Between>()

/**
 * Answers that run at the same time go into one batch. node-llama-cpp looks for the next batch the moment the last token of this one is
 * drawn, before whoever waits for that token could ask for another: two answers then take turns, eight go as seven and one. Here it
 * waits for one turn of the event loop after each batch.
 */
export function together(sequence: LlamaContextSequence): LlamaContextSequence {
  const before = async () => {
    const between = betweenOf.get(sequence.context)
    if (between !== undefined && between.waiting > 0) await between.done
  }
  aroundBatches(sequence, before, () => new Promise((resolve) => setImmediate(resolve)))
  return sequence
}

/**
 * Does `work` on a context's cache after the batch under way. node-llama-cpp keeps the context to its batches for as long as there is a
 * next one, so that whoever must rewind a cache first would wait until all running answers have ended: they are held back meanwhile.
 */
export function betweenBatches<T>(context: LlamaContext, work: () => Promise<T>): Promise<T> {
  const between = betweenOf.get(context) ?? { waiting: 0, done: Promise.resolve() }
  betweenOf.set(context, between)
  between.waiting++
  const working = work().finally(() => {
    between.waiting--
  })
  between.done = Promise.allSettled([between.done, working]).then(() => undefined)
  return working
}
