/**
 * A gateway as `palimpsest serve` runs it, configured by environment and file, but with stand-ins for embedder and reader: for tests and benches
 * that start several, restart and kill them.
 */
import { serve } from '../../../src/cli/serve.ts'
import { readConfig } from '../../../src/config.ts'
import type { OwnEngine } from '../../../src/engine/engine.ts'
import { openOwnModel } from '../../../src/engine/own-model.ts'
import { openScripted } from '../../../src/engine/scripted.ts'
import { DEFAULT_LIMITS, type Limits } from '../../../src/gateway.ts'
import { openWeights } from '../../../src/server/models.ts'
import { BAG_DIMENSIONS, bagOfWords, fakeEmbedder, lexicalReader } from '../memory-data.ts'

const embedder = fakeEmbedder({ name: 'bag of words', dimensions: BAG_DIMENSIONS, vector: bagOfWords })
/** A script that builds llama-server, for a gateway over a model of its own that is none; absent: over the servers of its configuration. */
const BUILDER = process.env.PALIMPSEST_TEST_BUILDER
const none = (): Promise<never> => Promise.reject(new Error('there is no model'))
const NO_ADAPTERS = { check: none, baseSha256: none, load: none, unload: none, loaded: () => false }
const standIns: typeof openWeights = (config, choice, log, signal) => ({
  ...openWeights(config, choice, log, signal),
  ...(BUILDER !== undefined && {
    engine: async () => {
      const openChat = async () => openScripted({ name: 'scripted', reply: () => 'Hello', loras: NO_ADAPTERS }) as OwnEngine
      const runtime = { device: 'cpu', openChat, openServed: none, memoryBytes: none }
      const options = { modelPath: 'none', name: 'none' }
      return (
        await openOwnModel({ runtime, config, options, log, signal, builder: [process.execPath, BUILDER], freeBytes: () => 1e9 })
      ).engine
    },
  }),
  embedder: async () => ({ ...embedder, countTokens: async (text) => text.length }),
  reader: () => lexicalReader(),
  warm: () => {},
})

process.exitCode = await serve(() => readConfig<Limits>({ flags: {}, limits: DEFAULT_LIMITS }), standIns)
process.exit()
