/** Selection and landing for bench/quick.ts, over stand-ins for embedder and reader, beside a loop that never changes. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openMemory } from '../../src/memory/store.ts'
import { gate, readCalibration } from '../../src/selection/gate.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { latest } from '../../src/selection/sameness.ts'
import { fakeEmbedder, lexicalReader } from '../../test/support/memory-data.ts'
import { median } from '../client.ts'
import { asked, edit, random } from '../scale/vectors.ts'

const HELD = 10_000
const LANDED = 1_000
/** Asked in a round. */
const QUERIES = 100
const NEAREST = 20
const DIMENSIONS = 384
const ROWS = 4_000
const TIMES = 3

const log = { info: () => undefined, warn: console.error, error: console.error }
const embedder = fakeEmbedder({ dimensions: DIMENSIONS })
const rows = Array.from({ length: ROWS }, (_, i) => {
  const draw = random(i)
  return Float32Array.from({ length: DIMENSIONS }, () => draw() - 0.5)
})

/** Milliseconds of arithmetic, small objects and texts, as the searches have them. What it does must stay as it is. */
function loopMs(): number {
  const start = performance.now()
  const found = new Map<string, number>()
  for (let q = 0; q < 8; q++) {
    for (const [i, row] of rows.entries()) {
      let sum = 0
      for (let d = 0; d < DIMENSIONS; d++) sum += (row[d] as number) * (rows[q]?.[d] as number)
      found.set(`row ${i % 1_000} of ${q}`, sum)
    }
  }
  if ([...found].toSorted(([, a], [, b]) => b - a).length !== 8_000) throw new Error('the loop is not what it was')
  return performance.now() - start
}

const referenceMs = () => median(Array.from({ length: TIMES }, loopMs))
const fresh = () => mkdtempSync(join(tmpdir(), 'palimpsest-quick-'))
const open = (dataDir: string) => openMemory({ dataDir, embedder, now: Date.now, log })
const batch = (from: number, count: number) => Array.from({ length: count }, (_, i) => edit(from + i))
const landing = { source: 'quick', tenant: 'default', dryRun: false }

async function timed(work: () => unknown): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** Of each round: times of 100 searches, of 100 selections and of landing 1,000 edits, in times of the loop. */
export interface MemoryRound {
  readonly search: number
  readonly selection: number
  readonly landing: number
}

export async function memoryRounds(rounds: number): Promise<MemoryRound[]> {
  const dataDir = fresh()
  const memory = await open(dataDir)
  await memory.land(batch(0, HELD), landing)
  await memory.indexed()
  const retriever = new Retriever(memory, embedder, lexicalReader(), { now: Date.now, cacheBytes: 1 })
  const calibration = readCalibration()
  const draw = random(7)
  const select = async (content: string) => {
    const query = {
      model: 'm',
      messages: [{ role: 'user', content }],
      tenant: 'default',
      edits: { kind: 'on' },
      tags: [],
    } as const
    const { candidates } = await retriever.candidates(query, 0)
    return gate((await latest(query, candidates, calibration, retriever)).current, calibration)
  }
  const found: MemoryRound[] = []
  // Round -1 warms up.
  for (let round = -1; round < rounds; round++) {
    const questions = Array.from({ length: QUERIES }, () => asked(Math.floor(draw() * HELD)))
    const vectors = await embedder.embed(questions, 'query')
    const first = referenceMs()
    const search = await timed(() => vectors.map((vector) => memory.search('default', vector, NEAREST)))
    const selection = await timed(async () => {
      for (const question of questions) await select(question)
    })
    const second = referenceMs()
    const other = fresh()
    const empty = await open(other)
    const edits = batch(HELD, LANDED)
    const landed = await timed(() => empty.land(edits, landing))
    const third = referenceMs()
    await empty.close()
    rmSync(other, { recursive: true })
    const [before, after] = [(first + second) / 2, (second + third) / 2]
    if (round >= 0) found.push({ search: search / before, selection: selection / before, landing: landed / after })
  }
  await memory.close()
  rmSync(dataDir, { recursive: true })
  return found
}
