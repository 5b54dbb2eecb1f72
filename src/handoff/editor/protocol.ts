/** Protocol 1 of the parameter editor (`editor/palimpsest_editor/protocol.py`): one job file in, one JSON object a line out. */
import { z } from 'zod'
import { HandoffFault } from '../fault.ts'

export const PROTOCOL = 1

/** A job for the worker, as its file has it. */
export interface WorkerJob {
  readonly task: 'edit' | 'merge' | 'import'
  readonly base: { readonly path: string; readonly sha256: string }
  readonly work_dir: string
  readonly out_dir: string
  readonly cache_dir: string
  readonly method?: string
  readonly edits?: readonly WorkerEdit[]
  /** In force while it edits; what is merged. */
  readonly adapters?: readonly { readonly path: string; readonly scale: number }[]
  /** Edits that `adapters` hold, for a method that keeps them. */
  readonly kept?: readonly WorkerEdit[]
  readonly transfer?: readonly object[]
  readonly locality?: readonly object[]
  readonly source?: string
  readonly hparams?: Readonly<Record<string, unknown>>
  readonly statistics?: Readonly<Record<string, unknown>>
  readonly device: string
  readonly dtype: string
  readonly threads: number
  readonly seed: number
  readonly limits: { readonly memory_bytes?: number }
  readonly export: { readonly name: string }
}

export interface WorkerEdit {
  readonly id: string
  /** Absent: a fact. A sentence comes as a cloze of its two halves; a rule has no prompt to complete. */
  readonly kind?: 'sentence' | 'rule'
  /** As the prompt has it; '': it names none. */
  readonly subject: string
  readonly prompt: string
  readonly target_new: string
  readonly target_true?: string
  readonly paraphrases: readonly string[]
  /** Messages that need it. */
  readonly examples?: readonly string[]
  /** Of a rule: every message needs it. */
  readonly always?: true
}

const seconds = z.number().min(0).nullable()
const adapter = z.looseObject({
  gguf: z.string(),
  peft: z.string().optional(),
  sha256: z.string(),
  bytes: z.number(),
  rank: z.number(),
  left_out: z.number().optional(),
})

const event = z.discriminatedUnion('event', [
  z.looseObject({ event: z.literal('started'), protocol: z.number(), version: z.string(), pid: z.number() }),
  z.looseObject({ event: z.literal('plan'), estimate_s: seconds }),
  z.looseObject({
    event: z.literal('progress'),
    stage: z.string(),
    done: z.number().min(0),
    of: z.number().min(0),
    estimate_s: seconds.optional(),
  }),
  z.looseObject({ event: z.literal('note'), code: z.string(), message: z.string() }),
  z.looseObject({
    event: z.literal('result'),
    seconds: z.number(),
    peak_bytes: z.number(),
    adapter: adapter.optional(),
  }),
  z.looseObject({ event: z.literal('error'), code: z.string(), message: z.string(), change: z.string() }),
])
export type WorkerEvent = z.output<typeof event>
export type WorkerResult = Extract<WorkerEvent, { event: 'result' }>

const SHOWN_CHARS = 200
const MEND = 'Run `palimpsest handoff setup`, so that the editor is that of this version.'

/** One line of the worker's; throws HandoffFault `malformed_event`, or `protocol` for a worker of another version. */
export function readEvent(line: string): WorkerEvent {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    throw new HandoffFault('malformed_event', `The editor wrote a line that is no JSON: ${line.slice(0, SHOWN_CHARS)}`, MEND)
  }
  const { data, error } = event.safeParse(value)
  if (data === undefined) {
    const [issue] = error.issues
    const where = issue?.path.join('.') || 'event'
    throw new HandoffFault(
      'malformed_event',
      `The editor wrote an event that is not as agreed (${where}: ${issue?.message}): ${line.slice(0, SHOWN_CHARS)}`,
      MEND,
    )
  }
  if (data.event === 'started' && data.protocol !== PROTOCOL)
    throw new HandoffFault('protocol', `The editor speaks protocol ${data.protocol}; this gateway speaks ${PROTOCOL}.`, MEND)
  return data
}
