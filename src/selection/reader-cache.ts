import { LRUCache } from 'lru-cache'
import type { PairReader, TextPair } from '../engine/engine.ts'

/** Map entry and list links of one cached score, roughly. */
const ENTRY_BYTES = 160

/** The reader with its latest scores remembered by (text, edit), in at most `bytes`. */
export function cachedReader(reader: PairReader, bytes: number): PairReader {
  const cache = new LRUCache<string, number>({
    maxSize: Math.max(1, bytes),
    sizeCalculation: (_, key) => 2 * key.length + ENTRY_BYTES,
  })
  const keyOf = ([text, edit]: TextPair) => `${text}\u0000${edit}`
  return {
    name: reader.name,
    async read(pairs, priority, signal) {
      const known = new Map<string, number>()
      const missing = new Map<string, TextPair>()
      for (const pair of pairs) {
        const key = keyOf(pair)
        const logit = cache.get(key)
        if (logit === undefined) missing.set(key, pair)
        else known.set(key, logit)
      }
      if (missing.size > 0) {
        const logits = await reader.read([...missing.values()], priority, signal)
        for (const [i, key] of [...missing.keys()].entries()) {
          const logit = logits[i] ?? Number.NEGATIVE_INFINITY
          known.set(key, logit)
          cache.set(key, logit)
        }
      }
      return Float32Array.from(pairs, (pair) => known.get(keyOf(pair)) ?? Number.NEGATIVE_INFINITY)
    },
    close: () => reader.close(),
  }
}
