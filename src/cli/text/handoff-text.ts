import { type Advice, duration, type Option } from '../../handoff/advice.ts'
import type { Job, Measure, Stage } from '../../handoff/job.ts'
import { clip, count, table } from '../../terminal/table.ts'

const LISTED_FAILURES = 5
const CLIPPED = 90

/** Hand-offs, latest first. */
export function handoffTable(jobs: readonly Job[]): string {
  if (jobs.length === 0) return 'No edit has been handed off. Which way is best: palimpsest handoff advise'
  const rows = jobs.map((job) => [job.id, job.method, job.state, String(job.edits.length), where(job), job.created.slice(0, 16)])
  return table(['id', 'method', 'state', 'edits>', 'at', 'since'], rows)
}

function where({ state, progress, stages, plan, fault }: Job): string {
  if (state === 'running' && progress !== null) {
    const left = progress.seconds_left === null ? '' : `, ${duration(progress.seconds_left)} left`
    return `stage ${progress.stage} of ${plan.length}, ${progress.phase} ${progress.done}/${progress.of}${left}`
  }
  if (fault !== null) return clip(fault.message, 60)
  return `${stages.filter(({ ok }) => ok).length} of ${plan.length} stages passed`
}

/** One hand-off in full. */
export function handoffText(job: Job): string {
  const { id, method, state, edits, base, stages, fault, notes } = job
  const parts = [
    `${id}: ${state}; ${method}, ${count(edits.length, 'edit')}, ${base.name}${state === 'running' || state === 'queued' ? `; ${where(job)}` : ''}`,
    notes.map((note) => `note: ${note}`).join('\n'),
    ...stages.map(stageText),
    fault === null ? '' : `${fault.code}: ${fault.message}\nWhat to do: ${fault.change}`,
    next(job),
  ]
  return parts.filter((part) => part !== '').join('\n\n')
}

function next({ id, state, base, adapter }: Job): string {
  switch (state) {
    case 'done':
      return `Registered and not promoted: ask \`${base.name}@adapter:${adapter}\`, compare it in an experiment, then\n  palimpsest handoff promote ${id}`
    case 'interrupted':
    case 'cancelled':
    case 'failed':
      return `What was finished is kept: palimpsest handoff resume ${id}`
    case 'queued':
    case 'running':
    case 'stopped':
      return ''
    default:
      return state satisfies never
  }
}

export function stageText({
  edits,
  rank,
  bytes,
  seconds,
  paused_s: paused,
  peak_bytes: peak,
  measures,
  failures,
  ok,
}: Stage): string {
  const waited = paused > 0 ? ` (and ${duration(paused)} paused for answers)` : ''
  const unasked = ok === null ? '; not evaluated yet' : ''
  const head = `${count(edits, 'edit')}: rank ${rank}, ${(bytes / 1e6).toFixed(1)} MB, made in ${duration(seconds)}${waited} with ${(peak / 1e9).toFixed(1)} GB${unasked}`
  if (measures.length === 0) return head
  const rows = measures.map((one) => [
    one.name,
    one.protocol,
    String(one.asked),
    figure(one, one.base),
    figure(one, one.prompt),
    figure(one, one.value),
    interval(one),
    one.least === null ? '' : figure(one, one.least),
    verdict(one),
  ])
  const body = table(['measure', 'protocol', 'asked>', 'base>', 'prompt>', 'adapter>', '95 %>', 'at least>', ''], rows)
  const broken = new Set(measures.filter((one) => !one.ok).map(({ name }) => name))
  const shown = failures.filter(({ measure }) => broken.has(measure)).slice(0, LISTED_FAILURES)
  const lines = shown.map(
    ({ question, expected, answer }) =>
      `  ${clip(question, CLIPPED)}\n    wanted  ${clip(expected, CLIPPED)}\n    answer  ${clip(answer, CLIPPED)}`,
  )
  return [head, body, ...lines].join('\n')
}

/** Empty for what is reported only. */
function verdict({ least, decided, ok }: Measure): string {
  if (least === null) return ''
  return decided ? (ok ? 'ok' : 'FAILED') : 'open'
}

function interval({ name, low, high }: Measure): string {
  const scale = name === 'fluency' ? 1 : 100
  return low === null || high === null ? '' : `${(scale * low).toFixed(1)}–${(scale * high).toFixed(1)}`
}

/** Shares in per cent; fluency as it is. */
function figure({ name }: Measure, value: number | null): string {
  if (value === null) return ''
  return name === 'fluency' ? value.toFixed(1) : `${(100 * value).toFixed(1)} %`
}

export function adviceText({ method, reasons, basis, unknown, options, edits }: Advice & { readonly edits: number }): string {
  const rows = options.map((one) => [
    one.method === method ? '*' : '',
    one.method,
    one.method === 'prompt' ? 'none' : duration(one.seconds),
    one.method === 'prompt' ? 'none' : `${(one.memoryBytes / 1e9).toFixed(1)} GB`,
    source(one),
    one.against ?? '',
  ])
  const what = method === 'prompt' ? 'stay in the prompt' : `palimpsest handoff run --method ${method}`
  return [
    `${count(edits, 'edit')}: ${what}`,
    reasons.map((reason) => `  ${reason}`).join('\n'),
    table(['', 'method', 'time>', 'memory>', 'from', 'against it'], rows),
    ['Fitted on:', ...basis.map((one) => `  ${one}`)].join('\n'),
    unknown.length === 0 ? '' : ['Not known:', ...unknown.map((one) => `  ${one}`)].join('\n'),
  ]
    .filter((part) => part !== '')
    .join('\n\n')
}

function source({ method, measured }: Option): string {
  return method === 'prompt' ? '' : measured ? 'measured' : 'guess'
}
