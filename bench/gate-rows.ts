import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { getLlama } from 'node-llama-cpp'

/** Embeddings with a cache on disk, so that a second fit takes seconds. */
export async function diskEmbedder(modelPath: string, cachePath: string) {
  const cache = new Map<string, Float32Array>()
  if (existsSync(cachePath)) {
    const raw = readFileSync(cachePath)
    for (let o = 0; o + 16 + 384 * 4 <= raw.length; o += 16 + 384 * 4) {
      cache.set(
        raw.toString('hex', o, o + 16),
        new Float32Array(raw.buffer.slice(raw.byteOffset + o + 16, raw.byteOffset + o + 16 + 384 * 4)),
      )
    }
  }
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 1 })
  const model = await llama.loadModel({ modelPath })
  const context = await model.createEmbeddingContext({ contextSize: 512, threads: 1 })
  const key = (text: string) => createHash('md5').update(text).digest('hex')
  let fresh = 0
  const save = () => {
    const out = Buffer.alloc(cache.size * (16 + 384 * 4))
    let o = 0
    for (const [k, v] of cache) {
      out.write(k, o, 'hex')
      Buffer.from(v.buffer, v.byteOffset, v.byteLength).copy(out, o + 16)
      o += 16 + 384 * 4
    }
    writeFileSync(cachePath, out)
  }
  return {
    async embed(text: string): Promise<Float32Array> {
      const k = key(text)
      const had = cache.get(k)
      if (had !== undefined) return had
      const tokens = model.tokenize(text).slice(0, 500)
      const { vector } = await context.getEmbeddingFor(tokens)
      const norm = Math.hypot(...vector)
      const unit = Float32Array.from(vector, (x) => x / norm)
      cache.set(k, unit)
      if (++fresh % 2000 === 0) {
        console.error(`${fresh} embedded`)
        save()
      }
      return unit
    },
    async close() {
      save()
      await llama.dispose()
    },
  }
}

export function dot(a: Float32Array, b: Float32Array): number {
  let s = 0
  for (let i = 0; i < a.length; i++) s += (a[i] ?? 0) * (b[i] ?? 0)
  return s
}
