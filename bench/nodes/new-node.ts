/**
 * How long a new node takes until it is ready, over a PostgreSQL with many edits: `npm run bench:new-node -- [--edits 100000] [--starts 3]
 * [--before FOLDER]`. Vectors are stand-ins of 384 numbers, two an edit, put there by a first node. With `--before`, the compiled sources of another
 * version start in turn with these, over the same database.
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { openMemory } from '../../src/memory/store.ts'
import { VectorTable } from '../../src/memory/vectors/embedding-table.ts'
import { embedKeys } from '../../src/memory/vectors/index-texts.ts'
import { Postgres } from '../../src/storage/postgres/postgres.ts'
import { startPostgres } from '../../test/support/databases/postgres.ts'
import { median } from '../client.ts'
import { edit } from '../scale/vectors.ts'
import { standInEmbedder } from './stand-in-vectors.ts'

const { values: flags } = parseArgs({
  options: {
    edits: { type: 'string', default: '100000' },
    starts: { type: 'string', default: '3' },
    before: { type: 'string' },
  },
})
const BATCH = 10_000
/** More than any vector: the first node builds no graph. */
const NO_GRAPH = { exactPoints: Number.MAX_SAFE_INTEGER }

interface Started {
  readonly openedMs: number
  readonly readyMs: number
  readonly processorMs: number
  readonly embedded: number
  readonly rssMb: number
}

async function fill(url: string, count: number): Promise<void> {
  const database = new Postgres({ url, warn: console.error })
  const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-first-node-'))
  const log = { info: () => {}, warn: console.error, error: console.error }
  const embedder = standInEmbedder()
  const kept = await VectorTable.open(database, embedder.name, embedder.dimensions)
  const memory = await openMemory({ dataDir, database, embedder, now: Date.now, log, limits: NO_GRAPH })
  let landedMs = 0
  for (let from = 0; from < count; from += BATCH) {
    const edits = Array.from({ length: Math.min(BATCH, count - from) }, (_, i) => edit(from + i))
    const texts = edits.flatMap(embedKeys)
    const vectors = await embedder.embed(texts, 'import')
    await kept.put(new Map(texts.map((text, i) => [text, vectors[i] as Float32Array])))
    const begun = performance.now()
    await memory.land(edits, { source: 'bench', tenant: 'default', dryRun: false })
    landedMs += performance.now() - begun
  }
  console.log(`first node: ${count} edits landed, ${(landedMs / (count / BATCH) / 1_000).toFixed(2)} s for each ${BATCH}`)
  await memory.close()
  await database.close()
  rmSync(dataDir, { recursive: true })
}

async function start(src: string, url: string): Promise<Started> {
  const child = join(import.meta.dirname, 'new-node-child.js')
  const { stdout } = await promisify(execFile)(process.execPath, ['--max-old-space-size=4096', child, src, url])
  return JSON.parse(stdout) as Started
}

const server = await startPostgres()
try {
  const url = await server.database()
  await fill(url, Number(flags.edits))
  const versions = { ...(flags.before && { before: resolve(flags.before) }), now: join(import.meta.dirname, '../../src') }
  const started: Record<string, Started[]> = {}
  for (let n = 0; n < Number(flags.starts); n++) {
    for (const [name, src] of Object.entries(versions)) {
      const one = await start(src, url)
      console.log(`${name} ${JSON.stringify(one)}`)
      started[name] = [...(started[name] ?? []), one]
    }
  }
  console.log(
    '| version | ready, s (each) | median, s | of the processor, s | embedded | resident, MB |\n|---|---|---|---|---|---|',
  )
  for (const [name, all] of Object.entries(started)) {
    const seconds = all.map(({ readyMs }) => (readyMs / 1_000).toFixed(1)).join(', ')
    const of = (key: keyof Started, unit: number) => (median(all.map((one) => one[key])) / unit).toFixed(1)
    console.log(
      `| ${name} | ${seconds} | ${of('readyMs', 1_000)} | ${of('processorMs', 1_000)} | ${of('embedded', 1)} | ${of('rssMb', 1)} |`,
    )
  }
} finally {
  await server.remove()
}
