import type { CustomBatchingPrioritizationStrategy, EvaluationPriority } from 'node-llama-cpp'

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
