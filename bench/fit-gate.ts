/**
 * Fits the gate's few weights: `npm run fit-gate -- --embedder FILE --reader FILE [--threshold 0.5] [MORE.jsonl …]`. Teams of corpus/*.jsonl
 * that the reader was not taught (editor/palimpsest_reader/data.py), and all teams of further files in the same shape, each in a memory of its
 * own; the candidates that the reader was asked about give the rows. Writes calibration/gate.json. Trial files are refused: they measure.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { openRuntime } from '../src/engine/llama.ts'
import { type EditFields, editOf } from '../src/evaluate/firing/edits.ts'
import { openMemory } from '../src/memory/store.ts'
import type { Message } from '../src/request.ts'
import { CALIBRATION_FILE, EVIDENCE, evidenceOf } from '../src/selection/gate.ts'
import { Retriever } from '../src/selection/retriever.ts'
import { selectionModels } from './selection-models.ts'

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ...{ embedder: { type: 'string', default: '' }, reader: { type: 'string', default: '' } },
    ...{ corpus: { type: 'string', default: 'corpus' }, threshold: { type: 'string', default: '0.5' } },
    ...{ threads: { type: 'string', default: '1' }, out: { type: 'string', default: CALIBRATION_FILE } },
  },
})
const RIDGE = 0.3
const ROUNDS = 30

interface Item {
  readonly messages: readonly Message[]
  readonly also?: readonly string[]
  readonly is?: readonly string[]
}

interface Taught {
  readonly id: string
  readonly team: string
  readonly always?: boolean
  readonly edit: EditFields
  readonly in_scope: readonly Item[]
  readonly near_miss: readonly Item[]
}

/** As `held_out` in editor/palimpsest_reader/data.py: a tenth of the teams, by name. */
function heldOut(team: string): boolean {
  const bytes = Buffer.from(team.replace(/[^\p{L}\p{N}_]/gu, '').toLowerCase())
  return bytes.reduce((number, byte) => (number * 256 + byte) % 1_000_003, 0) % 1_000 < 100
}

function read(file: string): Taught[] {
  if (/trial/i.test(basename(file))) throw new Error(`${file}: the trial measures selection; nothing is fitted to it.`)
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Taught)
}

const own = readdirSync(flags.corpus)
  .filter((name) => name.endsWith('.jsonl'))
  .flatMap((name) => read(join(flags.corpus, name)))
const records = [...own.filter(({ team }) => heldOut(team)), ...positionals.flatMap(read)]
const teams = new Map<string, Taught[]>()
for (const record of records) teams.set(record.team, [...(teams.get(record.team) ?? []), record])

interface Row {
  /** 1 for the bias, then the evidence. */
  readonly x: readonly number[]
  readonly y: 0 | 1
}

const quiet = { info: () => undefined, warn: console.error, error: console.error }
const runtime = await openRuntime({ threads: Number(flags.threads), gpu: false, log: () => undefined })
const { embedder, reader } = await selectionModels(runtime, { embedder: flags.embedder, reader: flags.reader })

/** Each message of a team against the edits that the reader was asked about. A near miss tells of its own edit and of those it `is` for only. */
async function rowsOf(team: readonly Taught[]): Promise<Row[]> {
  const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-fit-'))
  const memory = await openMemory({ dataDir, embedder, now: Date.now, log: quiet })
  memory.land(
    team.map(({ id, edit }) => ({ ...editOf(edit, id), tenant: 'default' })),
    { source: 'fit', tenant: 'default', dryRun: false },
  )
  await memory.indexed()
  const retriever = new Retriever(memory, embedder, reader, { now: Date.now, cacheBytes: 1 })
  const rows: Row[] = []
  const ask = async (messages: readonly Message[], right: ReadonlySet<string>, told: (id: string) => boolean) => {
    const query = { model: 'any', messages, tenant: 'default', edits: { kind: 'on' }, tags: [] } as const
    for (const candidate of (await retriever.candidates(query, messages.length - 1)).candidates) {
      const { edit, logit } = candidate
      if (logit === null || edit.always || !told(edit.id)) continue
      const evidence = evidenceOf(candidate)
      rows.push({ x: [1, ...EVIDENCE.map((name) => evidence[name])], y: right.has(edit.id) ? 1 : 0 })
    }
  }
  for (const { id, in_scope: inScope, near_miss: nearMiss } of team) {
    for (const { messages, also = [] } of inScope) await ask(messages, new Set([id, ...also]), () => true)
    for (const { messages, is = [] } of nearMiss) await ask(messages, new Set(is), (other) => other === id || is.includes(other))
  }
  await memory.close()
  rmSync(dataDir, { recursive: true })
  return rows
}

const probability = (weights: readonly number[], x: readonly number[]) =>
  1 / (1 + Math.exp(-x.reduce((sum, value, i) => sum + value * (weights[i] ?? 0), 0)))

/** L2-regularised logistic regression by Newton's method; the bias is free. */
function regress(rows: readonly Row[]): number[] {
  const n = EVIDENCE.length + 1
  let weights = Array.from({ length: n }, () => 0)
  for (let round = 0; round < ROUNDS; round++) {
    const slope = weights.map((w, i) => (i === 0 ? 0 : -RIDGE * w))
    const curve = weights.map((_, i) => weights.map((_, j) => (i === j ? (i === 0 ? 1e-6 : RIDGE) : 0)))
    for (const { x, y } of rows) {
      const p = probability(weights, x)
      for (const [i, xi] of x.entries()) {
        slope[i] = (slope[i] ?? 0) + (y - p) * xi
        for (const [j, xj] of x.entries()) (curve[i] as number[])[j] = (curve[i]?.[j] ?? 0) + p * (1 - p) * xi * xj
      }
    }
    const step = solve(curve, slope)
    weights = weights.map((w, i) => w + (step[i] ?? 0))
  }
  return weights
}

/** Gauss–Jordan elimination; the matrix is positive definite. */
function solve(matrix: readonly (readonly number[])[], vector: readonly number[]): number[] {
  const a = matrix.map((row, i) => [...row, vector[i] ?? 0])
  for (const [c, top] of a.entries()) {
    for (const [r, row] of a.entries()) {
      const factor = r === c ? 0 : (row[c] ?? 0) / (top[c] ?? 1)
      if (factor !== 0) for (const [k, value] of top.entries()) row[k] = (row[k] ?? 0) - factor * value
    }
  }
  return a.map((row, i) => (row.at(-1) ?? 0) / (row[i] ?? 1))
}

const rows: Row[] = []
for (const [name, team] of teams) {
  rows.push(...(await rowsOf(team)))
  console.error(`${name}: ${rows.length} rows`)
}
await runtime.dispose()
if (!rows.some(({ y }) => y === 1) || !rows.some(({ y }) => y === 0))
  throw new Error('Expected rows that need their edit and rows that do not.')
const weights = regress(rows)
console.log('| threshold | needed edits taken | others taken |\n|---|---|---|')
for (const threshold of [0.1, 0.3, 0.5, 0.7, 0.9]) {
  const share = (y: 0 | 1) => {
    const of = rows.filter((row) => row.y === y)
    return `${((100 * of.filter(({ x }) => probability(weights, x) >= threshold).length) / of.length).toFixed(1)} %`
  }
  console.log(`| ${threshold} | ${share(1)} | ${share(0)} |`)
}
const [bias = 0, ...fitted] = weights.map((w) => Number(w.toFixed(3)))
const named = Object.fromEntries(EVIDENCE.map((name, i) => [name, fitted[i]]))
writeFileSync(flags.out, `${JSON.stringify({ bias, weights: named, threshold: Number(flags.threshold) }, null, 2)}\n`)
