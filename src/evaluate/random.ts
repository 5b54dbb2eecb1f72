import { createHash } from 'node:crypto'

/** Numbers in [0, 1), the same for the same seed on every machine: successive sha256 blocks. */
export function randomFrom(...seed: readonly (string | number)[]): () => number {
  let drawn = 0
  let block = Buffer.alloc(0)
  return () => {
    const at = (drawn % 8) * 4
    if (at === 0)
      block = createHash('sha256')
        .update(JSON.stringify([drawn, ...seed]))
        .digest()
    drawn++
    return block.readUInt32BE(at) / 2 ** 32
  }
}

/** Fisher and Yates, on a copy. */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const out = [...items]
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[out[i], out[j]] = [out[j] as T, out[i] as T]
  }
  return out
}

/** `n` of the items without repetition, in their own order; all of them when there are no more. */
export function sample<T>(items: readonly T[], n: number, random: () => number): T[] {
  if (items.length <= n) return [...items]
  const taken = shuffled(
    items.map((_, i) => i),
    random,
  ).slice(0, n)
  return taken.sort((a, b) => a - b).map((i) => items[i] as T)
}
