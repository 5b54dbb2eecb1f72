/**
 * Does the later of two contradictory edits win? `npm run bench:conflict -- DATA_FOLDER EMBEDDER_FILE READER_FILE`. ConflictEdit (coverage) edits one
 * (subject, relation) twice: as published; without relation ids; and with the later edit worded as a question, so that only its meaning tells.
 * zsRE and WikiFactDiff give wordings that differ more: the earlier edit in the file's first wording, with the old answer; the later in its
 * rephrase, with the new. All in one memory, asked in both wordings, through the whole pipeline with the embedder and the gate that ship;
 * the model is not asked. "Later alone": it applies and the earlier does not.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseBatch } from '../../src/edit/batch.ts'
import type { Edit } from '../../src/edit/edit.ts'
import { openRuntime } from '../../src/engine/embedded/runtime.ts'
import { openScripted } from '../../src/engine/scripted.ts'
import { DEFAULT_LIMITS, type Gateway } from '../../src/gateway.ts'
import { openMemory } from '../../src/memory/store.ts'
import { explain } from '../../src/pipeline.ts'
import { openTemplates } from '../../src/prompt/templates.ts'
import { readCalibration } from '../../src/selection/gate.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { Trace } from '../../src/trace.ts'
import { selectionModels } from './models.ts'

const [folder = '../shared/data', embedderPath = '', readerPath = ''] = process.argv.slice(2)
// biome-ignore lint/suspicious/noExplicitAny: foreign files, read loosely in a bench
type Foreign = any
const json = (file: string): Foreign[] => JSON.parse(readFileSync(join(folder, file), 'utf8'))

/** Two edits of which the later must win, and the questions that ask for it. */
interface Case {
  readonly earlier: Edit
  readonly later: Edit
  /** Of subject and relation: where two records share one, the last record's later edit is to win in both. */
  readonly key: string
  readonly questions: readonly string[]
}

const quiet = { info: () => undefined, warn: () => undefined, error: console.error }
const runtime = await openRuntime({ threads: 1, gpu: false, log: () => undefined })
const { embedder, reader } = await selectionModels(runtime, { embedder: embedderPath, reader: readerPath })

async function inMemory(cases: readonly Case[]): Promise<{ gateway: Gateway; close: () => Promise<void> }> {
  const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-bench-'))
  const memory = await openMemory({ dataDir, embedder, now: Date.now, log: quiet })
  await memory.land(
    cases.flatMap(({ earlier, later }) => [earlier, later]),
    { source: 'bench', tenant: 'default', dryRun: false },
  )
  await memory.indexed()
  const gateway: Gateway = {
    engine: openScripted({ name: 'none', reply: () => '' }),
    memory,
    retriever: new Retriever(memory, embedder, reader, { now: Date.now, cacheBytes: 8 << 20 }),
    calibration: readCalibration(),
    templates: openTemplates({ dir: 'templates', watch: false, log: quiet }),
    limits: DEFAULT_LIMITS,
    now: Date.now,
    log: quiet,
    version: 'bench',
    startedAt: 0,
  }
  return {
    gateway,
    close: async () => {
      await memory.close()
      rmSync(dataDir, { recursive: true })
    },
  }
}

/** Ids of the edits that would be put in front of the model. */
async function applied(question: string, gateway: Gateway): Promise<Set<string>> {
  const request = {
    ...{ model: 'none', arm: 'edited' as const, tenant: 'default', edits: { kind: 'on' as const }, tags: [], explain: false },
    messages: [{ role: 'user' as const, content: question }],
    sampling: { temperature: 0, topP: 1, stop: [] },
  }
  const { turns } = await explain(request, gateway, new Trace('bench', Date.now), new AbortController().signal)
  return new Set(turns.flatMap(({ considered }) => considered.filter((c) => c.reason === 'selected').map((c) => c.id)))
}

async function score(name: string, cases: readonly Case[]): Promise<void> {
  const { gateway, close } = await inMemory(cases)
  const superseded = cases.filter(({ earlier }) => gateway.memory.get('default', earlier.id)?.state === 'superseded').length
  const winner = new Map(cases.map(({ key, later }) => [key, later.id]))
  const counts = { asked: 0, later: 0, both: 0, earlier: 0, none: 0 }
  for (const { earlier, later, key, questions } of cases)
    for (const question of questions) {
      const ids = await applied(question, gateway)
      const wins = winner.get(key) ?? ''
      const stale = [earlier.id, later.id].some((id) => id !== wins && ids.has(id))
      counts.asked++
      if (ids.has(wins)) counts[stale ? 'both' : 'later']++
      else counts[stale ? 'earlier' : 'none']++
    }
  const { asked, ...outcomes } = counts
  const shares = Object.values(outcomes).map((n) => `${n} (${((100 * n) / asked).toFixed(1)} %)`)
  console.log(`| ${name} | ${superseded} of ${cases.length} | ${asked} | ${shares.join(' | ')} |`)
  await close()
}

const conflicts = json('conflict/coverage-500.json')
function published(records: readonly Foreign[]): Case[] {
  return records.flatMap((record) => {
    const { edits } = parseBatch(JSON.stringify([record]), { kind: 'json', format: 'conflictedit', tenant: 'default' })
    const [earlier, later] = edits
    const { relation, subject } = record.edits[0]
    if (earlier === undefined || later === undefined) return []
    const fill = (text: string) => text.replace('{}', subject.label)
    const questions = [fill(relation.prompt), fill(relation.query)]
    return [{ earlier, later, key: `${subject.label} ${relation.id}`, questions }]
  })
}
const bare = ({ relation: _, ...edit }: Edit): Edit => edit

let made = 0
function reworded(subject: string, [first, second]: [string, string], [old, fresh]: [string, string]): Case {
  const base = { subject, aliases: [], paraphrases: [], tags: [], tenant: 'default' }
  return {
    earlier: { ...base, id: `old-${++made}`, prompt: first, targetNew: old },
    later: { ...base, id: `new-${made}`, prompt: second, targetNew: fresh },
    key: String(made),
    questions: [first, second],
  }
}

console.log(
  '| pairs | earlier gave way by its key | asked | later alone | both | earlier alone | neither |\n|---|---|---|---|---|---|---|',
)
const pairs = published(conflicts)
await score('ConflictEdit as published', pairs)
await score(
  'without relation ids',
  pairs.map((c) => ({ ...c, earlier: bare(c.earlier), later: bare(c.later) })),
)
await score(
  'later worded as the question, without ids',
  pairs.map((c) => ({ ...c, earlier: bare(c.earlier), later: { ...bare(c.later), prompt: c.questions[1] ?? '' } })),
)
/** One record a subject, and the subject written out in both wordings. */
function distinct(records: readonly Foreign[]): Foreign[] {
  const seen = new Set<string>()
  return records.filter((r) => {
    const fits = r.src.includes(r.subject) && r.rephrase.includes(r.subject) && !seen.has(r.subject)
    if (fits) seen.add(r.subject)
    return fits
  })
}
await score(
  'zsRE question, then its rephrase',
  distinct(json('zsre/zsre-dev-500.json')).map((r) => reworded(r.subject, [r.src, r.rephrase], [r.answers[0], r.alt])),
)
await score(
  'WikiFactDiff statement, then its rephrase',
  distinct(json('temporal/wikifactdiff-train-1000.json')).map((r) => reworded(r.subject, [r.src, r.rephrase], [r.old, r.alt])),
)
await runtime.dispose()
