import { createHash } from 'node:crypto'
import type { Embedder } from '../../src/engine/engine.ts'
import { random } from '../scale/vectors.ts'

const DIMENSIONS = 384

/** Unit vectors that depend on nothing but the text; `embedded` counts the texts that were asked for. */
export function standInEmbedder(): Embedder & { embedded: number } {
  const vectorOf = (text: string): Float32Array => {
    const next = random(createHash('sha256').update(text).digest().readInt32LE(0))
    const vector = Float32Array.from({ length: DIMENSIONS }, () => next() - 0.5)
    const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0))
    return vector.map((x) => x / length)
  }
  return {
    ...{ name: 'stand-in', dimensions: DIMENSIONS, maxTokens: 512, embedded: 0, close: async () => {} },
    async embed(texts) {
      this.embedded += texts.length
      return texts.map(vectorOf)
    },
  }
}
