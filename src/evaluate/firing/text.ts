/** What fired, as tables. Pure. */
import type { Figure } from '../metrics/intervals.ts'
import { figureText, lines } from '../report/report.ts'
import type { AnsweredFigures } from './answered.ts'
import type { Bin, Firing, FiringPoint, FiringRow } from './figures.ts'

export const ROWS_HEAD: readonly string[] = ['group', 'type', 'n', 'found %', 'right %', 'fires %']
export const CURVE_HEAD: readonly string[] = ['threshold', 'found %', 'right %', 'fires %']
export const BINS_HEAD: readonly string[] = ['score', 'candidates', 'mean score', 'wanted %']

const share = (figure: Figure | null) => figureText(figure, 'share')

export function rowsBody(rows: readonly FiringRow[]): string[][] {
  return rows.map(({ group, type, n, found, right, fires }) => [
    group ?? 'all',
    type ?? 'all',
    String(n),
    share(found),
    share(right),
    share(fires),
  ])
}

export function curveBody(curve: readonly FiringPoint[]): string[][] {
  return curve
    .filter(({ group }) => group === null)
    .map(({ threshold, found, right, fires }) => [String(threshold), share(found), share(right), share(fires)])
}

export function binsBody(bins: readonly Bin[]): string[][] {
  return bins.map(({ from, to, meanScore, wanted }) => [
    `${from.toFixed(1)}–${to.toFixed(1)}`,
    String(wanted?.n ?? 0),
    meanScore?.toFixed(3) ?? '',
    share(wanted),
  ])
}

export interface FiringAbout {
  readonly files: readonly string[]
  readonly memories: number
  /** In all memories together, fill included. */
  readonly edits: number
  readonly messages: number
  readonly threshold: number
  readonly notes: readonly string[]
}

export function firingNotes(
  { files, memories, edits, messages, threshold, notes }: FiringAbout,
  { times: { whole, reader } }: Firing,
): string[] {
  return [
    `${files.join(', ')}: ${messages} messages, ${edits} edits in ${memories} ${memories === 1 ? 'memory' : 'memories'}, threshold ${threshold}.`,
    ...(whole === null
      ? []
      : [`A selection took ${whole.p50.toFixed(1)} ms at p50 and ${whole.p99.toFixed(1)} at p99, embedding included.`]),
    ...(reader === null
      ? []
      : [`The reader read with ${reader.n} messages: ${reader.p50.toFixed(1)} ms at p50 and ${reader.p99.toFixed(1)} at p99.`]),
    ...notes,
  ]
}

export function answeredText({ right, identical }: AnsweredFigures): string {
  const rows = right.map(({ group, figure }) => [group, String(figure?.n ?? 0), share(figure)])
  const last = ['nothing selected: as the untouched model', String(identical?.n ?? 0), share(identical)]
  return `\n${lines(['answers', 'n', 'right %'], [...rows, last])}\n`
}

export function firingText(about: FiringAbout, firing: Firing): string {
  const parts = [
    firingNotes(about, firing)
      .map((note) => `- ${note}`)
      .join('\n'),
    lines(ROWS_HEAD, rowsBody(firing.rows)),
    ...(firing.curve.length > 0 ? [lines(CURVE_HEAD, curveBody(firing.curve))] : []),
  ]
  return `${parts.join('\n\n')}\n`
}
