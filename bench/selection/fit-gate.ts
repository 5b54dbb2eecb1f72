/**
 * Fits the gate's few weights: `npm run fit-gate -- --embedder FILE --reader FILE --crowd EDITS.json --traffic LINES.jsonl … [--threshold 0.2] [MORE.jsonl …]`.
 * Teams of corpus/*.jsonl that the reader was not taught (editor/palimpsest_reader/data.py), and all teams of further files in the same shape,
 * each in a memory of its own, and all of them once more in one memory with the thousands of edits of `--crowd`, everyday questions asked
 * besides; the candidates that the reader was asked about give the rows. Writes calibration/gate.json. Trial files are refused: they measure.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Edit } from '../../src/edit/edit.ts'
import { openRuntime } from '../../src/engine/embedded/runtime.ts'
import { readTrafficFile } from '../../src/evaluate/data/traffic.ts'
import { type EditFields, editOf } from '../../src/evaluate/firing/edits.ts'
import { openMemory } from '../../src/memory/store.ts'
import type { Message } from '../../src/request.ts'
import { CALIBRATION_FILE, EVIDENCE, evidenceOf } from '../../src/selection/gate.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { heldOut } from './held-out.ts'
import { selectionModels } from './models.ts'

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ...{ embedder: { type: 'string', default: '' }, reader: { type: 'string', default: '' } },
    ...{ corpus: { type: 'string', default: 'corpus' }, threshold: { type: 'string', default: '0.5' } },
    ...{ crowd: { type: 'string' }, traffic: { type: 'string', multiple: true, default: [] } },
    ...{ threads: { type: 'string', default: '1' }, out: { type: 'string', default: CALIBRATION_FILE } },
  },
})
if (flags.crowd === undefined)
  throw new Error('Expected --crowd FILE, thousands of edits; what a full memory costs is fitted to it.')
/** Of the messages, every so manieth is asked of its team's memory, and of the crowded one: each takes a fifth of a second. */
const TEAM_STEP = 4
const CROWDED_STEP = 12
/** Everyday questions of each file, from its end: the reader is taught from the beginning. */
const TRAFFIC_LINES = 100
const CROWD = 'crowd-'
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

interface Asked {
  readonly messages: readonly Message[]
  readonly right: ReadonlySet<string>
  /** Whether it is known of this edit if the message needs it. */
  readonly told: (id: string) => boolean
}

/** A near miss tells of its own edit and of those it `is` for only. */
function askedOf(team: readonly Taught[]): Asked[] {
  // What holds for every message may be right for any of them.
  const ids = new Set(team.flatMap(({ id, always }) => (always ? [] : [id])))
  return team.flatMap(({ id, in_scope: inScope, near_miss: nearMiss }): Asked[] => [
    ...inScope.map(({ messages, also = [] }) => ({
      messages,
      right: new Set([id, ...also]),
      told: (other: string) => ids.has(other),
    })),
    ...nearMiss.map(({ messages, is = [] }) => ({
      messages,
      right: new Set(is),
      told: (other: string) => other === id || is.includes(other),
    })),
  ])
}

/** Each message against the edits of one memory that the reader was asked about. */
async function rowsOf(edits: readonly Edit[], asked: readonly Asked[]): Promise<Row[]> {
  const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-fit-'))
  const memory = await openMemory({ dataDir, embedder, now: Date.now, log: quiet })
  await memory.land(edits, { source: 'fit', tenant: 'default', dryRun: false })
  await memory.indexed()
  const retriever = new Retriever(memory, embedder, reader, { now: Date.now, cacheBytes: 1 })
  const rows: Row[] = []
  for (const { messages, right, told } of asked) {
    const query = { model: 'any', messages, tenant: 'default', edits: { kind: 'on' }, tags: [] } as const
    for (const candidate of (await retriever.candidates(query, messages.length - 1)).candidates) {
      const { edit, logit } = candidate
      if (logit === null || edit.always || !(told(edit.id) || edit.id.startsWith(CROWD))) continue
      const evidence = evidenceOf(candidate)
      rows.push({ x: [1, ...EVIDENCE.map((name) => evidence[name])], y: right.has(edit.id) ? 1 : 0 })
    }
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

const landed = (team: readonly Taught[]) => team.map(({ id, edit }) => ({ ...editOf(edit, id), tenant: 'default' }))
const rows: Row[] = []
for (const [name, team] of teams) {
  rows.push(
    ...(await rowsOf(
      landed(team),
      askedOf(team).filter((_, i) => i % TEAM_STEP === 1),
    )),
  )
  console.error(`${name}: ${rows.length} rows`)
}
const crowd = (JSON.parse(readFileSync(flags.crowd, 'utf8')) as EditFields[]).map((fields, i) => ({
  ...editOf(fields, `${CROWD}${i}`),
  tenant: 'default',
}))
const everyday = flags.traffic.flatMap((file) => readTrafficFile(file).probes.slice(-TRAFFIC_LINES))
const all = [...teams.values()].flatMap((team) => askedOf(team).filter((_, i) => i % CROWDED_STEP === 0))
const unrelated = everyday.map(
  ({ turns }): Asked => ({ messages: turns.map((content) => ({ role: 'user', content })), right: new Set(), told: () => true }),
)
rows.push(...(await rowsOf([...crowd, ...[...teams.values()].flatMap(landed)], [...all, ...unrelated])))
console.error(`crowded: ${rows.length} rows`)
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
