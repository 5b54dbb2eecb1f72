/** Plots as SVG text, drawn by Observable Plot without a browser. Colours are the page's CSS variables, so that both themes work. */

import type { Method } from '../methods/methods.ts'
import type { Figure } from '../metrics/intervals.ts'
import type { Row } from '../metrics/scores.ts'
import { plain } from '../metrics/scores.ts'
import type { CurvePoint, SelectionTotals } from '../metrics/selection-scores.ts'
import type { SelectionResults } from './report.ts'

type Draw = (options: object) => string
type Marks = typeof import('@observablehq/plot')

export interface Plotter {
  /** A figure and its interval for each method, a band for each row. Shares. */
  dots(rows: readonly Row[], methods: readonly Method[]): string
  /** As `dots`, of figures that start at 0. */
  bars(row: Row, methods: readonly Method[]): string
  /** What is right in scope against what stays untouched out of scope. */
  tradeOff(rows: readonly Row[], methods: readonly Method[]): string
  /** Right and wrong edits by kind of probe, gate beside cosine. */
  selection(results: SelectionResults): string
  /** Precision over recall as the thresholds of gate and cosine move; a ring where they stand. */
  curve(results: SelectionResults): string
}

export interface Drawing {
  readonly Plot: Marks
  readonly draw: Draw
}

/** Loaded when a report is written, since nothing else needs it. */
export async function openDrawing(): Promise<Drawing> {
  const [Plot, { parseHTML }] = await Promise.all([import('@observablehq/plot'), import('linkedom')])
  const { document } = parseHTML('<!doctype html><html><body></body></html>')
  const draw: Draw = (options) => {
    const style = { background: 'transparent', fontSize: '12px', fontFamily: 'inherit' }
    const drawn = Plot.plot({ document, style, ...options } as never) as unknown as { outerHTML: string }
    return drawn.outerHTML
  }
  return { Plot, draw }
}

export async function openPlotter(): Promise<Plotter> {
  const { Plot, draw } = await openDrawing()
  return {
    dots: (rows, methods) => dots(Plot, draw, rows, methods),
    bars: (row, methods) => bars(Plot, draw, row, methods),
    tradeOff: (rows, methods) => tradeOff(Plot, draw, rows, methods),
    selection: (results) => selection(Plot, draw, results),
    curve: (results) => curve(Plot, draw, results),
  }
}

const colour = (method: string): string => `var(--${method})`
const WIDTH = 760
const BAND = 17
/** Room for ticks and label. */
const BELOW = 44
const SHARE_AXIS = { domain: [0, 100], label: 'per cent →', grid: true }

interface Mark {
  readonly measure: string
  readonly method: string
  readonly value: number
  readonly low: number
  readonly high: number
}

function mark(measure: string, method: string, { value, low, high }: Figure, factor: number): Mark {
  return { measure, method, value: factor * value, low: factor * low, high: factor * high }
}

function colours(methods: readonly string[]) {
  return { domain: methods, range: methods.map(colour) }
}

function dots(Plot: Marks, draw: Draw, rows: readonly Row[], methods: readonly Method[]): string {
  const data = rows.flatMap(({ label, values }) =>
    methods.flatMap((method) => {
      const figure = values[method]
      return figure === undefined ? [] : [mark(label, method, figure, 100)]
    }),
  )
  const shown = methods.filter((method) => data.some((one) => one.method === method))
  return draw({
    width: WIDTH + 100,
    height: rows.length * (shown.length * BAND + 14) + 60,
    marginLeft: 90,
    marginRight: 270,
    marginBottom: BELOW,
    x: SHARE_AXIS,
    y: { domain: shown, label: null },
    fy: { domain: rows.map(({ label }) => label), label: null, padding: 0.12 },
    color: colours(shown),
    marks: [
      Plot.frame({ stroke: 'currentColor', strokeOpacity: 0.15 }),
      Plot.ruleY(data, { fy: 'measure', y: 'method', x1: 'low', x2: 'high', stroke: 'method', strokeWidth: 2 }),
      Plot.dot(data, { fy: 'measure', y: 'method', x: 'value', fill: 'method', r: 4 }),
    ],
  })
}

function bars(Plot: Marks, draw: Draw, { label, values }: Row, methods: readonly Method[]): string {
  const data = methods.flatMap((method) => {
    const figure = values[method]
    return figure === undefined ? [] : [mark(label, method, figure, 1)]
  })
  const shown = data.map(({ method }) => method)
  return draw({
    width: WIDTH / 2,
    height: shown.length * 24 + 70,
    marginLeft: 90,
    marginBottom: BELOW,
    marginRight: 50,
    x: { label: `${label} →`, grid: true, zero: true },
    y: { domain: shown, label: null },
    color: colours(shown),
    marks: [
      Plot.barX(data, { y: 'method', x: 'value', fill: 'method' }),
      Plot.text(data, {
        y: 'method',
        x: 'value',
        text: ({ value }: Mark) => value.toFixed(0),
        dx: 6,
        textAnchor: 'start',
        fill: 'currentColor',
      }),
      Plot.ruleX([0], { stroke: 'currentColor' }),
    ],
  })
}

function tradeOff(Plot: Marks, draw: Draw, rows: readonly Row[], methods: readonly Method[]): string {
  const of = (id: string, method: Method) => rows.find((row) => row.id === id)?.values[method]?.value
  const data = methods.flatMap((method) => {
    const inside = [of('reliability', method), of('generalization', method)].filter((value) => value !== undefined)
    const outside = of('locality/identical', method)
    if (inside.length === 0 || outside === undefined) return []
    return [{ method, inside: (100 * inside.reduce((a, b) => a + b, 0)) / inside.length, outside: 100 * outside }]
  })
  if (data.length === 0) return ''
  return draw({
    width: WIDTH / 2,
    height: WIDTH / 2 - 40,
    marginLeft: 50,
    marginBottom: BELOW,
    marginRight: 80,
    x: { ...SHARE_AXIS, label: 'locality: byte-identical, per cent →' },
    y: { ...SHARE_AXIS, label: '↑ reliability and generalization, mean, per cent' },
    color: colours(data.map(({ method }) => method)),
    marks: [
      Plot.frame({ stroke: 'currentColor', strokeOpacity: 0.15 }),
      Plot.dot(data, { x: 'outside', y: 'inside', fill: 'method', r: 6 }),
      Plot.text(data, { x: 'outside', y: 'inside', text: 'method', dx: 9, textAnchor: 'start', fill: 'currentColor' }),
    ],
  })
}

function selection(Plot: Marks, draw: Draw, { rows }: SelectionResults): string {
  const name = (kind: string, sub: string) => (kind === sub ? plain(kind) : `${plain(kind)}, ${plain(sub)}`)
  const data = rows.flatMap(({ kind, sub, anyFound, wrong, cosineFound, cosineWrong }) => {
    const pairs = [
      ['right edit', 'palimpsest', anyFound],
      ['right edit', 'cosine', cosineFound],
      ['wrong edit, or any out of scope', 'palimpsest', wrong],
      ['wrong edit, or any out of scope', 'cosine', cosineWrong],
    ] as const
    return pairs.flatMap(([what, method, figure]) =>
      figure === null ? [] : [{ ...mark(name(kind, sub), method, figure, 100), what }],
    )
  })
  const kinds = rows.map(({ kind, sub }) => name(kind, sub))
  // One above the other, so that equal figures do not hide each other.
  const marks = [
    { method: 'palimpsest', dy: -4 },
    { method: 'cosine', dy: 4 },
  ].flatMap(({ method, dy }) => {
    const own = data.filter((one) => one.method === method)
    const at = { fx: 'what', y: 'measure', dy }
    return [
      Plot.ruleY(own, { ...at, x1: 'low', x2: 'high', stroke: colour(method), strokeWidth: 2 }),
      Plot.dot(own, { ...at, x: 'value', fill: colour(method), r: 4 }),
    ]
  })
  return draw({
    width: WIDTH + 200,
    height: kinds.length * 28 + 80,
    marginLeft: 240,
    marginBottom: BELOW,
    x: SHARE_AXIS,
    y: { domain: kinds, label: null },
    fx: { label: null },
    marks: [Plot.frame({ stroke: 'currentColor', strokeOpacity: 0.15 }), ...marks],
  })
}

/** Points of the gate's curve that bear their threshold; the table has all. */
const NAMED_POINTS: readonly number[] = [0.3, 0.5, 0.8, 0.95]

function curve(Plot: Marks, draw: Draw, { curve: points, cosineCurve, cosine, gate }: SelectionResults): string {
  const at = ({ precision, recall }: SelectionTotals) =>
    precision === null || recall === null ? [] : [{ precision: 100 * precision.value, recall: 100 * recall.value }]
  const line = (curve: readonly CurvePoint[]) =>
    curve.flatMap((point) => at(point).map((one) => ({ ...one, threshold: point.threshold })))
  const place = { x: 'recall', y: 'precision' }
  const named = line(points).filter(({ threshold }) => NAMED_POINTS.includes(threshold))
  const text = ({ threshold }: { threshold: number }) => String(threshold)
  const curves = [
    { method: 'palimpsest', points, chosen: gate },
    { method: 'cosine', points: cosineCurve, chosen: cosine },
  ].flatMap(({ method, points, chosen }) => [
    Plot.line(line(points), { ...place, stroke: colour(method), strokeWidth: 2 }),
    Plot.dot(line(points), { ...place, fill: colour(method), r: 2.5 }),
    Plot.dot(at(chosen), { ...place, stroke: colour(method), r: 7, strokeWidth: 2 }),
  ])
  return draw({
    width: WIDTH / 2 + 60,
    height: WIDTH / 2,
    marginLeft: 50,
    marginRight: 30,
    marginBottom: BELOW,
    x: { label: 'recall of the wanted edits, per cent →', grid: true },
    y: { label: '↑ precision, per cent', grid: true },
    marks: [
      Plot.frame({ stroke: 'currentColor', strokeOpacity: 0.15 }),
      ...curves,
      Plot.text(named, { ...place, text, dy: 12, dx: -4, fontSize: 9, fill: 'currentColor' }),
    ],
  })
}
