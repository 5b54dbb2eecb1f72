/**
 * How the memory holds up with 10k, 100k and 1M edits:
 * `npm run bench:scale -- --embedder FILE [--reader FILE] [--edits 10000,100000] [--queries 500] [--graph 24/128/512] [--keep FOLDER]
 * [--out FILE.json]`.
 * Log, live view, indexes, retriever and gate are the real ones; subjects are made up, and their vectors mixed from some of the embedder's
 * (scale/vectors.ts). Times of selection are without embedding, and with the reader's; without --reader, a stand-in that takes no time looks
 * for the name, and they are those of selection without models. Of each time there are two: by the clock, and of the processor where the
 * machine has other work. With `--keep`, a folder filled by an earlier run is opened instead of made. `--out` keeps all that is printed.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { openRuntime } from '../src/engine/embedded/runtime.ts'
import type { PairReader } from '../src/engine/engine.ts'
import { Arena, type Neighbour } from '../src/memory/graph/arena.ts'
import { GRAPH_OPTIONS } from '../src/memory/graph/graph-library.ts'
import { openMemory } from '../src/memory/store.ts'
import { embedKeys } from '../src/memory/vectors/index-texts.ts'
import { READER_MODEL } from '../src/models/catalog.ts'
import { gate, readCalibration } from '../src/selection/gate.ts'
import { Retriever } from '../src/selection/retriever.ts'
import { latest } from '../src/selection/sameness.ts'
import { at, median } from './client.ts'
import { asked, edit, namesIn, random, recipeEmbedder } from './scale/vectors.ts'

const { values: flags } = parseArgs({
  options: {
    edits: { type: 'string', default: '10000,100000' },
    queries: { type: 'string', default: '500' },
    embedder: { type: 'string', default: '' },
    reader: { type: 'string', default: '' },
    vectors: { type: 'string', default: join(tmpdir(), 'palimpsest-scale-vectors.json') },
    graph: { type: 'string' },
    keep: { type: 'string' },
    out: { type: 'string' },
  },
})
/** Edits a batch. */
const BATCH = 50_000
/** Edits that are searched for by a text that is indexed. */
const OWN_TEXTS = 20_000
/** Queries whose twenty nearest are sought by looking at every vector, too. */
const EXACT_QUERIES = 100
const NEAREST = 20
/** Points held at a time while doing so. */
const CHUNK = 20_000

const embedder = await recipeEmbedder(async () => {
  const runtime = await openRuntime({ threads: 1, gpu: false, log: () => undefined })
  return runtime.openEmbedder({ modelPath: flags.embedder, name: 'minilm' })
}, flags.vectors)
const reader = await openReader(flags.reader)
const [neighbours, buildBreadth, searchBreadth] = (flags.graph ?? '').split('/').map(Number)
const graph = flags.graph === undefined ? GRAPH_OPTIONS : ({ neighbours, buildBreadth, searchBreadth } as typeof GRAPH_OPTIONS)
const reported: { readonly edits: number; readonly what: string; readonly value: string }[] = []
const log = { info: () => undefined, warn: console.error, error: console.error }
/** The median and the 99th percentile, as they are printed. */
const spread = (list: readonly number[]) => `${at(list, 0.5).toFixed(2)} / ${at(list, 0.99).toFixed(2)}`
const processorMs = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1_000
}
/** Seconds by the clock and of the processor, since `from`. */
const now = () => [performance.now(), processorMs()] as const
const took = (from: ReturnType<typeof now>) =>
  now()
    .map((t, i) => ((t - (from[i] ?? 0)) / 1_000).toFixed(1))
    .join(' / ')
const bytes = (folder: string): number =>
  readdirSync(folder, { withFileTypes: true }).reduce(
    (sum, e) => sum + (e.isDirectory() ? bytes(join(folder, e.name)) : statSync(join(folder, e.name)).size),
    0,
  )

async function openReader(modelPath: string): Promise<PairReader> {
  if (modelPath !== '') {
    const runtime = await openRuntime({ threads: 1, gpu: false, log: () => undefined })
    return runtime.openReader({ modelPath, name: READER_MODEL })
  }
  const logit = (text: string, edit: string) => (namesIn(text).some((name) => edit.includes(name)) ? 5 : -5)
  return {
    name: 'stand-in',
    read: (pairs) => Promise.resolve(Float32Array.from(pairs, ([text, edit]) => logit(text, edit))),
    close: () => Promise.resolve(),
  }
}

/** The nearest of all edits to each query, found by looking at every one. */
async function exact(count: number, queries: readonly Float32Array[]): Promise<Neighbour[][]> {
  let best: Neighbour[][] = queries.map(() => [])
  for (let from = 0; from < count; from += CHUNK) {
    const arena = new Arena(embedder.dimensions)
    const size = Math.min(CHUNK, count - from)
    const vectors = await embedder.embed(
      Array.from({ length: size }, (_, i) => embedKeys(edit(from + i))[0] ?? ''),
      'import',
    )
    for (const [i, vector] of vectors.entries()) arena.add({ seq: from + i, vector })
    best = best.map((had, q) =>
      [...had, ...arena.nearest(queries[q] as Float32Array, NEAREST)]
        .toSorted((a, b) => b.similarity - a.similarity)
        .slice(0, NEAREST),
    )
  }
  return best
}

async function measure(count: number): Promise<void> {
  const report = (what: string, value: string) => {
    console.log(`| ${count.toLocaleString('en')} | ${what} | ${value} |`)
    reported.push({ edits: count, what, value })
    if (flags.out === undefined) return
    writeFileSync(flags.out, JSON.stringify({ cpu: cpus()[0]?.model, graph, at: new Date().toISOString(), reported }, null, 1))
  }
  const dataDir = flags.keep ?? mkdtempSync(join(tmpdir(), 'palimpsest-scale-'))
  const options = { dataDir, embedder, now: Date.now, log, limits: { graph } }
  if (!existsSync(join(dataDir, 'index'))) {
    const first = await openMemory(options)
    const landing = now()
    for (let from = 0; from < count; from += BATCH) {
      const edits = Array.from({ length: Math.min(BATCH, count - from) }, (_, i) => edit(from + i))
      await first.land(edits, { source: 'scale', tenant: 'default', dryRun: false })
    }
    report('landed, s', took(landing))
    const indexing = now()
    const before = embedder.spentMs()
    await first.indexed()
    report('indexed, s', `${took(indexing)}, of it the recipe ${((embedder.spentMs() - before) / 1_000).toFixed(1)}`)
    const closing = now()
    await first.close()
    report('closed (what is unsaved is saved), s', took(closing))
  }
  report('files, MB', (bytes(dataDir) / 1e6).toFixed(0))
  const opening = now()
  const memory = await openMemory(options)
  await memory.indexed()
  report('opened, s', took(opening))
  const naming = now()
  const retriever = new Retriever(memory, embedder, reader, { now: Date.now, cacheBytes: 1 })
  report('names indexed, s', took(naming))
  report('resident, MB', (process.memoryUsage.rss() / 1e6).toFixed(0))
  await ask(count, memory, retriever, report)
  await memory.close()
  if (flags.keep === undefined) rmSync(dataDir, { recursive: true })
}

async function ask(
  count: number,
  memory: Awaited<ReturnType<typeof openMemory>>,
  retriever: Retriever,
  report: (what: string, value: string) => void,
): Promise<void> {
  const calibration = readCalibration()
  const draw = random(42)
  const drawn = Array.from({ length: Number(flags.queries) }, () => Math.floor(draw() * count))
  const vectors = await embedder.embed(drawn.map(asked), 'query')
  const searches: number[] = []
  const hits = vectors.map((vector) => {
    const start = performance.now()
    const found = memory.search('default', vector, NEAREST)
    searches.push(performance.now() - start)
    return found
  })
  report(`search p50 / p99, ms`, spread(searches))
  const truth = await exact(count, vectors.slice(0, EXACT_QUERIES))
  const least = truth.map((nearest) => nearest.at(-1)?.similarity ?? 0)
  const found = least.reduce((sum, bar, q) => sum + (hits[q] ?? []).filter((h) => h.similarity >= bar - 1e-5).length, 0)
  report('recall of the exact top 20', `${((100 * found) / (truth.length * NEAREST)).toFixed(1)} %`)
  const sample = Array.from({ length: OWN_TEXTS }, () => Math.floor(draw() * count))
  const own = await embedder.embed(
    sample.map((i) => embedKeys(edit(i))[0] ?? ''),
    'import',
  )
  const isFound = (i: number, q: number) =>
    memory.search('default', own[q] as Float32Array, NEAREST).some(({ editId }) => editId === `s${i}`)
  report('found by its own text', `${sample.filter(isFound).length} of ${OWN_TEXTS}`)
  const nth = (i: number) => median(truth.map((nearest) => nearest[i]?.similarity ?? 0)).toFixed(2)
  report('cosine of the 1st and 20th neighbour, median', `${nth(0)}, ${nth(NEAREST - 1)}`)
  for (const pass of ['first met', 'met before']) {
    const [clock, processor]: [number[], number[]] = [[], []]
    let right = 0
    for (const i of drawn) {
      const [start, spent] = [now(), embedder.spentMs()]
      const messages = [{ role: 'user', content: asked(i) }] as const
      const query = { model: 'm', messages, tenant: 'default', edits: { kind: 'on' }, tags: [] } as const
      const { candidates } = await retriever.candidates(query, 0)
      const { current } = await latest(query, candidates, calibration, retriever)
      const considered = gate(current, calibration)
      const embedding = embedder.spentMs() - spent
      clock.push(performance.now() - start[0] - embedding)
      processor.push(Math.max(0, processorMs() - start[1] - embedding))
      if (considered.some((c) => c.reason === 'selected' && c.id === `s${i}`)) right++
    }
    report(`selection, edits ${pass}: p50 / p99, ms`, `${spread(clock)} (processor: ${spread(processor)})`)
    report('right edit selected', `${((100 * right) / drawn.length).toFixed(1)} %`)
  }
}

console.log('| edits | what | measured (by the clock / processor) |\n|---|---|---|')
for (const count of flags.edits.split(',').map(Number)) await measure(count)
await embedder.close()
process.exit(0)
