import type { Trace } from '../../trace.ts'

/** Which arm answered, with which edits and template. Ids and names are percent-encoded: they may hold any character. */
export function provenanceHeaders(trace: Trace, mostEdits: number): Record<string, string> {
  const { arm, adapter, applied, template, experiment } = trace
  const edits = applied.slice(0, mostEdits).map(({ id, score }) => `${encoded(id)};score=${score.toFixed(4)}`)
  return {
    'Palimpsest-Arm': arm,
    ...(adapter !== null && { 'Palimpsest-Adapter': adapter }),
    ...(experiment && { 'Palimpsest-Experiment': `${experiment.id};arm=${experiment.arm}` }),
    ...(edits.length > 0 && { 'Palimpsest-Edits': edits.join(', ') }),
    ...(template && { 'Palimpsest-Template': encoded(template.name) }),
  }
}

const WARNING_CHARS = 500

/** What was asked for and is not done, where that is no reason to refuse the request. */
export function warningHeader(text: string): Record<string, string> {
  return { 'Palimpsest-Warning': text.replace(/[^\x20-\x7e]/g, '?').slice(0, WARNING_CHARS) }
}

/** `Server-Timing` (W3C): milliseconds of each stage that has run, over all answers of the request, and of the whole so far. */
export function serverTiming(traces: readonly Trace[], totalMs: number): Record<string, string> {
  const sums = new Map<string, number>()
  for (const { stagesMs } of traces)
    for (const [stage, ms] of Object.entries(stagesMs)) sums.set(stage, (sums.get(stage) ?? 0) + ms)
  const parts = [...sums, ['total', totalMs] as const].map(([stage, ms]) => `${stage};dur=${ms.toFixed(1)}`)
  return { 'Server-Timing': parts.join(', ') }
}

function encoded(text: string): string {
  return encodeURIComponent(text.replace(/\p{Surrogate}/gu, '\ufffd'))
}
