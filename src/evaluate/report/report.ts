/** What an evaluation found, as data and as Markdown. Pure. */

import type { Kind } from '../data/probe.ts'
import { DESCRIPTIONS, type Method } from '../methods/methods.ts'
import type { Figure } from '../metrics/intervals.ts'
import { plain, type Row } from '../metrics/scores.ts'
import { type CurvePoint, RECALL_AT, type SelectionRow, type SelectionTotals } from '../metrics/selection-scores.ts'

export interface SelectionResults {
  readonly rows: readonly SelectionRow[]
  readonly gate: SelectionTotals
  readonly cosine: SelectionTotals
  readonly curve: readonly CurvePoint[]
  readonly cosineCurve: readonly CurvePoint[]
  /** The cosine baseline's. */
  readonly threshold: number
  readonly medianMs: Figure | null
  readonly p99Ms: number | null
}

/** `results.json`. Every share is in [0, 1], with its 95 % interval. */
export interface Results {
  readonly about: About
  /** Things a reader of the figures must know. */
  readonly notes: readonly string[]
  readonly generated: readonly Row[]
  readonly forced: readonly Row[]
  readonly selection: SelectionResults | null
}

export interface About {
  readonly version: string
  /** ISO 8601. */
  readonly at: string
  readonly data: string
  readonly format: string
  readonly records: number
  readonly recordsAsked: number
  readonly probes: Readonly<Partial<Record<Kind, number>>>
  readonly editsLive: number
  readonly methods: readonly Method[]
  /** Null: selection alone. */
  readonly model: string | null
  readonly device: string
  readonly threads: number
  readonly template: string
  readonly seed: number
  readonly minutes: number
}

export function title({ data, model }: About): string {
  return `Evaluation on ${data}${model === null ? ', selection alone' : `, ${model}`}`
}

export function markdown(results: Results): string {
  const { about, notes, generated, forced, selection } = results
  const parts = [
    `# ${title(about)}`,
    settings(about)
      .map(([name, value]) => `- ${name}: ${value}`)
      .join('\n'),
    notes.map((note) => `- ${note}`).join('\n'),
    ...(generated.length > 0 ? ['## Generated answers', mdTable(generated, about.methods), `${methodList(about.methods)}`] : []),
    ...(forced.length > 0 ? ['## Teacher-forced', mdTable(forced, about.methods)] : []),
    ...(selection !== null
      ? ['## Selection alone', totalsLines(selection).join('\n\n'), selectionTable(selection.rows), curveTable(selection)]
      : []),
  ]
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`
}

export function settings(about: About): [name: string, value: string][] {
  const probes = Object.entries(about.probes).map(([kind, n]) => `${n} ${plain(kind)}`)
  return [
    ['data', `${about.data} (${about.format}), ${about.recordsAsked} of ${about.records} records asked`],
    ['probes', probes.join(', ')],
    ['edits in memory', about.editsLive.toLocaleString('en')],
    ...(about.model === null
      ? []
      : ([['model', `${about.model} on ${about.device}, ${about.threads} threads; template ${about.template}`]] as [
          string,
          string,
        ][])),
    [
      'made',
      `${about.at.slice(0, 16).replace('T', ' ')} UTC by Palimpsest ${about.version}, seed ${about.seed}, ${about.minutes.toFixed(1)} minutes`,
    ],
  ]
}

function methodList(methods: readonly Method[]): string {
  return methods.map((method) => `- **${method}**: ${DESCRIPTIONS[method]}`).join('\n')
}

/** Measure, n, and a column for each method that has a figure anywhere. */
export function tableOf(rows: readonly Row[], methods: readonly Method[]): { head: string[]; body: string[][] } {
  const shown = methods.filter((method) => rows.some((row) => row.values[method] !== undefined))
  return {
    head: ['measure', 'n', ...shown],
    body: rows.map((row) => [
      row.label,
      String(Math.max(...Object.values(row.values).map(({ n }) => n))),
      ...shown.map((method) => figureText(row.values[method], row.unit)),
    ]),
  }
}

function mdTable(rows: readonly Row[], methods: readonly Method[]): string {
  const { head, body } = tableOf(rows, methods)
  return lines(head, body)
}

export function lines(head: readonly string[], body: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, i) => (i === 0 ? '---' : '--:'))), ...body.map(line)].join('\n')
}

/** "93.5 (89.1–96.2)"; shares in per cent. */
export function figureText(figure: Figure | null | undefined, unit: Row['unit']): string {
  if (figure == null) return ''
  const { value, low, high } = figure
  const one = (x: number) =>
    unit === 'share'
      ? (100 * x).toFixed(1)
      : unit === 'probability'
        ? x.toFixed(3)
        : unit === 'number'
          ? x.toFixed(1)
          : x.toFixed(0)
  return `${one(value)} (${one(low)}–${one(high)})`
}

export function totalsLines({ gate, cosine, threshold, medianMs, p99Ms }: SelectionResults): string[] {
  const share = (figure: Figure | null) => (figure === null ? 'none' : `${figureText(figure, 'share')} %`)
  const line = (name: string, { precision, recall, falseAlarms }: SelectionTotals) =>
    `${name}: precision ${share(precision)}, recall ${share(recall)}, false alarms out of scope ${share(falseAlarms)}`
  return [
    line('Gate', gate),
    line(`Cosine ≥ ${threshold.toFixed(3)} (the best single threshold for these probes)`, cosine),
    `Gate and retrieval, embedding included: median ${medianMs?.value.toFixed(1)} ms, 99 % within ${p99Ms?.toFixed(1)} ms`,
  ]
}

export const SELECTION_HEAD: readonly string[] = [
  ...['probe', 'n', 'right edit', 'any right', 'wrong edit', 'cosine: right', 'cosine: wrong'],
  ...RECALL_AT.map((k) => `vector@${k}`),
  ...['subject index', 'offered'],
]

export function selectionBody(rows: readonly SelectionRow[]): string[][] {
  const share = (figure: Figure | null | undefined) => figureText(figure, 'share')
  const short = (figure: Figure | null | undefined) => (figure == null ? '' : (100 * figure.value).toFixed(1))
  return rows.map((row) => [
    row.sub === row.kind ? plain(row.kind) : `${plain(row.kind)}, ${plain(row.sub)}`,
    String(row.n),
    share(row.found),
    short(row.anyFound),
    share(row.wrong),
    short(row.cosineFound),
    short(row.cosineWrong),
    ...RECALL_AT.map((k) => short(row.vectorRecall[k])),
    short(row.subjectRecall),
    short(row.offered),
  ])
}

function selectionTable(rows: readonly SelectionRow[]): string {
  return lines(SELECTION_HEAD, selectionBody(rows))
}

export const CURVE_HEAD: readonly string[] = ['threshold', 'precision', 'recall', 'false alarms out of scope']

export function curveBody({ curve }: SelectionResults): string[][] {
  return curve.map(({ threshold, precision, recall, falseAlarms }) => [
    threshold.toFixed(2),
    ...[precision, recall, falseAlarms].map((figure) => figureText(figure, 'share')),
  ])
}

function curveTable(selection: SelectionResults): string {
  return `Operating points of the gate (\`--threshold\`):\n\n${lines(CURVE_HEAD, curveBody(selection))}`
}
