/**
 * How selection holds up with 10k, 100k and 1M edits: `npm run bench:scale -- --edits 10000,100000 [--queries 500]`. The whole memory (log, live
 * view, indexes) and the retriever are real; subjects are made up, and texts become vectors by a recipe instead of a model: words that two
 * texts share bring them near each other, as they do in an embedding. So times are those of selection without embedding.
 */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Edit } from '../src/edit/edit.ts'
import { words } from '../src/edit/edit.ts'
import type { Embedder } from '../src/engine/engine.ts'
import { readCalibration } from '../src/memory/calibration.ts'
import { gate } from '../src/memory/gate.ts'
import { Retriever } from '../src/memory/retrieve.ts'
import { openMemory } from '../src/memory/store.ts'

const { values: flags } = parseArgs({
  options: {
    edits: { type: 'string', default: '10000,100000' },
    queries: { type: 'string', default: '500' },
    keep: { type: 'string' },
  },
})
const DIMENSIONS = 384
/** Edits a batch. */
const BATCH = 50_000
const SYLLABLES =
  'ba be bi bo da de di do ka ke ki ko la le li lo ma me mi mo na ne ni no ra re ri ro sa se si so ta te ti to va ve vi vo'.split(
    ' ',
  )
const RELATIONS = [
  'The mayor of X is',
  'X was founded in',
  'The owner of X is',
  'X is located in',
  'The language of X is',
  'X is named after',
]
const ASKED = [
  'Who is the mayor of X?',
  'When was X founded?',
  'Who owns X?',
  'Where is X?',
  'What language is X in?',
  'After whom is X named?',
]

function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

function hash(text: string): number {
  let h = 2_166_136_261
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16_777_619)
  return h >>> 0
}

const name = (i: number) => {
  const draw = random(i * 7_919 + 1)
  const word = () => {
    const text = Array.from({ length: 3 }, () => SYLLABLES[Math.floor(draw() * SYLLABLES.length)]).join('')
    return text.charAt(0).toUpperCase() + text.slice(1)
  }
  return `${word()} ${word()}`
}

/** Each word a direction of its own, summed. */
const directions = new Map<string, Float32Array>()
function direction(word: string): Float32Array {
  const had = directions.get(word)
  if (had !== undefined) return had
  const draw = random(hash(word))
  const vector = Float32Array.from({ length: DIMENSIONS }, () => draw() + draw() + draw() - 1.5)
  if (directions.size < 200_000) directions.set(word, vector)
  return vector
}
const embed = (text: string) => {
  const sum = new Float32Array(DIMENSIONS)
  for (const word of words(text)) for (const [i, x] of direction(word).entries()) sum[i] = (sum[i] ?? 0) + x
  const length = Math.hypot(...sum) || 1
  return sum.map((x) => x / length)
}
const embedder: Embedder = {
  ...{ name: 'recipe', dimensions: DIMENSIONS, maxTokens: 512, close: async () => undefined },
  embed: async (texts) => texts.map(embed),
}

const log = { info: () => undefined, warn: console.error, error: console.error }
const percentile = (list: readonly number[], p: number) =>
  (list.toSorted((a, b) => a - b)[Math.min(list.length - 1, Math.floor(p * list.length))] ?? 0).toFixed(2)
const seconds = (since: number) => ((performance.now() - since) / 1_000).toFixed(1)

const edit = (i: number): Edit => ({
  ...{
    id: `s${i}`,
    subject: name(i),
    prompt: (RELATIONS[i % RELATIONS.length] ?? '').replace('X', name(i)),
    targetNew: name(i + 1),
  },
  ...{ aliases: [], paraphrases: [], tags: [], tenant: 'default' },
})

console.log(
  '| edits | landed, s | indexed, s | resident, MB | files, MB | opened again, s | search p50 / p99, ms | recall of the exact top 20 | selection p50 / p99, ms | right edit selected |',
)
console.log('|---|---|---|---|---|---|---|---|---|---|')
for (const count of flags.edits.split(',').map(Number)) {
  const dataDir = flags.keep ?? mkdtempSync(join(tmpdir(), 'palimpsest-scale-'))
  const options = { dataDir, embedder, now: Date.now, log }
  const first = await openMemory(options)
  const start = performance.now()
  for (let from = 0; from < count; from += BATCH) {
    const edits = Array.from({ length: Math.min(BATCH, count - from) }, (_, i) => edit(from + i))
    first.land(edits, { source: 'scale', tenant: 'default', dryRun: false })
  }
  const landed = seconds(start)
  await first.indexed()
  const indexed = seconds(start)
  await first.close()
  const bytes = (folder: string): number =>
    readdirSync(folder, { withFileTypes: true }).reduce(
      (sum, e) => sum + (e.isDirectory() ? bytes(join(folder, e.name)) : statSync(join(folder, e.name)).size),
      0,
    )
  const opening = performance.now()
  const memory = await openMemory(options)
  await memory.indexed()
  const retriever = new Retriever(memory, embedder, { now: Date.now, cacheBytes: 1 << 20 })
  await retriever.warm()
  const opened = seconds(opening)
  const calibration = readCalibration('calibration/gate.json')
  const draw = random(42)
  const [searches, selections]: [number[], number[]] = [[], []]
  let [found, wanted, right] = [0, 0, 0]
  const queries = Number(flags.queries)
  for (let q = 0; q < queries; q++) {
    const i = Math.floor(draw() * count)
    const text = (ASKED[i % ASKED.length] ?? '').replace('X', name(i))
    const vector = embed(text)
    const searching = performance.now()
    const hits = memory.search('default', vector, 20)
    searches.push(performance.now() - searching)
    if (q < 100) {
      const exact = memory.exactSearch('default', vector, 20)
      const least = exact.at(-1)?.similarity ?? 0
      found += hits.filter((h) => h.similarity >= least - 1e-6).length
      wanted += exact.length
    }
    const selecting = performance.now()
    const query = {
      model: 'm',
      messages: [{ role: 'user', content: text }],
      tenant: 'default',
      edits: { kind: 'on' },
      tags: [],
    } as const
    const considered = gate((await retriever.candidates(query, 0)).candidates, calibration)
    selections.push(performance.now() - selecting)
    if (considered.some((c) => c.reason === 'selected' && c.id === `s${i}`)) right++
  }
  console.log(
    `| ${count.toLocaleString('en')} | ${landed} | ${indexed} | ${(process.memoryUsage.rss() / 1e6).toFixed(0)} | ${(bytes(dataDir) / 1e6).toFixed(0)} | ${opened} | ${percentile(searches, 0.5)} / ${percentile(searches, 0.99)} | ${((100 * found) / wanted).toFixed(1)} % | ${percentile(selections, 0.5)} / ${percentile(selections, 0.99)} | ${((100 * right) / queries).toFixed(1)} % |`,
  )
  await memory.close()
  if (flags.keep === undefined) rmSync(dataDir, { recursive: true })
}
