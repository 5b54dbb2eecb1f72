import type { Runtime } from '../../src/engine/embedded/runtime.ts'
import type { Embedder, PairReader } from '../../src/engine/engine.ts'
import { cachedEmbedder } from '../../src/memory/vectors/cached-embedder.ts'
import { EMBED_PREFIX, EMBEDDER_MODEL, READER_MODEL } from '../../src/models/catalog.ts'
import { cachedReader } from '../../src/selection/reader-cache.ts'

const CACHE_BYTES = 256 << 20

/** The embedder and the reader that ship, from their GGUF files, each remembering what it was asked. */
export async function selectionModels(
  runtime: Runtime,
  files: { readonly embedder: string; readonly reader: string },
): Promise<{ embedder: Embedder; reader: PairReader }> {
  const name = EMBEDDER_MODEL
  const embedder = await runtime.openEmbedder({ modelPath: files.embedder, name, prefix: EMBED_PREFIX[name] ?? '' })
  const reader = await runtime.openReader({ modelPath: files.reader, name: READER_MODEL })
  return { embedder: cachedEmbedder(embedder, CACHE_BYTES), reader: cachedReader(reader, CACHE_BYTES) }
}
