import { z } from 'zod'
import { ADAPTER_ID } from '../adapters/record.ts'

/** Ways into the parameters: closed-form updates (MEMIT, AlphaEdit, PMET), one LoRA trained on the batch, and distillation from the prompted model. */
export const METHODS = ['memit', 'alphaedit', 'pmet', 'lora', 'distil'] as const
export type HandoffMethod = (typeof METHODS)[number]

/** Each batch of a closed-form method is made on top of the ones before it; the others are trained anew on all edits so far. */
export function growsInPlace(method: HandoffMethod): boolean {
  return method === 'memit' || method === 'alphaedit' || method === 'pmet'
}

/** `interrupted`: the process ended under it; `stopped`: a threshold broke and what had been made was taken back. */
export const STATES = ['queued', 'running', 'interrupted', 'cancelled', 'failed', 'stopped', 'done'] as const

const share = z.number().min(0).max(1)

/** What an adapter must reach, as shares in [0, 1]. `…_drop`: how far it may fall below the model without it. */
export const thresholds = z.object({
  /** Teacher-forced: the new target is likelier than the old one, or the likeliest where none is known. */
  efficacy: share,
  paraphrase: share,
  neighbourhood_drop: share,
  /** Generated: the answer holds the target. */
  reliability: share,
  generalization: share,
  portability: share,
  /** Questions that no edit is about are answered byte for byte as without the adapter. */
  unchanged: share,
  /** Of n-gram entropy, relative to the model without it. */
  fluency_drop: share,
  /** Multiple choice. */
  ability_drop: share,
})
export type HandoffThresholds = z.output<typeof thresholds>

/**
 * What is asked unless a job says otherwise. The generated measures are reported and ask little: closed-form methods edit raw text, and are
 * weaker behind a chat template (CHED, arXiv 2505.23026).
 */
export const THRESHOLDS: HandoffThresholds = {
  efficacy: 0.9,
  paraphrase: 0.7,
  neighbourhood_drop: 0.1,
  reliability: 0,
  generalization: 0,
  portability: 0,
  unchanged: 0,
  fluency_drop: 0.1,
  ability_drop: 0.15,
}

const measure = z.object({
  name: z.string(),
  protocol: z.enum(['forced', 'generated']),
  asked: z.number(),
  /** Of the adapter; null: nothing was asked. */
  value: z.number().nullable(),
  low: z.number().nullable(),
  high: z.number().nullable(),
  base: z.number().nullable(),
  /** With the edits in the prompt, as the gateway serves them; null: not asked so. */
  prompt: z.number().nullable().default(null),
  /** Least value; null: reported only. */
  least: z.number().nullable(),
  /** The interval does not lie below `least` as a whole. */
  ok: z.boolean(),
  /** The interval lies on one side of `least`. false: too little was asked to tell, so it stops nothing. */
  decided: z.boolean().default(true),
})
export type Measure = z.output<typeof measure>

const failure = z.object({
  measure: z.string(),
  question: z.string(),
  expected: z.string(),
  base: z.string().nullable(),
  answer: z.string(),
})
export type Failure = z.output<typeof failure>

const stage = z.object({
  /** Edits that the adapter holds after this stage. */
  edits: z.number(),
  /** Relative to the job's folder. */
  file: z.string(),
  sha256: z.string(),
  bytes: z.number(),
  rank: z.number(),
  /** That the editor worked. */
  seconds: z.number(),
  /** That it was paused besides, while answers were written. */
  paused_s: z.number().default(0),
  peak_bytes: z.number(),
  measures: z.array(measure),
  failures: z.array(failure),
  /** null: not evaluated yet. */
  ok: z.boolean().nullable(),
})
export type Stage = z.output<typeof stage>

const fault = z.object({ code: z.string(), message: z.string(), change: z.string() })
export type JobFault = z.output<typeof fault>

const settings = z.object({
  thresholds,
  /** Edits of each stage that are asked about. */
  sample_edits: z.number(),
  unrelated_questions: z.number(),
  fluency_openings: z.number(),
  ability_questions: z.number(),
  answer_tokens: z.number(),
  seed: z.number(),
  threads: z.number(),
  device: z.string(),
  dtype: z.string(),
  memory_bytes: z.number().nullable(),
  hparams: z.record(z.string(), z.unknown()),
  statistics: z.record(z.string(), z.unknown()),
  /** File of a published format whose probes are asked, too; null: the edits' own only. */
  data: z.string().nullable(),
})
export type Settings = z.output<typeof settings>

export const job = z.object({
  id: z.string().regex(ADAPTER_ID),
  tenant: z.string(),
  method: z.enum(METHODS),
  state: z.enum(STATES),
  created: z.iso.datetime(),
  updated: z.iso.datetime(),
  /** Ids of the edits it holds in the end, in the order in which they are made. */
  edits: z.array(z.string()),
  /** How many of them after each stage. */
  plan: z.array(z.number()),
  base: z.object({ name: z.string(), sha256: z.string(), tokenizer: z.string() }),
  settings,
  stages: z.array(stage),
  /** Where it is; null: nothing is under way. */
  progress: z
    .object({
      stage: z.number(),
      phase: z.string(),
      done: z.number(),
      of: z.number(),
      seconds_left: z.number().nullable(),
    })
    .nullable(),
  /** Of the worker's time for a stage, as it said when it began. */
  estimate_s: z.number().nullable(),
  attempts: z.number(),
  /** The worker at work. */
  pid: z.number().nullable(),
  fault: fault.nullable(),
  /** The adapter that came of it, registered and not promoted. */
  adapter: z.string().nullable(),
  notes: z.array(z.string()),
})

/** A job as its file and the wire have it. */
export type Job = z.output<typeof job>

/** Throws where the text is no such job. */
export function readJob(text: string): Job {
  return job.parse(JSON.parse(text))
}

export function isOver({ state }: Pick<Job, 'state'>): boolean {
  return state === 'done' || state === 'failed' || state === 'stopped' || state === 'cancelled'
}
