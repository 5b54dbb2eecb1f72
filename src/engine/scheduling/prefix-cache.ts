/**
 * What a slot has cached, and which slot a prompt goes to; pure.
 *
 * Evaluating the same tokens in batches of another shape moves the logits (by about 1e-2, measured), so a cache is only reused up to a
 * place where a batch began: then the batches that follow have the shapes they would have had anyway.
 */

/** Prompts are evaluated in pieces that begin at multiples of this. */
export const PREFILL_PIECE_TOKENS = 64

export interface Cached {
  /** Which adapter computed it, at which scale; '' for none. What one adapter computed is of no use to another. */
  adapter: string
  /** Tokens evaluated, in order. */
  tokens: number[]
  /** Positions at which a batch began, ascending; the first is 0 unless nothing is cached. */
  boundaries: number[]
  /** Up to here every batch was a whole piece at its own multiple of the piece length, whatever was asked before. */
  alignedTokens: number
  /** When it was last released; larger is later. */
  lastUsed: number
}

export function empty(): Cached {
  return { adapter: '', tokens: [], boundaries: [], alignedTokens: 0, lastUsed: 0 }
}

export function commonPrefix(a: readonly number[], b: readonly number[]): number {
  const shorter = Math.min(a.length, b.length)
  let length = 0
  while (length < shorter && a[length] === b[length]) length++
  return length
}

/**
 * The slot for `prompt`: one that holds the same conversation (the common prefix covers at least half of what it caches), the longest
 * prefix first; else the least recently used, empty ones first. undefined only when there are none.
 */
export function chooseSlot<Slot extends Cached>(
  free: readonly Slot[],
  prompt: readonly number[],
  adapter = '',
): Slot | undefined {
  const ranked = free.map((slot) => {
    const shared = slot.adapter === adapter ? commonPrefix(slot.tokens, prompt) : 0
    return { slot, shared: shared > 0 && shared * 2 >= slot.tokens.length ? shared : 0 }
  })
  const age = (slot: Cached) => (slot.tokens.length === 0 ? Number.NEGATIVE_INFINITY : slot.lastUsed)
  ranked.sort((a, b) => b.shared - a.shared || age(a.slot) - age(b.slot))
  return ranked[0]?.slot
}

/**
 * How many cached tokens `prompt` takes over. The last prompt token is always evaluated again, for its logits. `exact`: only whole
 * aligned pieces count, so that the result does not depend on what the slot did before.
 */
export function reusable(slot: Cached, prompt: readonly number[], exact: boolean): number {
  const shared = Math.min(commonPrefix(slot.tokens, prompt), prompt.length - 1)
  if (exact) return pieceStart(Math.min(shared, slot.alignedTokens))
  if (shared === slot.tokens.length) return shared
  return slot.boundaries.findLast((start) => start <= shared) ?? 0
}

/** From now on the slot is `adapter`'s: what another one has cached there is forgotten. */
export function dedicate(slot: Cached, adapter: string): void {
  if (slot.adapter !== adapter) truncate(slot, 0)
  slot.adapter = adapter
}

/** Where the piece that holds position `at` begins. */
function pieceStart(at: number): number {
  return at - (at % PREFILL_PIECE_TOKENS)
}

/** Forget everything from position `length` on. */
export function truncate(slot: Cached, length: number): void {
  slot.tokens.length = length
  slot.boundaries = slot.boundaries.filter((start) => start < length)
  slot.alignedTokens = Math.min(slot.alignedTokens, pieceStart(length))
}

/** Record that `tokens` were evaluated in one batch at the end of the slot. */
export function append(slot: Cached, tokens: readonly number[]): void {
  const start = slot.tokens.length
  slot.boundaries.push(start)
  for (const token of tokens) slot.tokens.push(token)
  if (start === slot.alignedTokens && tokens.length === PREFILL_PIECE_TOKENS) slot.alignedTokens += PREFILL_PIECE_TOKENS
}

/** `prompt` from position `from` on, cut at multiples of the piece length. */
export function pieces(prompt: readonly number[], from: number): number[][] {
  const cut: number[][] = []
  for (let start = from; start < prompt.length; ) {
    const end = Math.min(prompt.length, pieceStart(start) + PREFILL_PIECE_TOKENS)
    cut.push(prompt.slice(start, end))
    start = end
  }
  return cut
}
