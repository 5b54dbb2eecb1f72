/**
 * The evaluation of a batch of edits before, or while, it lands. Reliability: each edit's prompt is answered with its target.
 * Generalization: so are its paraphrases. Locality: prompts of edits held before, and questions about none, are answered as they were, and
 * nothing new applies. (The field's terms; EasyEdit's WILD protocol in that answers are generated and the target is sought in them.)
 */
import { createHash } from 'node:crypto'
import type { Edit } from '../edit/edit.ts'
import { words } from '../edit/words.ts'
import type { Arm } from '../request.ts'

export interface Answered {
  readonly text: string
  /** Ids of the edits that were put in front of the model. */
  readonly edits: readonly string[]
}

/** Greedy, and the same for the same question and memory. */
export type Ask = (question: string, arm: Arm) => Promise<Answered>

/** A memory that the batch lands in, and a model that answers from it. */
export interface Trial {
  readonly ask: Ask
  /** Lands these after all before them; the ids of those that are live then. */
  land(edits: readonly Edit[]): Promise<ReadonlySet<string>>
  /** Takes back all that `land` did. */
  rollBack(): Promise<void>
}

export const MEASURES = ['reliability', 'generalization', 'locality_memory', 'locality_unrelated'] as const
export type Measure = (typeof MEASURES)[number]

/** Least shares in [0, 1]. */
export type Thresholds = Readonly<Record<Measure, number>>

export interface PreflightOptions {
  readonly thresholds: Thresholds
  /** How many of the batch have landed after each stage, ascending; the last is all of it. */
  readonly stages: readonly number[]
  /** Edits asked for after each stage, drawn from all that have landed. */
  readonly sampleEdits: number
  readonly seed: number
  /** Prompts of edits held before, that the batch should not touch. */
  readonly heldPrompts: readonly string[]
  readonly unrelated: readonly string[]
  /** Ids of edits of the batch that another of it contradicts, or that are for other models: nothing is asked of them. */
  readonly passOver: ReadonlySet<string>
  /** Called before each question. */
  readonly progress?: (stage: number, done: number, total: number) => void
}

/** What went wrong with one question. */
export interface Failure {
  readonly measure: Measure
  readonly question: string
  readonly editId: string | null
  /** The target, or for locality the answer before. */
  readonly expected: string
  readonly answered: Answered
  /** For a target that was not answered: what the model says without edits. */
  readonly base: string | null
}

export interface Score {
  readonly measure: Measure
  readonly asked: number
  readonly passed: number
  readonly threshold: number
  /** True also where nothing was asked. */
  readonly ok: boolean
}

export interface StageResult {
  /** Edits of the batch that have landed. */
  readonly landed: number
  readonly scores: readonly Score[]
  readonly failures: readonly Failure[]
  readonly ok: boolean
}

export interface PreflightResult {
  readonly stages: readonly StageResult[]
  readonly ok: boolean
}

/** Paraphrases of one edit that are asked. */
const PARAPHRASES = 2

/** Lands the batch stage by stage and evaluates each; at the first that fails, or on an error, all of it is rolled back. */
export async function preflight(edits: readonly Edit[], trial: Trial, options: PreflightOptions): Promise<PreflightResult> {
  const before = await answers([...options.heldPrompts, ...options.unrelated], trial.ask, (done, total) =>
    options.progress?.(0, done, total),
  )
  const stages: StageResult[] = []
  const live = new Set<string>()
  let from = 0
  try {
    for (const [i, landed] of options.stages.entries()) {
      for (const id of await trial.land(edits.slice(from, landed))) live.add(id)
      from = landed
      const sample = sampleOf(edits.slice(0, landed), live, options)
      const stage = await evaluate(landed, sample, before, trial.ask, options, (done, total) =>
        options.progress?.(i + 1, done, total),
      )
      stages.push(stage)
      if (!stage.ok) break
    }
  } catch (error) {
    await trial.rollBack()
    throw error
  }
  const ok = stages.every((stage) => stage.ok)
  if (!ok) await trial.rollBack()
  return { stages, ok }
}

/** Counts that grow by `percents` of the batch, at least `least` edits at first, and end with all of it. */
export function stageCounts(edits: number, percents: readonly number[], least: number): number[] {
  const counts = percents.map((percent) => Math.min(edits, Math.max(least, Math.ceil((edits * percent) / 100))))
  return [...new Set([...counts, edits])].sort((a, b) => a - b)
}

/** The same for the same seed: by a hash, so that an edit keeps its place as the batch grows. */
export function draw<T>(items: readonly T[], count: number, seed: number, idOf: (item: T) => string): T[] {
  const place = (item: T) =>
    createHash('sha256')
      .update(`${seed} ${idOf(item)}`)
      .digest('hex')
  return items
    .map((item) => ({ item, at: place(item) }))
    .sort((a, b) => (a.at < b.at ? -1 : 1))
    .slice(0, count)
    .map(({ item }) => item)
}

function sampleOf(landed: readonly Edit[], live: ReadonlySet<string>, { sampleEdits, seed, passOver }: PreflightOptions): Edit[] {
  const last = new Map(landed.map((edit) => [edit.id, edit]))
  return draw(
    [...last.values()].filter(({ id }) => live.has(id) && !passOver.has(id)),
    sampleEdits,
    seed,
    ({ id }) => id,
  )
}

async function answers(questions: readonly string[], ask: Ask, progress: (done: number, total: number) => void) {
  const out = new Map<string, Answered>()
  for (const [done, question] of questions.entries()) {
    progress(done, questions.length)
    out.set(question, await ask(question, 'edited'))
  }
  return out
}

interface Probe {
  readonly measure: Measure
  readonly question: string
  readonly edit: Edit | null
}

async function evaluate(
  landed: number,
  sample: readonly Edit[],
  before: ReadonlyMap<string, Answered>,
  ask: Ask,
  options: PreflightOptions,
  progress: (done: number, total: number) => void,
): Promise<StageResult> {
  const probes: Probe[] = [
    ...sample.map((edit): Probe => ({ measure: 'reliability', question: edit.prompt, edit })),
    ...sample.flatMap((edit) =>
      edit.paraphrases.slice(0, PARAPHRASES).map((question): Probe => ({ measure: 'generalization', question, edit })),
    ),
    ...options.heldPrompts.map((question): Probe => ({ measure: 'locality_memory', question, edit: null })),
    ...options.unrelated.map((question): Probe => ({ measure: 'locality_unrelated', question, edit: null })),
  ]
  const failures: Failure[] = []
  for (const [done, probe] of probes.entries()) {
    progress(done, probes.length)
    const failure = await failureOf(probe, before, ask)
    if (failure !== undefined) failures.push(failure)
  }
  const scores = MEASURES.map((measure): Score => {
    const asked = probes.filter((probe) => probe.measure === measure).length
    const passed = asked - failures.filter((failure) => failure.measure === measure).length
    const threshold = options.thresholds[measure]
    return { measure, asked, passed, threshold, ok: asked === 0 || passed / asked >= threshold }
  })
  return { landed, scores, failures, ok: scores.every(({ ok }) => ok) }
}

async function failureOf({ measure, question, edit }: Probe, before: ReadonlyMap<string, Answered>, ask: Ask) {
  const answered = await ask(question, 'edited')
  if (edit !== null) {
    if (holds(answered.text, edit.targetNew)) return undefined
    const base = (await ask(question, 'base')).text
    return { measure, question, editId: edit.id, expected: edit.targetNew, answered, base }
  }
  const was = before.get(question)
  if (was?.text === answered.text && answered.edits.every((id) => was.edits.includes(id))) return undefined
  return { measure, question, editId: null, expected: was?.text ?? '', answered, base: null }
}

/** Whether the target's words stand in the answer, one after another; case and accents aside. */
export function holds(answer: string, target: string): boolean {
  return ` ${words(answer).join(' ')} `.includes(` ${words(target).join(' ')} `)
}
