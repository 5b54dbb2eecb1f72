/**
 * Multi-hop questions over many edits at once: `npm run bench:mquake -- --data FILE --model FILE --embedder FILE --reader FILE [--cases 60]
 * [--multi-hop chain]`. FILE is one of MQuAKE's as published. The edits of all its records are in memory together; selection is scored on
 * every record, answers on `cases` of them, evenly spread (0: none, the model is not loaded). A case counts as right when one of its
 * questions is (Zhong et al. 2023, section 4). `E-` stands for a chain whose first hop was edited and whose second the model must know.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { parseBatch } from '../../src/edit/batch.ts'
import type { Edit } from '../../src/edit/edit.ts'
import { words } from '../../src/edit/words.ts'
import { Bridges } from '../../src/engine/bridge.ts'
import { openRuntime } from '../../src/engine/embedded/runtime.ts'
import type { Engine } from '../../src/engine/engine.ts'
import { openScripted } from '../../src/engine/scripted.ts'
import { DEFAULT_LIMITS, type Gateway } from '../../src/gateway.ts'
import { openMemory } from '../../src/memory/store.ts'
import { answer, explain } from '../../src/pipeline.ts'
import { openTemplates } from '../../src/prompt/templates.ts'
import type { ChatRequest, MultiHop } from '../../src/request.ts'
import { readCalibration } from '../../src/selection/gate.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { Trace } from '../../src/trace.ts'
import { selectionModels } from './models.ts'

const { values: flags } = parseArgs({
  options: {
    data: { type: 'string', default: '../shared/data/mquake/mquake-2002-dev-400.json' },
    model: { type: 'string', default: '' },
    embedder: { type: 'string', default: '' },
    reader: { type: 'string', default: '' },
    cases: { type: 'string', default: '60' },
    patterns: { type: 'string' },
    templates: { type: 'string', default: 'templates' },
    tokens: { type: 'string', default: '32' },
    threads: { type: 'string', default: '1' },
    'multi-hop': { type: 'string', default: 'chain' },
    arm: { type: 'string', default: 'edited' },
    out: { type: 'string' },
  },
})

interface Record {
  readonly questions: readonly string[]
  readonly new_answer: string
  readonly new_answer_alias: readonly string[]
  readonly orig: {
    readonly new_triples: readonly (readonly string[])[]
    readonly new_triples_labeled: readonly (readonly string[])[]
    readonly edit_triples: readonly (readonly string[])[]
  }
}

interface Asked {
  readonly pattern: string
  readonly question: string
  readonly targets: readonly string[]
  readonly needed: readonly string[]
  readonly selected: readonly string[]
  answer: string | null
}

const records: Record[] = JSON.parse(readFileSync(flags.data, 'utf8'))
const { edits } = parseBatch(readFileSync(flags.data, 'utf8'), { kind: 'json', format: 'mquake', tenant: 'default' })
const bySubject = new Map<string, Edit[]>()
for (const edit of edits) bySubject.set(edit.subject, [...(bySubject.get(edit.subject) ?? []), edit])

const quiet = { info: () => undefined, warn: console.error, error: console.error, debug: () => undefined }
const runtime = await openRuntime({ threads: Number(flags.threads), gpu: 'auto', log: () => undefined })
const { embedder, reader } = await selectionModels(runtime, flags)
const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-bench-'))
const memory = await openMemory({ dataDir, embedder, now: Date.now, log: quiet as never })
await memory.land(edits, { source: 'bench', tenant: 'default', dryRun: false })
await memory.indexed()
const engine: Engine =
  flags.model === ''
    ? openScripted({ name: 'none', reply: () => '' })
    : await runtime.openChat({ modelPath: flags.model, name: 'm', slots: 2, contextTokens: 2048 })
const gateway: Gateway = {
  ...{ engine, memory, limits: DEFAULT_LIMITS, now: Date.now, log: quiet, version: 'bench', startedAt: Date.now() },
  templates: openTemplates({ dir: flags.templates, watch: false, log: quiet }),
  retriever: new Retriever(memory, embedder, reader, { now: Date.now, cacheBytes: 8 << 20 }),
  calibration: readCalibration(),
  multiHop: { mode: flags['multi-hop'] as MultiHop, bridges: new Bridges(engine) },
}

function request(question: string): ChatRequest {
  return {
    ...{ model: 'm', tenant: 'default', edits: { kind: 'on' }, tags: [], explain: false },
    messages: [{ role: 'user', content: question }],
    arm: flags.arm === 'base' ? 'base' : 'edited',
    sampling: { temperature: 0, topP: 1, maxTokens: Number(flags.tokens), stop: [] },
  }
}

/** Which hops were edited, and the edits that did it. */
function chainOf({ orig }: Record): { pattern: string; needed: string[] } {
  const edited = new Set(orig.edit_triples.map(String))
  const hops = orig.new_triples.map((triple, i) => {
    const [subject = '', , target = ''] = orig.new_triples_labeled[i] ?? []
    return edited.has(String(triple)) ? (bySubject.get(subject)?.find((e) => e.targetNew === target)?.id ?? '?') : null
  })
  return { pattern: hops.map((id) => (id === null ? '-' : 'E')).join(''), needed: hops.flatMap((id) => id ?? []) }
}

const every = Number(flags.cases) === 0 ? Number.POSITIVE_INFINITY : records.length / Number(flags.cases)
const all: Asked[][] = []
let spentMs = 0
let answered = 0
const cost = { calls: 0, promptTokens: 0, completionTokens: 0, ms: 0 }
for (const [i, record] of records.entries()) {
  const { pattern, needed } = chainOf(record)
  if (flags.patterns !== undefined && !flags.patterns.split(',').includes(pattern)) continue
  const generate = Math.floor((i + 1) / every) > Math.floor(i / every)
  const asked: Asked[] = []
  for (const question of record.questions) {
    const trace = new Trace('bench', () => performance.now())
    let text: string | null = null
    if (generate) {
      const start = performance.now()
      text = ''
      for await (const piece of answer(request(question), gateway, trace, new AbortController().signal)) text += piece.text
      spentMs += performance.now() - start
      answered++
    } else if (flags['multi-hop'] === 'model') continue
    else await explain(request(question), gateway, trace, new AbortController().signal)
    cost.calls += trace.decomposition.calls
    cost.promptTokens += trace.decomposition.promptTokens
    cost.completionTokens += trace.decomposition.completionTokens
    cost.ms += trace.stagesMs.decompose ?? 0
    const selected = trace.turns.flatMap((t) => t.considered.filter((c) => c.reason === 'selected').map((c) => c.id))
    const targets = [record.new_answer, ...record.new_answer_alias]
    asked.push({ pattern, question, targets, needed, selected, answer: text })
  }
  if (asked.length > 0) all.push(asked)
  if (generate) console.error(`${all.length} of ${records.length}`)
}

const normal = (s: string) => ` ${words(s).join(' ')} `
const right = (a: Asked) => a.targets.some((t) => normal(t).trim() !== '' && normal(a.answer ?? '').includes(normal(t)))
const complete = (a: Asked) => a.needed.every((id) => a.selected.includes(id))
const share = <T>(list: readonly T[], test: (one: T) => boolean) =>
  list.length === 0 ? '–' : `${((100 * list.filter(test).length) / list.length).toFixed(1)} %`
console.log(
  `${records.length} records, ${edits.length} edits in memory, ${flags.model.split('/').at(-1)}, greedy, ${flags.tokens} tokens`,
)
console.log('selection | cases | all needed, some question | questions | all needed | one needed | not needed')
console.log('answers | cases | right, some question | questions | right | right where all needed were selected')
for (const pattern of ['E-', '-E', 'EE', ...new Set(all.map(([a]) => a?.pattern ?? '')), 'all'].filter(
  (p, i, l) => l.indexOf(p) === i,
)) {
  const cases = all.filter(([a]) => pattern === 'all' || a?.pattern === pattern)
  const asked = cases.flat()
  if (asked.length === 0) continue
  console.log(
    `| ${pattern} | ${cases.length} | ${share(cases, (c) => c.some(complete))} | ${asked.length} | ${share(asked, complete)} | ${share(asked, (a) => a.needed.some((id) => a.selected.includes(id)))} | ${share(asked, (a) => a.selected.some((id) => !a.needed.includes(id)))} |`,
  )
  const told = cases.filter((c) => c[0]?.answer !== null)
  if (told.length > 0)
    console.log(
      `|   answers | ${told.length} | ${share(told, (c) => c.some(right))} | ${told.flat().length} | ${share(told.flat(), right)} | ${share(told.flat().filter(complete), right)} |`,
    )
}
if (answered > 0)
  console.log(
    `${(spentMs / answered / 1000).toFixed(2)} s a question; decomposition: ${JSON.stringify({ ...cost, ms: Math.round(cost.ms) })}`,
  )
if (flags.out !== undefined)
  writeFileSync(
    flags.out,
    JSON.stringify(
      all.flat().map((a) => ({ ...a, right: a.answer !== null && right(a), complete: complete(a) })),
      null,
      1,
    ),
  )
await memory.close()
await runtime.dispose()
rmSync(dataDir, { recursive: true })
