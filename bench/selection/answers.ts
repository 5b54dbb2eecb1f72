/**
 * Do edits change a real model's answers, and only where they should? Base and edited side by side, greedy, through the same pipeline as
 * a served request: `npm run bench:answers -- --data FOLDER --model FILE --embedder FILE --reader FILE [--edits 500] [--probed 100] [--out FILE]`.
 * CounterFact edits are all in memory; the first `probed` records give prompt, paraphrases and neighbours; NQ-open, GSM8K and MT-Bench
 * give traffic that no edit should touch.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { parseBatch } from '../../src/edit/batch.ts'
import type { Edit } from '../../src/edit/edit.ts'
import { words } from '../../src/edit/words.ts'
import { openRuntime } from '../../src/engine/embedded/runtime.ts'
import { DEFAULT_LIMITS, type Gateway } from '../../src/gateway.ts'
import { openMemory } from '../../src/memory/store.ts'
import { answer } from '../../src/pipeline.ts'
import { openTemplates } from '../../src/prompt/templates.ts'
import type { Arm, ChatRequest } from '../../src/request.ts'
import { readCalibration } from '../../src/selection/gate.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { Trace } from '../../src/trace.ts'
import { selectionModels } from './models.ts'

const { values: flags } = parseArgs({
  options: {
    data: { type: 'string', default: '../shared/data' },
    model: { type: 'string', default: '' },
    embedder: { type: 'string', default: '' },
    reader: { type: 'string', default: '' },
    edits: { type: 'string', default: '500' },
    probed: { type: 'string', default: '100' },
    neighbours: { type: 'string', default: '2' },
    traffic: { type: 'string', default: '50' },
    tokens: { type: 'string', default: '32' },
    template: { type: 'string' },
    threads: { type: 'string', default: '2' },
    out: { type: 'string' },
  },
})

interface Probe {
  readonly kind: 'prompt' | 'paraphrase' | 'neighbour' | 'nq' | 'gsm8k' | 'mt-bench'
  readonly text: string
  /** Null: out of scope. */
  readonly target: string | null
}

interface Outcome extends Probe {
  readonly base: string
  readonly edited: string
  readonly fired: readonly string[]
  readonly ms: { readonly base: number; readonly edited: number }
}

const json = (path: string) => JSON.parse(readFileSync(join(flags.data, path), 'utf8'))
const lines = (path: string) =>
  readFileSync(join(flags.data, path), 'utf8')
    .split('\n')
    .filter((l) => l.endsWith('}'))
    .map((l) => JSON.parse(l))
const records = json('counterfact/counterfact-dev-500.json').slice(0, Number(flags.edits))
const { edits } = parseBatch(JSON.stringify(records), { kind: 'json', format: 'counterfact', tenant: 'default' })

/** True when another record edits this very prompt's subject, so that firing on it would be right. */
const subjects = new Set(edits.map((e: Edit) => words(e.subject).join(' ')))
const edited = (text: string) => {
  const w = words(text)
  for (let i = 0; i < w.length; i++)
    for (let j = i + 1; j <= w.length; j++) if (subjects.has(w.slice(i, j).join(' '))) return true
  return false
}

function probes(): Probe[] {
  const out: Probe[] = []
  for (const r of records.slice(0, Number(flags.probed))) {
    const { prompt, subject, target_new } = r.requested_rewrite
    out.push({ kind: 'prompt', text: prompt.replace('{}', subject), target: target_new.str })
    for (const text of r.paraphrase_prompts) out.push({ kind: 'paraphrase', text, target: target_new.str })
    for (const text of r.neighborhood_prompts.filter((t: string) => !edited(t)).slice(0, Number(flags.neighbours)))
      out.push({ kind: 'neighbour', text, target: null })
  }
  const n = Number(flags.traffic)
  for (const r of lines('traffic/nq-open-1500.jsonl').slice(0, n)) out.push({ kind: 'nq', text: r.question, target: null })
  for (const r of lines('traffic/gsm8k-500.jsonl').slice(0, n)) out.push({ kind: 'gsm8k', text: r.question, target: null })
  for (const r of lines('traffic/mt-bench-80.jsonl').slice(0, n)) out.push({ kind: 'mt-bench', text: r.turns[0], target: null })
  return out
}

const quiet = { info: () => undefined, warn: console.error, error: console.error, debug: () => undefined }
const runtime = await openRuntime({ threads: Number(flags.threads), gpu: 'auto', log: () => undefined })
const engine = await runtime.openChat({ modelPath: flags.model, name: 'm', slots: 2, contextTokens: 2048 })
const { embedder, reader } = await selectionModels(runtime, flags)
const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-bench-'))
const memory = await openMemory({ dataDir, embedder, now: Date.now, log: quiet as never })
await memory.land(edits, { source: 'bench', tenant: 'default', dryRun: false })
await memory.indexed()
const gateway: Gateway = {
  engine,
  memory,
  templates: openTemplates({ dir: 'templates', watch: false, log: quiet }),
  limits: DEFAULT_LIMITS,
  now: Date.now,
  retriever: new Retriever(memory, embedder, reader, { now: Date.now, cacheBytes: 8 << 20 }),
  calibration: readCalibration(),
  log: quiet,
  version: 'bench',
  startedAt: Date.now(),
}

async function ask(text: string, arm: Arm) {
  const request: ChatRequest = {
    model: 'm',
    messages: [{ role: 'user', content: text }],
    arm,
    tenant: 'default',
    edits: { kind: 'on' },
    tags: [],
    explain: false,
    sampling: { temperature: 0, topP: 1, maxTokens: Number(flags.tokens), stop: [] },
    ...(flags.template === undefined ? {} : { template: flags.template }),
  }
  const trace = new Trace('bench', () => performance.now())
  const start = performance.now()
  let out = ''
  for await (const piece of answer(request, gateway, trace, new AbortController().signal)) out += piece.text
  return {
    out,
    ms: performance.now() - start,
    fired: trace.turns.flatMap((t) => t.considered.filter((c) => c.reason === 'selected').map((c) => c.statement)),
  }
}

const normal = (s: string) => ` ${words(s).join(' ')} `
const outcomes: Outcome[] = []
const all = probes()
for (const [i, probe] of all.entries()) {
  const base = await ask(probe.text, 'base')
  const edited = await ask(probe.text, 'edited')
  outcomes.push({ ...probe, base: base.out, edited: edited.out, fired: edited.fired, ms: { base: base.ms, edited: edited.ms } })
  if (i % 50 === 49) console.error(`${i + 1} of ${all.length}`)
}

const share = (list: readonly Outcome[], test: (o: Outcome) => boolean) =>
  list.length === 0 ? '–' : `${((100 * list.filter(test).length) / list.length).toFixed(1)} %`
const has = (text: string, target: string | null) => target !== null && normal(text).includes(normal(target))
const median = (list: number[]) => Math.round(list.sort((a, b) => a - b)[list.length >> 1] ?? 0)
console.log(
  `${edits.length} edits in memory, ${all.length} probes, greedy, at most ${flags.tokens} tokens, ${flags.model.split('/').at(-1)}`,
)
console.log(
  '| probe | n | base has target | edited has target | fires | byte-identical | median ms base / edited |\n|---|---|---|---|---|---|---|',
)
for (const kind of ['prompt', 'paraphrase', 'neighbour', 'nq', 'gsm8k', 'mt-bench'] as const) {
  const list = outcomes.filter((o) => o.kind === kind)
  const inScope = kind === 'prompt' || kind === 'paraphrase'
  const target = (arm: 'base' | 'edited') => (inScope ? share(list, (o) => has(o[arm], o.target)) : '')
  console.log(
    `| ${kind} | ${list.length} | ${target('base')} | ${target('edited')} | ${share(list, (o) => o.fired.length > 0)} | ${inScope ? '' : share(list, (o) => o.base === o.edited)} | ${median(list.map((o) => o.ms.base))} / ${median(list.map((o) => o.ms.edited))} |`,
  )
}
const out = outcomes.filter((o) => o.target === null)
console.log(
  `out of scope, all ${out.length}: byte-identical ${share(out, (o) => o.base === o.edited)}, fires ${share(out, (o) => o.fired.length > 0)}; differing without firing: ${out.filter((o) => o.fired.length === 0 && o.base !== o.edited).length}`,
)
if (flags.out !== undefined) writeFileSync(flags.out, JSON.stringify(outcomes, null, 1))
await memory.close()
await runtime.dispose()
rmSync(dataDir, { recursive: true })
