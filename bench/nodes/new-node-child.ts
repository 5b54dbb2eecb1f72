/**
 * One start of a node, up to where it would answer /readyz with 200: `node new-node-child.js SRC URL`. `SRC`: the compiled sources to start, so that
 * two versions can be measured side by side. Prints a line of JSON.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { standInEmbedder } from './stand-in-vectors.ts'

const [src = '', url = ''] = process.argv.slice(2)
const of = async <Module>(path: string): Promise<Module> => (await import(join(src, path))) as Module
const { Postgres } = await of<typeof import('../../src/storage/postgres/postgres.ts')>('storage/postgres/postgres.js')
const { openMemory } = await of<typeof import('../../src/memory/store.ts')>('memory/store.js')
const { Retriever } = await of<typeof import('../../src/selection/retriever.ts')>('selection/retriever.js')

const embedder = standInEmbedder()
const reader = { name: 'none', read: async () => new Float32Array(), close: async () => {} }
const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-new-node-'))
const log = { info: () => {}, warn: console.error, error: console.error }
const begun = performance.now()
const database = new Postgres({ url, warn: console.error })
const memory = await openMemory({ dataDir, database, embedder, now: Date.now, log })
const openedMs = performance.now() - begun
new Retriever(memory, embedder, reader, { now: Date.now, cacheBytes: 1_000_000 })
const readyMs = performance.now() - begun
const { user, system } = process.cpuUsage()
const [index] = memory.status()
console.log(
  JSON.stringify({
    ...{
      openedMs,
      readyMs,
      processorMs: (user + system) / 1_000,
      embedded: embedder.embedded,
      rssMb: process.memoryUsage.rss() / 1e6,
    },
    ...{ edits: memory.list({ tenant: 'default', limit: 1 }).total, indexed: index?.indexed, pending: index?.pending },
  }),
)
rmSync(dataDir, { recursive: true, force: true })
// The graph that would be built from now on is another bench's (scale.ts).
process.exit(0)
