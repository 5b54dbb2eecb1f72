import type { LlamaContext, LlamaContextSequence } from 'node-llama-cpp'
import { type Cached, truncate } from '../scheduling/prefix-cache.ts'
import { betweenBatches, together } from './batching.ts'

/** A sequence of a context, and the record of what it has cached. */
export interface Slot extends Cached {
  readonly sequence: LlamaContextSequence
}

export function openSequence(context: LlamaContext): LlamaContextSequence {
  const strategy = () => {
    throw new Error('the context is full, and the engine never drops its beginning')
  }
  return together(context.getSequence({ contextShift: { strategy } }))
}

/** Leave the first `length` tokens in the cache; returns how many really are left. */
export async function rewind(slot: Slot, length: number): Promise<number> {
  const { sequence } = slot
  if (sequence.nextTokenIndex === slot.tokens.length && slot.tokens.length > length)
    await betweenBatches(sequence.context, () => sequence.adaptStateToTokens(slot.tokens.slice(0, length) as never, false))
  // A model that cannot erase part of its cache, or a state that is not what was recorded: begin anew.
  if (sequence.nextTokenIndex !== length) await clear(slot)
  truncate(slot, sequence.nextTokenIndex)
  return sequence.nextTokenIndex
}

export function clear({ sequence }: Slot): Promise<void> {
  return betweenBatches(sequence.context, () => sequence.clearHistory())
}
