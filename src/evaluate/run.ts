/** One evaluation: what is asked of whom, in which order, and what comes of it. */

import type { DataRecord } from './data/dataset.ts'
import type { Probe } from './data/probe.ts'
import { type CosineBaseline, cosineBaseline } from './methods/cosine.ts'
import { ikePrompts } from './methods/ike.ts'
import { applies, type Compared, type Protocol } from './methods/methods.ts'
import type { Outcome } from './metrics/outcomes.ts'
import { randomFrom, sample } from './metrics/random.ts'
import type { SelectionOutcome } from './metrics/selection-scores.ts'
import type { AnswerFile, Circumstances, Line } from './protocols/answers.ts'
import { answerKey } from './protocols/answers.ts'
import { type Force, forcing } from './protocols/forced.ts'
import { type Aids, type Generated, generate } from './protocols/generated.ts'
import { selecting } from './protocols/selection.ts'
import { ownRecord, type Trial, tokensFor } from './trial.ts'

/** How far a run is, for a bar. */
export type Tick = (step: { readonly label: string; readonly done: number; readonly total: number }) => void

export interface RunOptions {
  readonly trial: Trial
  readonly methods: readonly Compared[]
  readonly protocols: readonly Protocol[]
  readonly answers: AnswerFile
  readonly circumstances: Circumstances
  readonly tick: Tick
  /** Aborting it ends the run after the answer at hand; the file keeps what is there. */
  readonly signal: AbortSignal
}

export interface Run {
  readonly outcomes: readonly Outcome[]
  readonly cosine: CosineBaseline | null
  /** Answers taken from the file of an earlier run. */
  readonly resumed: number
}

interface Task {
  readonly protocol: Protocol
  readonly method: Compared
  readonly probe: Probe
}

/** Every method on every probe, both protocols. Greedy answers come first; a record's probes together, so that its prefix stays cached. */
export async function run(options: RunOptions): Promise<Run> {
  const { trial, methods, protocols, answers, circumstances, tick, signal } = options
  const { engine } = trial.gateway
  for (const line of answers.lines) {
    if (line.protocol === 'generated' && line.outcome.prompt !== undefined)
      engine.remember(line.outcome.prompt.hash, line.outcome.prompt.answer)
  }
  const cosine = methods.includes('cosine') ? await cosineBaseline(trial.drawn, trial) : null
  const aids: Aids = { cosine: cosine ?? { threshold: 1, nearest: new Map() }, ike: ikeOf(trial) }
  const outcomes = new Map(
    trial.probes.map((probe) => [probe.id, { probe, generated: {}, forced: {}, edits: trial.edits } as Mutable]),
  )
  const tasks = tasksOf(trial, methods, protocols)
  // The cosine threshold depends on which probes are asked.
  const under = (method: Compared) => ({
    ...circumstances(method),
    ...(method === 'cosine' && { cosine: aids.cosine.threshold }),
  })
  const keyOf = ({ protocol, method, probe }: Task) => answerKey(protocol, method, probe, under(method))
  const fresh = new Set(tasks.filter((task) => answers.find(keyOf(task)) === undefined))
  const scorer = [...fresh].some(({ protocol }) => protocol === 'forced') ? await engineScorer(trial) : null
  const force = scorer === null ? null : forcing(trial, aids, scorer)
  let done = 0
  try {
    for (const task of tasks) {
      const { probe } = task
      const key = keyOf(task)
      const had = answers.find(key)
      if (had === undefined) {
        signal.throwIfAborted()
        // One label a protocol: a bar in a log starts its clock anew with each.
        tick({ label: task.protocol, done, total: fresh.size })
      }
      const line = had ?? (await perform(task, key, trial, aids, force, signal))
      if (had === undefined) {
        answers.append(line)
        done++
      }
      keep(outcomes.get(probe.id) as Mutable, line)
    }
  } finally {
    await scorer?.close()
  }
  return { outcomes: [...outcomes.values()], cosine, resumed: tasks.length - fresh.size }
}

type Mutable = { -readonly [Key in keyof Outcome]: Outcome[Key] }

function keep(outcome: Mutable, line: Line): void {
  if (line.protocol === 'generated') outcome.generated = { ...outcome.generated, [line.method]: line.outcome }
  else outcome.forced = { ...outcome.forced, [line.method]: line.outcome }
}

async function perform(
  { protocol, method, probe }: Task,
  key: string,
  trial: Trial,
  aids: Aids,
  force: Force | null,
  signal: AbortSignal,
): Promise<Line> {
  const about = { key, method, probe: probe.id, question: probe.turns.at(-1) ?? '', accepted: probe.answers }
  if (protocol === 'generated') {
    const outcome: Generated = await generate(method, probe, trial, aids, signal)
    return { ...about, protocol, outcome }
  }
  if (force === null) throw new Error('no scorer was opened')
  return { ...about, protocol, outcome: await force(method, probe) }
}

function tasksOf(trial: Trial, methods: readonly Compared[], protocols: readonly Protocol[]): Task[] {
  const place = (probe: Probe) => (probe.record === null ? Number.MAX_SAFE_INTEGER : probe.record)
  const shown = (probe: Probe) => ownRecord(probe, trial).index
  const ordered = [...trial.probes].sort((a, b) => place(a) - place(b) || shown(a) - shown(b))
  const groups = new Map<string, Probe[]>()
  for (const probe of ordered) {
    const key = `${probe.record ?? 'traffic'}/${shown(probe)}`
    groups.set(key, [...(groups.get(key) ?? []), probe])
  }
  return protocols.flatMap((protocol) =>
    [...groups.values()].flatMap((group) =>
      methods.flatMap((method) =>
        group.filter((probe) => applies(method, protocol, probe)).map((probe): Task => ({ protocol, method, probe })),
      ),
    ),
  )
}

async function engineScorer({ gateway: { engine } }: Trial) {
  if (engine.openScorer === undefined) throw new Error('the engine has no scorer')
  return engine.openScorer()
}

function ikeOf(trial: Trial) {
  const { engine } = trial.gateway
  const asked = (content: string) => engine.countTokens({ messages: [{ role: 'user', content }] })
  const longest = Math.max(0, ...trial.probes.map((probe) => asked(probe.turns.join('\n')) + tokensFor(probe, trial.limits)))
  return ikePrompts({
    records: [...trial.records.values()],
    embedder: trial.embedder,
    seed: trial.seed,
    demonstrations: trial.limits.ikeDemonstrations,
    fits: (messages) => engine.countTokens({ messages }) + longest <= engine.model.contextTokens,
  })
}

/** Retrieval and gate on every probe, then the cosine baseline: in this order, so that the gate's time has its embeddings in it. */
export async function runSelection(
  trial: Pick<Trial, 'gateway' | 'embedder' | 'edits' | 'probes' | 'drawn'>,
  tick: Tick,
  signal: AbortSignal,
): Promise<{ readonly outcomes: readonly SelectionOutcome[]; readonly cosine: CosineBaseline }> {
  const selectOne = selecting(trial)
  const probes = trial.probes.filter(({ kind }) => kind !== 'fluency')
  const selected: Omit<SelectionOutcome, 'nearest'>[] = []
  for (const [done, probe] of probes.entries()) {
    signal.throwIfAborted()
    tick({ label: 'selection', done, total: probes.length })
    selected.push({ probe, gate: await selectOne(probe) })
  }
  const cosine = await cosineBaseline(trial.drawn, trial)
  return { outcomes: selected.map((one) => ({ ...one, nearest: cosine.nearest.get(one.probe.id) ?? null })), cosine }
}

export interface Choice {
  /** Records asked about; the edits of all of them are in memory. */
  readonly limit: number
  /** Probes of one kind and sub-kind a record. */
  readonly perKind: number
  /** Probes of each traffic file. */
  readonly trafficLimit: number
  readonly seed: number
}

/** The probes that are asked, drawn by the seed. Records whose edits are not all live (a later record superseded one) are passed over. */
export function chooseProbes(
  records: readonly DataRecord[],
  traffic: readonly Probe[],
  live: ReadonlyMap<string, unknown>,
  choice: Choice,
): { readonly probes: readonly Probe[]; readonly passedOver: number } {
  const { limit, perKind, trafficLimit, seed } = choice
  const answerable = records.filter(({ probes }) => probes.every(({ wants }) => wants.every((id) => live.has(id))))
  const asked = sample(answerable, limit, randomFrom('records', seed))
  const own = asked.flatMap(({ index, probes }) => few(probes, perKind, `${seed}/${index}`))
  const other = few(traffic, trafficLimit, `${seed}/traffic`)
  return { probes: [...own, ...other], passedOver: records.length - answerable.length }
}

/** At most `n` of each kind and sub-kind. */
function few(probes: readonly Probe[], n: number, seed: string): Probe[] {
  const groups = new Map<string, Probe[]>()
  for (const probe of probes) {
    const key = `${probe.kind}/${probe.sub}`
    groups.set(key, [...(groups.get(key) ?? []), probe])
  }
  const kept = new Set([...groups].flatMap(([key, some]) => sample(some, n, randomFrom('probes', seed, key))))
  return probes.filter((probe) => kept.has(probe))
}
