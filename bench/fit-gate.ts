/**
 * Fits the gate and prints its precision–recall curve: `npm run fit-gate -- DATA_FOLDER [CACHE_FILE]`. Every number printed is out of
 * fold: five folds by relation, so that a relation is scored by weights that never saw it. Writes calibration/gate.json.
 */
import { writeFileSync } from 'node:fs'
import type { Edit } from '../src/edit/edit.ts'
import { EVIDENCE, type Evidence, type EvidenceName } from '../src/memory/evidence.ts'
import type { HeldEdit } from '../src/memory/memory.ts'
import { Retriever, type Source } from '../src/memory/retrieve.ts'
import { Arena } from '../src/memory/vector-index.ts'
import { development } from './gate-data.ts'
import { diskEmbedder } from './gate-rows.ts'

const [folder = '../shared/data', embedderPath = '', cachePath = '/tmp/palimpsest-embeddings.bin', dumpPath] =
  process.argv.slice(2)
const FOLDS = 5
const THRESHOLD = 0.4
const PRODUCTS: readonly [EvidenceName, EvidenceName][] = [
  ['exact', 'relation'],
  ['exact', 'whole_statement'],
  ['inside_longer', 'relation'],
  ['inside_longer', 'whole_statement'],
  ['extended_right', 'relation'],
  ['extended_right', 'whole_statement'],
  ['realm', 'relation'],
  ['lone_word', 'relation'],
  ['lone_word', 'decoy'],
  ['partial', 'relation'],
  ['partial', 'whole_statement'],
  ['misspelt', 'relation'],
  ['misspelt', 'whole_statement'],
  ['alike', 'relation'],
  ['alike', 'whole_statement'],
  ['alike', 'whole'],
  ['head_same', 'relation'],
  ['head_differs', 'relation'],
  ['wrong_kind', 'relation'],
  ['wrong_kind', 'relation_words'],
  ['wrong_kind', 'profile'],
  ['specific', 'relation'],
  ['specific', 'whole'],
  ['specific', 'whole_statement'],
  ['specific', 'decoy'],
  ['specific', 'gap'],
  ['specific', 'profile'],
  ['specific', 'head_cosine'],
]
/** Evidence that can only speak against an edit: where the data make it speak for one, that is chance, and it is left out. */
const AGAINST: readonly EvidenceName[] = [
  'inside_longer',
  'extended_right',
  'told',
  'asks_number',
  'case_mismatch',
  'extended_left',
  'realm',
  'contrast',
  'head_contrast',
  'wrong_kind',
  'bare',
]
/** Kinds of probe count alike although their files do not have the same length; statements repeated word for word teach little. */
const WEIGHTS: Readonly<Record<string, number>> = {
  'cf.prompt': 0.3,
  'ke.prompt': 0.2,
  'wfd.prompt': 0.2,
  'zsre.prompt': 0.2,
  'cf.paraphrase': 4,
  'cf.portability': 3,
  'zsre.portability': 2,
  'traffic.nq': 3,
  'traffic.gsm8k': 2,
  'traffic.mmlu': 2,
  'traffic.mt': 2,
  'ke.alias': 0.5,
  'own.asks': 4,
  'own.not': 4,
}

/** Given, not fitted: what is opposed, reversed or narrowed is refused by meaning, and public data hold too few of these to learn it from. */
const GIVEN: Readonly<Partial<Record<EvidenceName, number>>> = { opposed: -6, reversed: -6, qualified: -4 }

interface Row {
  readonly x: Float64Array
  /** What the given weights add. */
  readonly offset: number
  readonly y: number
  readonly fold: number
  readonly weight: number
  readonly probe: number
  readonly edit: string
}

function features(e: Evidence): Float64Array {
  return Float64Array.from([1, ...EVIDENCE.map((n) => (n in GIVEN ? 0 : e[n])), ...PRODUCTS.map(([a, b]) => e[a] * e[b])])
}

function memoryOf(edits: readonly Edit[], vectors: readonly Float32Array[]): Source {
  const held = edits.map((edit, seq): HeldEdit => ({ edit, batchId: 'b', seq, landedAt: 0, state: 'live' }))
  const byId = new Map(held.map((h) => [h.edit.id, h]))
  const index = new Arena(384)
  for (const [seq, vector] of vectors.entries()) index.add({ seq, vector })
  return {
    version: 1,
    tenants: () => ['default'],
    all: () => held,
    get: (_t, id) => byId.get(id),
    heldAt: () => true,
    search: (_t, query, k) =>
      index.nearest(query, k).map(({ seq, similarity }) => ({ editId: edits[seq]?.id ?? '', similarity })),
    onChange: () => undefined,
  }
}

function fold(group: string): number {
  let hash = 0
  for (const c of group) hash = (hash * 31 + c.charCodeAt(0)) >>> 0
  return hash % FOLDS
}

/** L2-regularised logistic regression by Newton's method (iteratively reweighted least squares). */
function regress(rows: readonly Row[], ridge = 0.3): Float64Array {
  const n = rows[0]?.x.length ?? 0
  const beta = new Float64Array(n)
  for (let round = 0; round < 15; round++) {
    const h = Array.from({ length: n }, (_, i) =>
      Float64Array.from({ length: n }, (_, j) => (i === j ? (i === 0 ? 1e-6 : ridge) : 0)),
    )
    const g = Float64Array.from(beta, (b, i) => (i === 0 ? 0 : -ridge * b))
    for (const { x, y, weight, offset } of rows) {
      const p = probability(beta, x, offset)
      const s = weight * Math.max(1e-6, p * (1 - p))
      for (let i = 0; i < n; i++) {
        const xi = x[i] ?? 0
        if (xi === 0) continue
        ;(g as Float64Array)[i] = (g[i] ?? 0) + weight * (y - p) * xi
        const hi = h[i] as Float64Array
        for (let j = 0; j < n; j++) hi[j] = (hi[j] ?? 0) + s * xi * (x[j] ?? 0)
      }
    }
    const step = solve(h, g)
    for (let i = 0; i < n; i++) beta[i] = (beta[i] ?? 0) + (step[i] ?? 0)
    if (Math.max(...step.map(Math.abs)) < 1e-6) break
  }
  return beta
}

/** Gaussian elimination with partial pivoting; the matrix is positive definite. */
function solve(matrix: readonly Float64Array[], vector: Float64Array): Float64Array {
  const n = vector.length
  const a = matrix.map((row, i) => [...row, vector[i] ?? 0])
  for (let c = 0; c < n; c++) {
    let pivot = c
    for (let r = c + 1; r < n; r++) if (Math.abs(a[r]?.[c] ?? 0) > Math.abs(a[pivot]?.[c] ?? 0)) pivot = r
    ;[a[c], a[pivot]] = [a[pivot] as number[], a[c] as number[]]
    const top = a[c] as number[]
    for (let r = 0; r < n; r++) {
      const row = a[r] as number[]
      const f = r === c ? 0 : (row[c] ?? 0) / (top[c] ?? 1)
      if (f !== 0) for (let k = c; k <= n; k++) row[k] = (row[k] ?? 0) - f * (top[k] ?? 0)
    }
  }
  return Float64Array.from(a, (row, i) => (row[n] ?? 0) / (row[i] ?? 1))
}

function probability(beta: Float64Array, x: Float64Array, offset: number): number {
  let sum = offset
  for (let i = 0; i < x.length; i++) sum += (beta[i] ?? 0) * (x[i] ?? 0)
  return 1 / (1 + Math.exp(-sum))
}

const { edits, probes } = development(folder)
const disk = await diskEmbedder(embedderPath, cachePath)
const embedder = {
  name: 'disk',
  dimensions: 384,
  maxTokens: 512,
  close: async () => undefined,
  embed: async (texts: readonly string[]) => Promise.all(texts.map((t) => disk.embed(t))),
}
const retriever = new Retriever(memoryOf(edits, await embedder.embed(edits.map((e) => e.prompt))), embedder, {
  now: () => 0,
  cacheBytes: 1 << 20,
})
const rows: Row[] = []
const silent = new Set<Row>()
for (const [i, probe] of probes.entries()) {
  const query = {
    model: 'any',
    messages: [{ role: 'user', content: probe.text }],
    tenant: 'default',
    edits: { kind: 'on' },
    tags: [],
  } as const
  const { candidates } = await retriever.candidates(query, 0)
  for (const { edit, evidence } of candidates) {
    if (evidence === null) continue
    const row = {
      ...{
        x: features(evidence),
        offset: EVIDENCE.reduce((sum, n) => sum + (GIVEN[n] ?? 0) * evidence[n], 0),
        y: probe.wants.includes(edit.id) ? 1 : 0,
        fold: fold(probe.group),
      },
      ...{ weight: WEIGHTS[probe.kind] ?? 1, probe: i, edit: edit.id },
    }
    rows.push(row)
    if (probe.also.includes(edit.id)) silent.add(row)
  }
  if (i % 1000 === 0) console.error(`${i} of ${probes.length} probes`)
}
await disk.close()
const clean = rows.filter((r) => !silent.has(r))

/** Fits, leaving out (for good) what the data give the wrong sign. */
function fitted(train: readonly Row[]): Float64Array {
  const left = new Set<number>()
  for (;;) {
    const beta = regress(left.size === 0 ? train : train.map((r) => ({ ...r, x: r.x.map((v, i) => (left.has(i) ? 0 : v)) })))
    const wrong = AGAINST.map((name) => EVIDENCE.indexOf(name) + 1).filter((i) => (beta[i] ?? 0) > 0)
    if (wrong.length === 0) return beta
    for (const i of wrong) left.add(i)
  }
}

const scores = new Map<Row, number>()
for (let f = 0; f < FOLDS; f++) {
  const beta = fitted(clean.filter((r) => r.fold !== f))
  for (const row of rows) if (row.fold === f) scores.set(row, probability(beta, row.x, row.offset))
}

const THRESHOLDS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9]
const kinds = [...new Set(probes.map((p) => p.kind))]
console.log(
  `${edits.length} edits in memory, ${probes.length} probes, ${rows.length} candidates; ${FOLDS} folds by relation, all figures out of fold`,
)
console.log('| probe | n | measure |', THRESHOLDS.map((t) => `≥ ${t}`).join(' | '), '|')
console.log(`|---|---|---|${THRESHOLDS.map(() => '---').join('|')}|`)
for (const kind of kinds) {
  const ids = new Set(probes.flatMap((p, i) => (p.kind === kind ? [i] : [])))
  const line = (measure: string, wanted: 0 | 1) => {
    const cells = THRESHOLDS.map((t) => {
      const fired = new Set<number>()
      for (const [row, s] of scores)
        if (s >= t && ids.has(row.probe) && !silent.has(row) && row.y === wanted) fired.add(row.probe)
      return `${((100 * fired.size) / ids.size).toFixed(1)} %`
    })
    console.log(`| ${kind} | ${ids.size} | ${measure} | ${cells.join(' | ')} |`)
  }
  if ([...ids].some((i) => (probes[i]?.wants.length ?? 0) > 0 && !/neighbour|loc|other|traffic|not/.test(kind)))
    line('right edit', 1)
  line('false alarm', 0)
}
console.log('\n| score | candidates | of them right |\n|---|---|---|')
for (let low = 0; low < 0.95; low += 0.1) {
  const inside = clean.filter((r) => (scores.get(r) ?? 0) >= low && (scores.get(r) ?? 0) < low + 0.1)
  console.log(
    `| ${low.toFixed(1)}–${(low + 0.1).toFixed(1)} | ${inside.length} | ${((100 * inside.filter((r) => r.y === 1).length) / inside.length).toFixed(1)} % |`,
  )
}
if (dumpPath !== undefined)
  writeFileSync(
    dumpPath,
    [...scores]
      .map(([r, s]) => JSON.stringify([probes[r.probe]?.kind, s, r.y, silent.has(r), probes[r.probe]?.text, r.edit, [...r.x]]))
      .join('\n'),
  )
const beta = fitted(clean)
const round = (x: number | undefined) => Math.round((x ?? 0) * 1000) / 1000
const weights = Object.fromEntries(EVIDENCE.map((name, i) => [name, GIVEN[name] ?? round(beta[i + 1])]))
const products = Object.fromEntries(PRODUCTS.map(([a, b], i) => [`${a}*${b}`, round(beta[EVIDENCE.length + 1 + i])]))
writeFileSync(
  'calibration/gate.json',
  `${JSON.stringify({ bias: round(beta[0]), weights, products, threshold: THRESHOLD }, null, 2)}\n`,
)
