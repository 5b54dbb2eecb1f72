/** What `edits check` prints; pure. */
import { wilson } from '../../evaluate/metrics/intervals.ts'
import type { Failure, Measure, PreflightResult, Score } from '../../evaluate/preflight.ts'
import { clip, count, printable, table } from '../../terminal/table.ts'
import type { WireLanding } from '../wire.ts'
import { landingText } from './edits-text.ts'

export interface Outcome {
  readonly file: string
  readonly model: string
  readonly edits: number
  /** Of a dry run. */
  readonly landing: WireLanding
  readonly conflicts: number
  readonly maxConflicts: number
  /** Null when the file contradicts itself, and nothing was asked. */
  readonly result: PreflightResult | null
}

const NAMES: Readonly<Record<Measure, string>> = {
  reliability: 'reliability',
  generalization: 'generalization',
  locality_memory: 'locality, edits in memory',
  locality_unrelated: 'locality, unrelated',
}
const TEXT_COLUMNS = 70
/** Failures shown of each measure. */
const FAILURES = 5

export function checkText({ file, model, landing, conflicts, maxConflicts, result }: Outcome): string {
  const head = [landingText(landing, file), '']
  const clash = `conflicts within the file: ${conflicts} (at most ${maxConflicts})`
  if (result === null) return [...head, `${clash}: failed; the model was not asked`].join('\n')
  const rows = result.stages.flatMap((stage) =>
    stage.scores.filter(({ asked }) => asked > 0).map((score) => row(stage.landed, score)),
  )
  const measured = table(['landed>', 'measure', 'asked>', 'share>', '95 % interval', 'at least>', ''], rows)
  const failures = result.stages.flatMap(({ landed, failures: found }) => evidence(landed, found))
  return [...head, clash, `asked of ${model}, greedy:`, measured, ...failures].map(printable).join('\n')
}

function row(landed: number, { measure, asked, passed, threshold, ok }: Score): string[] {
  const { low, high } = wilson(passed, asked) ?? { low: 0, high: 1 }
  const percent = (part: number) => `${(100 * part).toFixed(1)} %`
  const shares = [percent(passed / asked), `${(100 * low).toFixed(1)}–${percent(high)}`, percent(threshold)]
  return [landed.toLocaleString('en'), NAMES[measure], String(asked), ...shares, ok ? 'ok' : 'FAILED']
}

function evidence(landed: number, failures: readonly Failure[]): string[] {
  if (failures.length === 0) return []
  const kinds = [...new Set(failures.map(({ measure }) => measure))]
  const lines = kinds.flatMap((measure) => {
    const all = failures.filter((failure) => failure.measure === measure)
    const more = all.length > FAILURES ? [`    … and ${all.length - FAILURES} more`] : []
    return [`  ${NAMES[measure]}: ${count(all.length, 'question')}`, ...all.slice(0, FAILURES).flatMap(failed), ...more]
  })
  return ['', `Missed with ${count(landed, 'edit')} landed:`, ...lines]
}

function failed({ question, expected, answered, base, editId }: Failure): string[] {
  const applied = answered.edits.length === 0 ? 'no edit applied' : `with ${answered.edits.join(', ')}`
  const said = (name: string, text: string) => `      ${name.padEnd(8)}${clip(text, TEXT_COLUMNS)}`
  return [
    `    ${clip(question, TEXT_COLUMNS)}${editId === null ? '' : ` (${editId})`}`,
    said(editId === null ? 'before' : 'target', expected),
    `${said('answer', answered.text)} (${applied})`,
    ...(base === null ? [] : [said('base', base)]),
  ]
}
