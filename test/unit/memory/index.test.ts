import {
  fstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { Arena } from '../../../src/memory/graph/arena.ts'
import { Graph } from '../../../src/memory/graph/graph.ts'
import { GraphFiles, indexFile } from '../../../src/memory/graph/graph-file.ts'
import { GRAPH_OPTIONS } from '../../../src/memory/graph/graph-library.ts'
import { embedKeys } from '../../../src/memory/vectors/index-texts.ts'
import {
  clock,
  edit,
  fact,
  fakeEmbedder,
  memory,
  POST,
  random,
  recordingLog,
  scratch,
  unit,
  vectorOf,
} from '../../support/memory-fixture.ts'

// Generous: these wait for a disk that others may keep busy.
vi.setConfig({ testTimeout: 60_000 })

const T = 'default'
const DIMENSIONS = 16
const SMALL = { exactPoints: 10 }
const facts = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => fact(from + i))
const query = (n: number) => vectorOf(`The mayor of Town ${n} is`, DIMENSIONS)

describe('keys', () => {
  test('are the prompt, the statement, paraphrases and examples, and up to two prompts with an alias; each once', () => {
    const aliases = ['Gaul', 'Hexagone', 'République', 'FR', 'Francia', 'Frankreich']
    const paraphrases = ['Name the capital of France', 'The capital  of France is']
    expect(embedKeys(edit('Lyon', { aliases, paraphrases, examples: ['Which city rules the French?'] }))).toEqual([
      'The capital of France is',
      'The capital of France is Lyon',
      'Name the capital of France',
      'Which city rules the French?',
      'The capital of Gaul is',
      'The capital of Hexagone is',
    ])
  })

  test('of a sentence are itself, of a rule its occasion too, and none of a rule for every message', () => {
    const sentence = edit('s', { kind: 'sentence', subject: '', prompt: 'Shops close at six.', targetNew: '' })
    expect(embedKeys(sentence)).toEqual(['Shops close at six.'])
    const rule = edit('r', { kind: 'rule', subject: '', prompt: 'asked for a refund', targetNew: 'Say no.' })
    expect(embedKeys(rule)).toEqual(['asked for a refund', 'asked for a refund: Say no.'])
    expect(embedKeys({ ...rule, prompt: '', always: true })).toEqual([])
  })
})

describe('search', () => {
  test.each([4_000, 10])('offers live edits only, each once, best first (graph beyond %i points)', async (exactPoints) => {
    const now = clock(1_000)
    const store = await memory({ limits: { exactPoints }, now })
    await store.land([fact(1, { paraphrases: ['Who runs Town 1?'] }), ...facts(2, 60)], POST)
    await store.indexed()
    expect(store.status()).toEqual([{ tenant: T, indexed: 59, pending: 0 }])
    const hits = store.search(T, query(1), 60)
    expect(hits).toHaveLength(59)
    expect(hits[0]).toEqual({ editId: 'e1', similarity: expect.closeTo(1, 4) })
    expect(hits.map((h) => h.similarity)).toEqual(hits.map((h) => h.similarity).sort((a, b) => b - a))
    expect(store.search(T, vectorOf('Who runs Town 1?', DIMENSIONS), 1)[0]?.editId).toBe('e1')

    now.at = 2_000
    await store.withdraw(T, ['e1'], 'test')
    await store.land([fact(2, { id: 'newer', targetNew: 'Another' })], POST)
    await store.indexed()
    expect(store.search(T, query(1), 60).map((h) => h.editId)).not.toContain('e1')
    expect(store.search(T, query(2), 1)[0]?.editId).toBe('newer')
    expect(store.search(T, query(1), 1, 1_500)[0]?.editId).toBe('e1')
    expect(store.search(T, query(2), 1, 1_500)[0]?.editId).toBe('e2')
    const exact = store.exactSearch(T, query(2), 5).map((h) => ({ ...h, similarity: expect.closeTo(h.similarity, 5) }))
    expect(store.search(T, query(2), 5)).toEqual(exact)
  })

  test('a small landing is found once `indexed(version)` resolves, though an import is under way', async () => {
    const store = await memory()
    const bulk = await store.land(facts(1_000, 1_300), POST)
    const small = await store.land([fact(1)], POST)
    await store.indexed(small.version)
    expect(store.search(T, query(1), 1)[0]?.editId).toBe('e1')
    expect(store.status()[0]?.pending).toBeGreaterThan(0)
    await store.indexed()
    expect(store.status()[0]).toMatchObject({ indexed: bulk.results.length + 1, pending: 0 })
  })

  test('tenants see nothing of each other', async () => {
    const store = await memory()
    await store.land([fact(1)], POST)
    await store.land([fact(2, { tenant: 'other' })], { ...POST, tenant: 'other' })
    await store.indexed()
    expect(store.search(T, query(2), 9).map((h) => h.editId)).toEqual(['e1'])
    expect(store.search('other', query(1), 9).map((h) => h.editId)).toEqual(['e2'])
    expect(store.search('nobody', query(1), 9)).toEqual([])
  })

  test('an index that is mostly dead is rebuilt, finds the living and the past, and what is restored', async () => {
    const now = clock(1_000)
    const log = recordingLog()
    const store = await memory({ limits: SMALL, now, log })
    await store.land(facts(0, 1_500), POST)
    await store.indexed()
    now.at = 2_000
    const ids = facts(0, 1_400).map((f) => f.id)
    await store.withdraw(T, ids, 'test')
    await store.indexed()
    expect(log.lines.filter((l) => l.level === 'info')).toHaveLength(1)
    expect(store.search(T, query(7), 200)).toHaveLength(100)
    expect(store.search(T, query(7), 1, 1_500)[0]?.editId).toBe('e7')
    await store.restore(T, ['e7'], 'test')
    expect(store.search(T, query(7), 1)[0]?.editId).toBe('e7')
  })
})

describe('vectors that are no unit vectors', () => {
  const bad = {
    'a NaN': new Float32Array(DIMENSIONS).fill(Number.NaN),
    'another length': unit(new Float32Array(8).fill(1)),
    'a zero vector': new Float32Array(DIMENSIONS),
  }

  test.each(Object.entries(bad))('%s stays out of the index, the rest goes in', async (_, vector) => {
    const log = recordingLog()
    const embedder = fakeEmbedder({ vector: (text) => (text.includes('Town 3 ') ? vector : vectorOf(text, DIMENSIONS)) })
    const store = await memory({ embedder, log, limits: { exactPoints: 0 } })
    await store.land(facts(1, 6), POST)
    await store.indexed()
    expect(
      store
        .search(T, query(3), 9)
        .map((h) => h.editId)
        .sort(),
    ).toEqual(['e1', 'e2', 'e4', 'e5'])
    expect(log.lines).toMatchObject([{ level: 'error', about: { record: 3, why: expect.stringContaining('unusable vector') } }])
    expect(store.get(T, 'e3')?.state).toBe('live')
  })

  test.each(Object.entries(bad))('%s is refused by an arena and as a question', async (_, vector) => {
    const store = await memory()
    expect(() => new Arena(DIMENSIONS).add({ seq: 1, vector })).toThrow(/unusable vector/)
    expect(() => store.search(T, vector, 1)).toThrow(/unusable vector/)
  })
})

test('an embedder that fails for a while delays the index, not the landing', async () => {
  let failures = 1
  const log = recordingLog()
  const inner = fakeEmbedder()
  const embed: typeof inner.embed = async (...args) => {
    if (failures-- > 0) throw new Error('no memory left')
    return inner.embed(...args)
  }
  const store = await memory({ embedder: { ...inner, embed }, log })
  const { version } = await store.land([fact(1)], POST)
  await store.indexed(version)
  expect(store.status()[0]?.pending).toBe(1)
  expect(log.lines).toMatchObject([{ level: 'error', about: { edits: 1 } }])
  await expect.poll(() => store.status()[0]?.pending, { timeout: 5_000 }).toBe(0)
})

/** Clustered, as vectors of texts are. */
function clustered(dimensions: number) {
  const next = random(1)
  const gauss = () => next() + next() + next() - 1.5
  const centres = Array.from({ length: 60 }, () => unit(Float32Array.from({ length: dimensions }, gauss)))
  return (i: number) => unit((centres[i % 60] ?? new Float32Array()).map((x) => x + 0.12 * gauss()))
}

describe('a graph', () => {
  const of = { embedder: 'fake', recipe: 1, logSeq: 5_000, contentOf: (seq: number) => `${seq}` }
  const dimensions = 32
  const { signal } = new AbortController()

  test('of two rounds finds what a full scan finds, at the same cosines, also when it is opened again', async () => {
    const [vector, files, all] = [clustered(dimensions), new GraphFiles(scratch(), T, GRAPH_OPTIONS), new Arena(dimensions)]
    // Later records first: what is asked by record does not lie in its order.
    const rounds = [1_000, 0].map((first) => {
      const arena = new Arena(dimensions)
      for (let i = 0; i < 1_500; i++) {
        const point = { seq: first + Math.floor(i / 2), vector: vector(i) }
        arena.add(point)
        all.add(point)
      }
      return arena
    })
    const [one = all, two = all] = rounds
    const first = await files.grow(null, one, of, signal)
    const second = await files.grow(first, two, of, signal)
    first.close()
    const again = await new GraphFiles(dirname(files.note), T, GRAPH_OPTIONS).load({ ...of, dimensions })
    if ('reason' in again) throw new Error(again.detail)
    for (const graph of [second, again]) {
      let found = 0
      for (let q = 0; q < 100; q++) {
        const wanted = vector(q)
        const truth = all.nearest(wanted, 10).map(({ similarity }) => similarity)
        // As the index asks: four times as many as are wanted.
        const given = graph.nearest(wanted, 40).map(({ similarity }) => similarity)
        found += truth.filter((similarity) => given.includes(similarity)).length
      }
      expect(found / 1_000).toBeGreaterThanOrEqual(0.99)
      expect(graph.edits).toBe(1_500)
      for (const seq of [0, 7, 749, 1_000, 1_749]) expect(graph.of(seq)).toEqual(all.of(seq))
      expect([-1, 750, 999, 1_750].filter((seq) => graph.has(seq))).toEqual([])
      graph.close()
    }
  })

  test('lets go of its file when it is closed', async () => {
    const [files, arena, vector] = [new GraphFiles(scratch(), T, GRAPH_OPTIONS), new Arena(dimensions), clustered(dimensions)]
    for (let seq = 0; seq < 100; seq++) arena.add({ seq, vector: vector(seq) })
    const graph = await files.grow(null, arena, of, signal)
    const mapped = () => process.platform === 'linux' && readFileSync('/proc/self/maps', 'utf8').includes(dirname(files.note))
    expect(mapped()).toBe(process.platform === 'linux')
    graph.close()
    expect(mapped()).toBe(false)
  })

  test('that is not there is refused, and no descriptor of others is closed', async () => {
    const [folder, arena, vector] = [scratch(), new Arena(dimensions), clustered(dimensions)]
    const files = new GraphFiles(folder, T, GRAPH_OPTIONS)
    arena.add({ seq: 1, vector: vector(1) })
    const graph = await files.grow(null, arena, of, signal)
    const [empty, rows] = [join(folder, 'empty'), files.note.replace('.json', '.rows')]
    writeFileSync(empty, '')
    const standing = fstatSync(0).ino
    graph.close()
    for (const file of [empty, join(folder, 'none')])
      expect(() => new Graph({ graph: file, rows, seqs: Float64Array.of(1) }, dimensions, GRAPH_OPTIONS)).toThrow(file)
    expect(fstatSync(0).ino).toBe(standing)
  })
})

test('where a graph cannot be written, what waits is scanned, and it is tried again', async () => {
  const dataDir = scratch()
  const log = recordingLog()
  const store = await memory({ dataDir, limits: SMALL, log })
  const rows = indexFile(join(dataDir, 'index'), T).replace('.json', '.rows')
  mkdirSync(rows)
  await store.land(facts(0, 60), POST)
  await store.indexed()
  expect(log.lines.map(({ message }) => message)).toEqual([expect.stringContaining('could not be extended')])
  expect(store.search(T, query(7), 5)).toEqual(store.exactSearch(T, query(7), 5))
  rmdirSync(rows)
  const graphs = () => readdirSync(join(dataDir, 'index')).filter((name) => name.endsWith('.usearch'))
  await expect.poll(graphs, { timeout: 10_000 }).toHaveLength(1)
  await store.indexed()
  expect(store.search(T, query(7), 1)[0]).toEqual({ editId: 'e7', similarity: expect.closeTo(1, 5) })
  expect(store.status()).toEqual([{ tenant: T, indexed: 60, pending: 0 }])
})

describe('the saved index', () => {
  /** A folder whose memory has 200 edits and a saved graph of them. */
  async function saved() {
    const dataDir = scratch()
    const store = await memory({ dataDir, limits: SMALL })
    await store.land(facts(0, 200), POST)
    await store.indexed()
    await store.close()
    return { dataDir, note: indexFile(join(dataDir, 'index'), T) }
  }

  async function reopen(dataDir: string, embedder = fakeEmbedder()) {
    const log = recordingLog()
    const store = await memory({ dataDir, limits: SMALL, log, embedder })
    await store.indexed()
    for (const n of [0, 77, 199]) expect(store.search(T, query(n), 1)[0]?.editId).toBe(`e${n}`)
    expect(store.status()).toEqual([{ tenant: T, indexed: 200, pending: 0 }])
    await store.close()
    return { reasons: log.lines.map((l) => [l.level, l.about.reason]), embedded: embedder.asked.length, warned: log.lines }
  }

  test('is used at the next start, without a word; only what waited is made again', async () => {
    const { dataDir } = await saved()
    rmSync(join(dataDir, 'index', 'vectors.db'))
    const again = await reopen(dataDir)
    expect(again.reasons).toEqual([])
    expect(again.embedded).toBeLessThan(16)
  })

  test.each([
    ['without its note', 'missing', (note: string) => rmSync(note)],
    ['without its graph', 'missing', (note: string) => rmSync(graphOf(note))],
    ['without its rows', 'missing', (note: string) => rmSync(rowsOf(note))],
    ['with a truncated graph', 'corrupt', (note: string) => cut(graphOf(note), 1_000)],
    ['with truncated rows', 'corrupt', (note: string) => cut(rowsOf(note), 1)],
    ['with an empty graph', 'corrupt', (note: string) => truncateSync(graphOf(note), 0)],
    ['with one bit of the graph flipped', 'corrupt', (note: string) => flip(graphOf(note))],
    ['with one bit of the rows flipped', 'corrupt', (note: string) => flip(rowsOf(note))],
    ['with a garbled note', 'corrupt', (note: string) => writeFileSync(note, '{"format":')],
    ['with a note from a longer log', 'stale', (note: string) => editNote(note, { logSeq: 5_000 })],
    ['built by another recipe', 'stale', (note: string) => editNote(note, { recipe: 0 })],
    ['of the earlier format', 'stale', makeOld],
  ])('%s: rebuilt from kept embeddings, and the log says why', async (_, reason, spoil) => {
    const { dataDir, note } = await saved()
    spoil(note)
    const again = await reopen(dataDir)
    expect(again).toMatchObject({ reasons: [['warn', reason]], embedded: 0 })
    expect(again.warned[0]?.about.file).toBe(note)
    expect(filesOf(note).map((file) => file.slice(file.indexOf('.')))).toEqual([
      expect.stringMatching(/^\.\d+\.usearch$/),
      '.json',
      '.rows',
    ])
    expect(await reopen(dataDir)).toMatchObject({ reasons: [], embedded: 0 })
  })

  test('of another embedder: embedded anew', async () => {
    const { dataDir } = await saved()
    const again = await reopen(dataDir, fakeEmbedder({ name: 'other' }))
    expect(again).toMatchObject({ reasons: [['warn', 'other_embedder']], embedded: 400 })
  })

  test('of another log: not used', async () => {
    const [one, two] = [await saved(), scratch()]
    const store = await memory({ dataDir: two, limits: SMALL })
    await store.land(facts(0, 200).reverse(), POST)
    await store.indexed()
    await store.close()
    restore(one.note, snapshot(indexFile(join(two, 'index'), T)))
    expect(await reopen(one.dataDir)).toMatchObject({ reasons: [['warn', 'stale']] })
  })

  test('older than the log, with what a later round left: the rest is added', async () => {
    const { dataDir, note } = await saved()
    const kept = snapshot(note)
    const store = await memory({ dataDir, limits: SMALL })
    await store.land(facts(200, 300), POST)
    await store.indexed()
    await store.close()
    const rows = readFileSync(rowsOf(note))
    const graph = readFileSync(graphOf(note))
    restore(note, kept)
    writeFileSync(rowsOf(note), rows)
    writeFileSync(graphOf(note).replace(/\.\d+\.usearch$/, '.99.usearch'), graph)
    const log = recordingLog()
    const again = await memory({ dataDir, limits: SMALL, log })
    await again.indexed()
    expect(again.status()[0]).toMatchObject({ indexed: 300, pending: 0 })
    expect(again.search(T, query(250), 1)[0]?.editId).toBe('e250')
    expect(log.lines).toEqual([])
    expect(filesOf(note)).toHaveLength(3)
  })

  test('a damaged table of embeddings is dropped and filled again', async () => {
    const { dataDir, note } = await saved()
    for (const name of filesOf(note)) rmSync(join(dirname(note), name))
    writeFileSync(join(dataDir, 'index', 'vectors.db'), 'no database at all, but long enough to be looked at as one'.repeat(100))
    const again = await reopen(dataDir)
    expect(again.embedded).toBe(400)
    expect(again.reasons).toEqual([
      ['warn', 'corrupt'],
      ['warn', 'missing'],
    ])
  })
})

/** Names of the files of one index. */
function filesOf(note: string): string[] {
  const stem = basename(note, '.json')
  return readdirSync(dirname(note)).filter((name) => name.startsWith(stem))
}

function graphOf(note: string): string {
  return join(dirname(note), filesOf(note).find((name) => name.endsWith('.usearch')) ?? 'none')
}

function rowsOf(note: string): string {
  return note.replace('.json', '.rows')
}

function snapshot(note: string): ReadonlyMap<string, Buffer> {
  return new Map(filesOf(note).map((name) => [name, readFileSync(join(dirname(note), name))]))
}

function restore(note: string, files: ReadonlyMap<string, Buffer>): void {
  for (const name of filesOf(note)) rmSync(join(dirname(note), name))
  for (const [name, bytes] of files) writeFileSync(join(dirname(note), name), bytes)
}

/** What versions with hnswlib have left. */
function makeOld(note: string): void {
  restore(note, new Map())
  for (const suffix of ['hnsw', 'hnsw.json']) writeFileSync(note.replace('json', suffix), '{}')
}

function cut(file: string, bytes: number): void {
  truncateSync(file, statSync(file).size - bytes)
}

function flip(file: string): void {
  const bytes = readFileSync(file)
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 4
  writeFileSync(file, bytes)
}

function editNote(note: string, change: object): void {
  writeFileSync(note, JSON.stringify({ ...JSON.parse(readFileSync(note, 'utf8')), ...change }))
}
