import { writeSync } from 'node:fs'
import { openMemory } from '../../src/memory/store.ts'
import { fact, fakeEmbedder } from './memory-data.ts'

/** Lands batches of `size` edits for ever, saying "ack N" after each; run and killed by memory-kill.test.ts. */
const [dataDir = '', first = '0', size = '1'] = process.argv.slice(2)
const silent = { info: () => undefined, warn: () => undefined, error: () => undefined }
const store = await openMemory({ dataDir, embedder: fakeEmbedder(), now: Date.now, limits: { exactPoints: 100 }, log: silent })
writeSync(1, 'open\n')
for (let batch = Number(first); ; batch++) {
  const edits = Array.from({ length: Number(size) }, (_, i) => fact(batch * Number(size) + i))
  store.land(edits, { source: 'child', tenant: 'default', dryRun: false, batchId: `batch ${batch}` })
  writeSync(1, `ack ${batch}\n`)
  await new Promise(setImmediate)
}
