import { createHash } from 'node:crypto'

/** Numbers in [0, 1), the same for the same seed on every machine: sfc32 (Doty-Humphrey, PractRand), its state from a sha256 of the seed. */
export function randomFrom(...seed: readonly (string | number)[]): () => number {
  const hash = createHash('sha256').update(JSON.stringify(seed)).digest()
  let [a, b, c, d] = [0, 4, 8, 12].map((at) => hash.readInt32LE(at)) as [number, number, number, number]
  return () => {
    const t = (((a + b) | 0) + d) | 0
    d = (d + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + t) | 0
    return (t >>> 0) / 2 ** 32
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
