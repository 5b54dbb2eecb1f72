import { LRUCache } from 'lru-cache'
import type { Embedder } from '../../engine/engine.ts'

/** Map entry, key header and list links of one cached vector, roughly. */
const ENTRY_BYTES = 160

/**
 * The embedder with its latest answers remembered, in at most `bytes`. Texts embedded at 'import' priority are looked up but not
 * remembered: a long import would push out the questions. A vector may be handed out many times: do not write to it.
 */
export function cachedEmbedder(embedder: Embedder, bytes: number): Embedder {
  const cache = new LRUCache<string, Float32Array>({
    maxSize: Math.max(1, bytes),
    sizeCalculation: (vector, text) => vector.byteLength + 2 * text.length + ENTRY_BYTES,
  })
  return {
    name: embedder.name,
    dimensions: embedder.dimensions,
    maxTokens: embedder.maxTokens,
    async embed(texts, priority, signal) {
      const known = new Map<string, Float32Array>()
      for (const text of texts) {
        const vector = cache.get(text)
        if (vector !== undefined) known.set(text, vector)
      }
      const missing = [...new Set(texts)].filter((text) => !known.has(text))
      const fresh = missing.length === 0 ? [] : await embedder.embed(missing, priority, signal)
      for (const [i, text] of missing.entries()) {
        const vector = fresh[i]
        if (vector === undefined)
          throw new Error(`embedder ${embedder.name} returned ${fresh.length} vectors for ${missing.length} texts`)
        known.set(text, vector)
        if (priority === 'query') cache.set(text, vector)
      }
      return texts.map((text) => known.get(text) as Float32Array)
    },
    close: () => embedder.close(),
  }
}
