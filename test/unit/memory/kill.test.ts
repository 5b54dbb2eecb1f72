import { spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { buildChild } from '../../support/built-child.ts'
import { startPostgres } from '../../support/databases/postgres.ts'
import { fact, fakeEmbedder, memory, POST, scratch } from '../../support/memory-fixture.ts'

/** Kills per kind; each in a memory that has survived the ones before. */
const ROUNDS = 3
const BATCH_EDITS = 300
/** Texts embedded for each: its prompt and its statement. */
const EDIT_KEYS = 2
let built = ''
let script = ''

beforeAll(() => {
  ;({ built, child: script } = buildChild('test/support/children/memory-kill-child'))
}, 60_000)
afterAll(() => rmSync(built, { recursive: true, force: true }))

/** Runs the child until it is killed, `delayMs` after the first acknowledgement; returns the batches it acknowledged. */
async function runAndKill(dataDir: string, first: number, delayMs: number, url = ''): Promise<number[]> {
  const child = spawn(process.execPath, [script, dataDir, String(first), String(BATCH_EDITS), 'Infinity', '0', url], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const acknowledged: number[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.startsWith('ack ')) continue
    acknowledged.push(Number(line.slice(4)))
    if (acknowledged.length > 1) continue
    if (delayMs === 0) child.kill('SIGKILL')
    else setTimeout(() => child.kill('SIGKILL'), delayMs)
  }
  return acknowledged
}

test.each([
  ['directly after an acknowledgement', () => 0],
  ['in the middle of landings', (round: number) => 5 + 17 * round],
])(
  `kill -9 %s, ${ROUNDS} times: nothing acknowledged is lost, nothing is half there`,
  async (_, delay) => {
    const dataDir = scratch()
    const acknowledged: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      acknowledged.push(...(await runAndKill(dataDir, round * 1_000, delay(round))))
      const store = await memory({ dataDir, limits: { exactPoints: 100 } })
      const batches = store.batches('default')
      const landed = new Set(batches.map((b) => Number(b.id.slice('batch '.length))))
      expect(acknowledged.filter((n) => !landed.has(n))).toEqual([])
      expect(batches.filter((b) => b.live !== BATCH_EDITS)).toEqual([])
      expect(store.version('default')).toBe(batches.length * BATCH_EDITS)
      expect(store.list({ tenant: 'default', limit: 1 }).total).toBe(batches.length * BATCH_EDITS)
      await store.close()
    }
    expect(acknowledged.length).toBeGreaterThanOrEqual(ROUNDS)
  },
  60_000,
)

/** Runs the child with one batch, killed when it has embedded a third of it; returns how many texts it said were done. */
async function runAndKillEmbedding(dataDir: string, edits: number): Promise<number> {
  const child = spawn(process.execPath, [script, dataDir, '0', String(edits), '1', '5'], { stdio: ['ignore', 'pipe', 'inherit'] })
  let embedded = 0
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('embedded ')) embedded = Number(line.slice('embedded '.length))
    if (embedded > edits / 3) child.kill('SIGKILL')
  }
  return embedded
}

test('kill -9 in the middle of an import: started again it embeds what was left, and the same import lands nothing twice', async () => {
  const dataDir = scratch()
  const done = await runAndKillEmbedding(dataDir, BATCH_EDITS)
  const embedder = fakeEmbedder()
  const store = await memory({ dataDir, embedder, limits: { exactPoints: 100 } })
  await store.indexed()
  expect(done).toBeGreaterThan(BATCH_EDITS / 3)
  expect(embedder.asked.length).toBeGreaterThan(0)
  expect(embedder.asked.length).toBeLessThanOrEqual(EDIT_KEYS * BATCH_EDITS - done)
  expect(store.status()).toEqual([{ tenant: 'default', indexed: BATCH_EDITS, pending: 0 }])
  const asked = embedder.asked.length
  const edits = Array.from({ length: BATCH_EDITS }, (_, i) => fact(i))
  expect(await store.land(edits, { ...POST, batchId: 'batch 0' })).toMatchObject({ replayed: true, version: BATCH_EDITS })
  await store.indexed()
  expect(embedder.asked.length).toBe(asked)
}, 60_000)

test(`kill -9 of nodes over one PostgreSQL, ${ROUNDS} times, while another writes: nothing is lost, nothing is half there, the other goes on`, async () => {
  const server = await startPostgres()
  onTestFinished(() => server.remove())
  const url = await server.database()
  const database = new Postgres({ url, warn: () => {} })
  onTestFinished(() => database.close())
  const other = await memory({ database, now: Date.now, limits: { exactPoints: 100 } })
  const acknowledged: number[] = []
  let own = 0
  for (let round = 0; round < ROUNDS; round++) {
    let isOver = false
    const killed = runAndKill(scratch(), round * 1_000, 30 * round, url).finally(() => {
      isOver = true
    })
    while (!isOver) await other.land([fact(1_000_000 + own++)], POST)
    acknowledged.push(...(await killed))
    // A turn that the dead node held has ended with it.
    const { version } = await other.land([fact(2_000_000 + round)], POST)
    const positions = await database.all<{ n: number; last: number }>(
      'counting',
      'SELECT count(*) AS n, max(seq) AS last FROM log',
    )
    expect(positions).toEqual([{ n: version, last: version }])
    const batches = other.batches('default').filter(({ id }) => id.startsWith('batch '))
    const landed = new Set(batches.map((b) => Number(b.id.slice('batch '.length))))
    expect(acknowledged.filter((n) => !landed.has(n))).toEqual([])
    expect(batches.filter((b) => b.live !== BATCH_EDITS)).toEqual([])
    expect(version).toBe(batches.length * BATCH_EDITS + own + round + 1)
  }
  expect(acknowledged.length).toBeGreaterThanOrEqual(ROUNDS)
  expect(own).toBeGreaterThan(ROUNDS)
}, 120_000)
