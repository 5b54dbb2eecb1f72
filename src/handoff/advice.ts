import { type HandoffMethod, type Job, METHODS } from './job.ts'

export const URGENCIES = ['now', 'today', 'later'] as const
export type Urgency = (typeof URGENCIES)[number]

/** What was measured before, on the served model: one finished stage. */
export interface Past {
  readonly method: HandoffMethod
  readonly edits: number
  readonly seconds: number
  readonly peakBytes: number
  /** No threshold broke. */
  readonly ok: boolean
}

export interface Situation {
  readonly edits: number
  readonly when: Urgency
  readonly freeMemoryBytes: number
  /** null: there is none. */
  readonly gpuFreeBytes: number | null
  /** Weights of the served model. */
  readonly parameters: number
  readonly cores: number
  /** The editor is installed. */
  readonly ready: boolean
  readonly past: readonly Past[]
  /** Of the edits, those that a method does not take. */
  readonly notTaken: Readonly<Record<HandoffMethod, number>>
}

export interface Option {
  readonly method: HandoffMethod | 'prompt'
  /** Of the making, without the evaluation; 0 for the prompt. */
  readonly seconds: number
  readonly memoryBytes: number
  /** Whether the seconds come from jobs on this machine. */
  readonly measured: boolean
  /** Of the edits, those that it takes. */
  readonly takes: number
  /** Why it is not recommended; null: it could be. */
  readonly against: string | null
}

export interface Advice {
  readonly method: Option['method']
  readonly reasons: readonly string[]
  /** What the choice and its guesses rest on. */
  readonly basis: readonly string[]
  /** What nothing was measured of, in this situation. */
  readonly unknown: readonly string[]
  readonly options: readonly Option[]
}

/** What was measured (docs/results/hand-off.md): the 0.5B, CounterFact records that no setting was chosen on, 2 quiet cores. */
interface Evidence {
  /** The most edits that were made at once. */
  readonly edits: number
  /** With 50 edits, in per cent: teacher-forced efficacy and paraphrase, unrelated chat answers unchanged through the adapter alone. */
  readonly efficacy: number
  readonly paraphrase: number
  readonly unchanged: number
  /** Of n-gram entropy, against the base's, in per cent. */
  readonly fluency: number
}
const EVIDENCE: Readonly<Record<HandoffMethod, Evidence>> = {
  memit: { edits: 1000, efficacy: 98, paraphrase: 99, unchanged: 73.3, fluency: -2.6 },
  alphaedit: { edits: 50, efficacy: 100, paraphrase: 100, unchanged: 70, fluency: -3 },
  pmet: { edits: 200, efficacy: 98, paraphrase: 99, unchanged: 70, fluency: -4.4 },
  lora: { edits: 50, efficacy: 98, paraphrase: 96, unchanged: 86.7, fluency: -0.5 },
  distil: { edits: 50, efficacy: 98, paraphrase: 95, unchanged: 80, fluency: -1.2 },
}
const MEASURED_PARAMETERS = 0.5e9
/** Sizes within this factor count as the one that was measured. */
const LIKE = 1.5

/** Below, a batch editor; from here on, distillation or MEMIT in batches. */
const BATCH_EDITS = 100
/** Seconds of the days in which "today" and "later" have to be done. */
const TIME_S: Readonly<Record<Urgency, number>> = { now: 0, today: 6 * 3_600, later: Number.POSITIVE_INFINITY }
const BILLION = 1e9
/** Without anything measured here: seconds an edit takes for each 10⁹ weights on 2 quiet cores (50 edits of the 0.5B with `chat`), rounded up. AlphaEdit's is MEMIT's. */
const SECONDS: Readonly<Record<HandoffMethod, number>> = { memit: 28, alphaedit: 28, pmet: 28, lora: 27, distil: 31 }
/** Loading and statistics, likewise. */
const FIXED_SECONDS = 240
/** Bytes a weight takes while it is edited in float32, from GGUF (measured on the 0.5B: 10), and with gradients. */
const BYTES: Readonly<Record<HandoffMethod, number>> = { memit: 10, alphaedit: 10, pmet: 10, lora: 12, distil: 14 }
const BYTES_ON_GPU = 4
/** A GPU against 2 cores, cautiously: LLaMA-2-7B takes some 24 s an edit with MEMIT on one (arXiv 2410.18785). */
const GPU_TIMES = 3

/** Which way into the parameters, if any. Pure. */
export function advise(situation: Situation): Advice {
  const chosen = choose(situation)
  return { ...chosen, basis: basisOf(chosen.method, situation), unknown: unknownOf(chosen.method, situation) }
}

function basisOf(method: Option['method'], { past }: Situation): string[] {
  const own =
    past.length === 0
      ? []
      : [
          `${past.length} finished stage${past.length === 1 ? '' : 's'} on this machine and model: times, memory, thresholds held or broken.`,
        ]
  const found = method === 'prompt' ? null : EVIDENCE[method]
  const figures =
    found === null
      ? []
      : [
          `${method} there: efficacy ${found.efficacy} %, paraphrase ${found.paraphrase} %, fluency ${found.fluency > 0 ? '+' : ''}${found.fluency} %.`,
          `${found.unchanged} % of unrelated answers were unchanged through its adapter alone.`,
        ]
  return [
    'Qwen2.5-Coder 0.5B, English facts about a subject (CounterFact), 2 cores: 50 edits by each method, 200 by pmet, 1,000 by memit.',
    ...figures,
    ...own,
  ]
}

/** By what was measured in our own runs, and by this machine's own past. */
function unknownOf(method: Option['method'], { edits, parameters, gpuFreeBytes, notTaken, past }: Situation): string[] {
  if (method === 'prompt') return []
  const ownMost = Math.max(0, ...past.filter((one) => one.method === method).map((one) => one.edits))
  const most = Math.max(EVIDENCE[method].edits, ownMost)
  const isLike = parameters < MEASURED_PARAMETERS * LIKE && parameters > MEASURED_PARAMETERS / LIKE
  return [
    ...(edits > most ? [`Nothing was measured beyond ${most} edits by ${method}.`] : []),
    ...(isLike || ownMost > 0
      ? []
      : ['No model of this size was measured: time and memory are scaled by the number of weights.']),
    ...(gpuFreeBytes === null ? [] : ['No GPU was measured: its speed is a guess.']),
    ...(notTaken.memit > 0 ? ['Of rules, sentences and facts without a subject there are no figures of quality.'] : []),
    "Other languages, and facts of other kinds than CounterFact's, were not measured.",
  ]
}

function choose(situation: Situation): Omit<Advice, 'basis' | 'unknown'> {
  const { edits, when, ready } = situation
  const options = [
    prompt(edits),
    ...(['lora', 'memit', 'alphaedit', 'pmet', 'distil'] as const).map((method) => option(method, situation)),
  ]
  if (edits === 0) return { method: 'prompt', reasons: ['No edit is live that could be handed off.'], options }
  if (when === 'now')
    return {
      method: 'prompt',
      reasons: [
        'It is to hold now: an edit in the prompt holds from the next request on. Hand it off once it has proved itself.',
      ],
      options,
    }
  const { order, why } = preferred(situation)
  const some = METHODS.some((method) => situation.notTaken[method] > 0)
  const taken = some
    ? [`Of the ${edits} edits, ${METHODS.map((one) => `${one} takes ${edits - situation.notTaken[one]}`).join(', ')}.`]
    : []
  const chosen = order.map((method) => options.find((one) => one.method === method)).find((one) => one?.against === null)
  const passed = order.filter((method) => options.some((one) => one.method === method && one.against !== null))
  const besides = passed.map((method) => `${method} is passed over: ${options.find((one) => one.method === method)?.against}.`)
  if (chosen === undefined)
    return { method: 'prompt', reasons: [why, ...taken, ...besides, 'So they stay in the prompt.'], options }
  const setup = ready ? [] : ['The parameter editor is not installed yet: palimpsest handoff setup.']
  return { method: chosen.method, reasons: [why, ...taken, ...besides, cost(chosen, situation), ...setup], options }
}

function preferred({ edits, when, gpuFreeBytes, notTaken }: Situation): { order: readonly HandoffMethod[]; why: string } {
  if (edits < BATCH_EDITS)
    return {
      order: ['lora', 'memit', 'alphaedit', 'pmet', ...(notTaken.lora > 0 ? (['distil'] as const) : [])],
      why: `${edits} edits are fewer than ${BATCH_EDITS}: a batch editor (one LoRA, with paraphrases and what is to stay) learns them together.`,
    }
  if (when === 'later' || gpuFreeBytes !== null)
    return {
      order: ['distil', 'memit', 'alphaedit', 'pmet'],
      why: `${edits} edits are many, and there is ${gpuFreeBytes === null ? 'time' : 'a GPU'}: distillation teaches the model what it answers with them in its prompt.`,
    }
  return {
    order: ['memit', 'alphaedit', 'pmet', 'distil'],
    why: `${edits} edits are many and are wanted today: MEMIT in batches costs seconds an edit.`,
  }
}

function prompt(edits: number): Option {
  return { method: 'prompt', seconds: 0, memoryBytes: 0, measured: false, takes: edits, against: null }
}

function option(method: HandoffMethod, situation: Situation): Option {
  const { edits, when, parameters, gpuFreeBytes, freeMemoryBytes, cores, past } = situation
  const own = past.filter((one) => one.method === method && one.edits > 0)
  const perEdit = median(own.map((one) => one.seconds / one.edits))
  const speed = gpuFreeBytes === null ? Math.max(1, cores / 2) : GPU_TIMES
  const guess = FIXED_SECONDS / speed + (SECONDS[method] * edits * (parameters / BILLION)) / speed
  const seconds = Math.round(perEdit === null ? guess : perEdit * edits)
  const memoryBytes =
    Math.max(0, ...own.map((one) => one.peakBytes)) || parameters * (gpuFreeBytes === null ? BYTES[method] : BYTES_ON_GPU)
  const room = gpuFreeBytes ?? freeMemoryBytes
  const failed = own.filter((one) => !one.ok && one.edits <= edits).at(-1)
  const held = failed !== undefined && own.some((one) => one.ok && one.edits >= failed.edits)
  const takes = edits - situation.notTaken[method]
  const against =
    takes < edits
      ? `it does not take ${edits - takes} of the edits (${method === 'lora' ? 'rules without examples' : 'rules, sentences and facts without a subject'})`
      : memoryBytes > room
        ? `it takes about ${gigabytes(memoryBytes)}, and ${gigabytes(room)} are free`
        : seconds > TIME_S[when] && when !== 'now'
          ? `it would take about ${duration(seconds)}`
          : failed !== undefined && !held
            ? `it broke a threshold with ${failed.edits} edits on this model`
            : null
  return { method, seconds, memoryBytes, measured: perEdit !== null, takes, against }
}

function cost({ seconds, memoryBytes, measured, method }: Option, { past }: Situation): string {
  const runs = past.filter((one) => one.method === method).length
  const source = measured
    ? `as ${runs} stage${runs === 1 ? '' : 's'} on this machine took`
    : 'a guess, as nothing was measured here yet'
  return `About ${duration(seconds)} and ${gigabytes(memoryBytes)} (${source}), and the evaluation beside it.`
}

function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted.length === 0 ? null : (sorted[sorted.length >> 1] ?? null)
}

const gigabytes = (bytes: number): string => `${(bytes / BILLION).toFixed(1)} GB`

/** "45 s", "12 min", "3.5 h". */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3_600).toFixed(1)} h`
}

/** What stages over this model took, and whether they held. */
export function pastOf(jobs: readonly Job[], model: string): Past[] {
  const stages = jobs.filter(({ base }) => base.name === model).flatMap((job) => job.stages.map((stage) => ({ ...stage, job })))
  return stages.flatMap(({ job: { method }, edits, seconds, peak_bytes: peakBytes, ok }) =>
    ok === null ? [] : [{ method, edits, seconds, peakBytes, ok }],
  )
}
