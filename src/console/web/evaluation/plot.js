// @ts-check
// One measure over time: a line for each method, with its 95 % intervals.

import { Select } from '../shell/form.js'
import { intervals, line, Plot } from '../shell/plot.js'
import { html, useMemo, useState } from '../vendor/preact.js'
import { figureText, methodsOf, numberText } from './text.js'

const DAYS = [1, 2, 7, 14, 30, 90, 365].map((days) => days * 86_400)
const HOURS = [60, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200]

/** @param {{reports: any[]}} props */
export function OverTime({ reports }) {
  const groups = [...new Set(reports.map(groupOf))]
  const [group, setGroup] = useState(groups[0] ?? '')
  const own = reports.filter((one) => groupOf(one) === group).toSorted((a, b) => a.at.localeCompare(b.at))
  const measures = new Map(own.flatMap(({ rows }) => rows.map((/** @type {any} */ row) => [`${row.protocol} ${row.id}`, row])))
  const [asked, setAsked] = useState('')
  const measure = measures.has(asked) ? asked : ([...measures.keys()][0] ?? '')
  const row = measures.get(measure)
  return html`<section class="card"><div class="card-head"><h2>Over time</h2></div>
    <div class="grid-2"><${Select} id="over-group" label="Data and model" value=${group} onValue=${setGroup} choices=${groups.map((one) => [one, one])} />
      <${Select} id="over-measure" label="Measure" value=${measure} onValue=${setAsked}
        choices=${[...measures].map(([key, one]) => [key, one.protocol === 'forced' ? `${one.label} (teacher-forced)` : one.label])} /></div>
    ${
      own.length < 2
        ? html`<p class="muted">One report has no past: the next one on this data with this model is drawn beside it.</p>`
        : row &&
          html`<${Lines} key="${group} ${measure}" reports=${own} measure=${measure} label=${row.label} unit=${row.unit} />`
    }</section>`
}

/** @param {any} report */
const groupOf = ({ data, model }) => `${data}, ${model ?? 'selection alone'}`

/** @param {{reports: any[], measure: string, label: string, unit: string}} props */
function Lines({ reports, measure, label, unit }) {
  const rows = reports.map(
    (one) => one.rows.find((/** @type {any} */ row) => `${row.protocol} ${row.id}` === measure) ?? { values: {} },
  )
  const methods = methodsOf(rows)
  const scale = unit === 'share' ? 100 : 1
  const figures = methods.map((method) => rows.map(({ values }) => values[method] ?? null))
  const data = useMemo(
    () =>
      /** @type {any} */ ([
        reports.map(({ at }) => Date.parse(at) / 1_000),
        ...figures.map((own) => own.map((figure) => (figure ? figure.value * scale : null))),
      ]),
    [reports, measure],
  )
  const last = methods.map((method, at) => `${method} ${figureText(figures[at]?.at(-1), unit)}`)
  const bars = figures.map((own) => own.map((one, i) => one && { x: data[0][i], low: one.low * scale, high: one.high * scale }))
  const all = figures.flat().filter(Boolean)
  const [low, high] = [Math.min(...all.map((one) => one.low * scale)), Math.max(...all.map((one) => one.high * scale))]
  const room = (high - low || 1) * 0.08
  const least = unit === 'share' ? Math.max(0, low - room) : low - room
  return html`<${Plot} height=${260} data=${data} label="${label} in ${reports.length} reports over time; in the last: ${last.join(', ')}." options=${() => ({
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    series: [{}, ...methods.map(line)],
    scales: { x: { range: widened }, y: { range: [least, unit === 'share' ? Math.min(100, high + room) : high + room] } },
    hooks: { draw: [intervals(bars)] },
    axes: [
      { space: 90, size: 32, incrs: [...HOURS, ...DAYS], values: dates },
      {
        size: 62,
        values: (/** @type {any} */ _plot, /** @type {number[]} */ ticks) =>
          ticks.map((tick) => (unit === 'share' ? `${Math.round(tick)} %` : numberText(tick, unit))),
      },
    ],
  })} /><ul class="legend">${methods.map((name, at) => html`<li key=${name}><span class="key c${at + 1}"></span>${name}</li>`)}</ul>
    <p class="muted small">Bars are 95 % intervals. The figures are in the reports’ tables, and side by side where reports are compared.</p>`
}

/** Room beside the first and last point. @param {any} _plot @param {number} low @param {number} high @returns {[number, number]} */
function widened(_plot, low, high) {
  const room = Math.max(1_800, (high - low) * 0.06)
  return [low - room, high + room]
}

/** @param {any} plot @param {number[]} ticks */
function dates(plot, ticks) {
  const short = plot.scales.x.max - plot.scales.x.min < 2 * 86_400
  return ticks.map((seconds) => {
    const at = new Date(seconds * 1_000)
    return short
      ? at.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' })
      : at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })
  })
}
