/**
 * A gateway as `palimpsest serve` runs it, configured by environment and file, but with stand-ins for embedder and reader: for tests and benches
 * that start several, restart and kill them.
 */
import { serve } from '../../src/cli/serve.ts'
import { readConfig } from '../../src/config.ts'
import { DEFAULT_LIMITS, type Limits } from '../../src/gateway.ts'
import { openWeights } from '../../src/server/models.ts'
import { BAG_DIMENSIONS, bagOfWords, fakeEmbedder, lexicalReader } from './memory-data.ts'

const embedder = fakeEmbedder({ name: 'bag of words', dimensions: BAG_DIMENSIONS, vector: bagOfWords })
const standIns: typeof openWeights = (config, choice, log, signal) => ({
  ...openWeights(config, choice, log, signal),
  embedder: async () => ({ ...embedder, countTokens: async (text) => text.length }),
  reader: () => lexicalReader(),
})

process.exitCode = await serve(() => readConfig<Limits>({ flags: {}, limits: DEFAULT_LIMITS }), standIns)
process.exit()
