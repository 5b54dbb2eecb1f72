import { writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { openMemory } from '../../../src/memory/store.ts'
// Built with this, since a thread is named by its file.
import '../../../src/memory/graph/graph-worker.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { fact, fakeEmbedder } from '../memory-data.ts'

/**
 * Lands `batches` batches (default: for ever) of `size` edits, saying "ack N" after each, and "embedded N" when the vectors of N texts are
 * made; each call of the embedder takes `embedMs`. With `url`, into that PostgreSQL. Run and killed by memory-kill.test.ts.
 */
const [dataDir = '', first = '0', size = '1', batches = 'Infinity', embedMs = '0', url = ''] = process.argv.slice(2)
const fake = fakeEmbedder()
let embedded = 0
const embedder: typeof fake = {
  ...fake,
  embed: async (texts, priority) => {
    // The indexer asks again once it has kept what it was given.
    if (embedMs !== '0') writeSync(1, `embedded ${embedded}\n`)
    if (embedMs !== '0') await sleep(Number(embedMs))
    embedded += texts.length
    return fake.embed(texts, priority)
  },
}
const silent = { info: () => undefined, warn: () => undefined, error: () => undefined }
const database = url === '' ? {} : { database: new Postgres({ url, warn: () => {} }) }
const store = await openMemory({ dataDir, ...database, embedder, now: Date.now, limits: { exactPoints: 100 }, log: silent })
writeSync(1, 'open\n')
for (let batch = Number(first); batch < Number(first) + Number(batches); batch++) {
  const edits = Array.from({ length: Number(size) }, (_, i) => fact(batch * Number(size) + i))
  await store.land(edits, { source: 'child', tenant: 'default', dryRun: false, batchId: `batch ${batch}` })
  writeSync(1, `ack ${batch}\n`)
  await new Promise(setImmediate)
}
