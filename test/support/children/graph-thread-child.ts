/** Indexes in a thread, as the gateway does, while it is searched; what it prints says whether the answers were right, and what was held up. */

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { Arena } from '../../../src/memory/graph/arena.ts'
import { GraphFiles } from '../../../src/memory/graph/graph-file.ts'
import { GRAPH_OPTIONS } from '../../../src/memory/graph/graph-library.ts'
import { openMemory } from '../../../src/memory/store.ts'
// Built with this, since a thread is named by its file.
import '../../../src/memory/graph/graph-worker.ts'
import { fact, fakeEmbedder, vectorOf } from '../memory-data.ts'

const DIMENSIONS = 64
const EDITS = 3_000
const FOR_EVER = 1_000
const [folder = '', task = ''] = process.argv.slice(2)
const say = (what: object) => process.stdout.write(`${JSON.stringify(what)}\n`)
const query = (n: number) => vectorOf(`The mayor of Town ${n} is`, DIMENSIONS)
const about = { embedder: 'fake', recipe: 1, logSeq: 1e6, contentOf: (seq: number) => `${seq}` }
const points = (first: number, count: number) => {
  const arena = new Arena(DIMENSIONS)
  for (let seq = first; seq < first + count; seq++) arena.add({ seq, vector: query(seq) })
  return arena
}

async function search(): Promise<void> {
  const lines: string[] = []
  const told = (_: object, message: string) => void lines.push(message)
  const log = { info: told, warn: told, error: told }
  const embedder = fakeEmbedder({ dimensions: DIMENSIONS })
  const store = await openMemory({ dataDir: folder, embedder, now: Date.now, limits: { exactPoints: 500 }, log })
  const graphs = () => readdirSync(join(folder, 'index')).filter((name) => name.endsWith('.usearch'))
  const seen = new Set<string>()
  const edits = Array.from({ length: EDITS }, (_, i) => fact(i))
  await store.land(edits, { source: 'child', tenant: 'default', dryRun: false })
  let isDone = false
  const done = store.indexed().then(() => (isDone = true))
  let [searches, wrong] = [0, 0]
  while (!isDone) {
    for (const graph of graphs()) seen.add(graph)
    const { indexed = 0 } = store.status()[0] ?? {}
    const n = searches++ % Math.max(1, indexed)
    if (indexed > 0 && store.search('default', query(n), 1)[0]?.editId !== `e${n}`) wrong++
    await sleep(2)
  }
  await done
  // Added on several threads, a point may be left without a link.
  for (let n = 0; n < EDITS; n++) if (store.search('default', query(n), 1)[0]?.editId !== `e${n}`) wrong++
  for (let n = 0; n < 100; n++) {
    const [found, exact] = [store.search('default', query(n), 5), store.exactSearch('default', query(n), 5)]
    if (JSON.stringify(found) !== JSON.stringify(exact)) wrong++
  }
  say({ searches, wrong, graphs: seen.size, indexed: store.status()[0]?.indexed, lines })
  await store.close()
}

/** A round that is broken off, and one whose thread fails: the graph before them stands. */
async function breakOff(): Promise<void> {
  const files = new GraphFiles(folder, 'default', GRAPH_OPTIONS)
  const graph = await files.grow(null, points(0, 2_000), about, new AbortController().signal)
  const kept = readdirSync(folder).sort()
  const leaving = new AbortController()
  const begun = performance.now()
  const delay = monitorEventLoopDelay({ resolution: 2 })
  const large = points(2_000, 20_000)
  delay.enable()
  const left = files.grow(graph, large, about, leaving.signal).catch(String)
  await sleep(400)
  leaving.abort(new Error('closed'))
  const aborting = performance.now()
  const said = await left
  const endedMs = performance.now() - aborting
  delay.disable()
  const same = JSON.stringify(readdirSync(folder).sort()) === JSON.stringify(kept)
  const again = await files.grow(graph, points(2_000, 100), about, new AbortController().signal)
  const found = [0, 1_999, 2_050].map((n) => again.nearest(query(n), 1)[0])
  say({ said, endedMs, ranMs: aborting - begun, longestMs: delay.max / 1e6, same, found })
  process.exit(0)
}

/** Until it is killed. */
async function growOn(): Promise<void> {
  const files = new GraphFiles(folder, 'default', GRAPH_OPTIONS)
  const found = await files.load({ ...about, dimensions: DIMENSIONS })
  let graph = 'reason' in found ? null : found
  say({ opened: 'reason' in found ? found.reason : found.size })
  for (let round = 0; round < FOR_EVER; round++) {
    const had = graph
    graph = await files.grow(had, points(had?.size ?? 0, 500), about, new AbortController().signal)
    had?.close()
    say({ size: graph.size })
  }
}

await { search, breakOff, growOn }[task as 'search']()
