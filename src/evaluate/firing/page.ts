/** The same as one HTML page, with the curve and the reliability of the scores as plots. */

import type { Figure } from '../metrics/intervals.ts'
import { page, tableHtml, text } from '../report/html.ts'
import { type Drawing, openDrawing } from '../report/plots.ts'
import type { Firing, FiringPoint } from './figures.ts'
import { BINS_HEAD, binsBody, CURVE_HEAD, curveBody, type FiringAbout, firingNotes, ROWS_HEAD, rowsBody } from './text.ts'

export async function firingPage(about: FiringAbout, firing: Firing): Promise<string> {
  const drawing = await openDrawing()
  const title = `Selection alone on ${about.files.join(', ')}`
  const section = (name: string, body: string) => `<section><h2>${text(name)}</h2>${body}</section>`
  const table = (head: readonly string[], body: string[][]) => tableHtml({ head, body })
  const side = (plot: string, figures: string) => `<div class="side"><figure>${plot}</figure>${figures}</div>`
  return page(title, [
    `<h1>${text(title)}</h1><ul class="notes">${firingNotes(about, firing)
      .map((note) => `<li>${text(note)}</li>`)
      .join('')}</ul>`,
    section('Which edits fire', table(ROWS_HEAD, rowsBody(firing.rows))),
    section('As the threshold moves', side(curve(drawing, firing.curve), table(CURVE_HEAD, curveBody(firing.curve)))),
    section('What a score is worth', side(reliability(drawing, firing), table(BINS_HEAD, binsBody(firing.reliability)))),
  ])
}

const SIZE = { width: 440, height: 380, marginLeft: 50, marginBottom: 44 }
const LINES = [
  ['found', 'var(--palimpsest)'],
  ['right', 'var(--ike)'],
  ['fires', 'var(--cosine)'],
] as const

function curve({ Plot, draw }: Drawing, points: readonly FiringPoint[]): string {
  const whole = points.filter(({ group }) => group === null)
  const data = LINES.flatMap(([name]) =>
    whole.flatMap((point) => percent(point[name]).map((one) => ({ ...one, name, threshold: point.threshold }))),
  )
  const color = { domain: LINES.map(([name]) => name), range: LINES.map(([, colour]) => colour) }
  const at = { x: 'threshold', stroke: 'name' }
  return draw({
    ...SIZE,
    color,
    x: { domain: [0, 1], label: 'threshold →', grid: true },
    y: { domain: [0, 100], label: '↑ per cent', grid: true },
    marks: [
      Plot.frame({ stroke: 'currentColor', strokeOpacity: 0.15 }),
      Plot.ruleX(data, { ...at, y1: 'low', y2: 'high', strokeOpacity: 0.5 }),
      Plot.line(data, { ...at, y: 'value', strokeWidth: 2 }),
      Plot.text(data, Plot.selectLast({ x: 'threshold', z: 'name', y: 'value', text: 'name', dy: -9, fill: 'name' })),
    ],
  })
}

/** On the diagonal, a score is the share of the candidates with it that are wanted. */
function reliability({ Plot, draw }: Drawing, { reliability: bins }: Firing): string {
  const data = bins.flatMap(({ meanScore, wanted }) => percent(wanted).map((one) => ({ ...one, score: 100 * (meanScore ?? 0) })))
  const colour = 'var(--palimpsest)'
  return draw({
    ...SIZE,
    x: { domain: [0, 100], label: 'mean score, per cent →', grid: true },
    y: { domain: [0, 100], label: '↑ wanted, per cent', grid: true },
    marks: [
      Plot.frame({ stroke: 'currentColor', strokeOpacity: 0.15 }),
      Plot.line(
        [
          [0, 0],
          [100, 100],
        ],
        { stroke: 'currentColor', strokeOpacity: 0.4, strokeDasharray: '4 4' },
      ),
      Plot.ruleX(data, { x: 'score', y1: 'low', y2: 'high', stroke: colour, strokeWidth: 2 }),
      Plot.dot(data, { x: 'score', y: 'value', fill: colour, r: 4 }),
    ],
  })
}

function percent(figure: Figure | null) {
  return figure === null ? [] : [{ value: 100 * figure.value, low: 100 * figure.low, high: 100 * figure.high }]
}
