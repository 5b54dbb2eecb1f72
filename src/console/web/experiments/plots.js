// @ts-check
// Exposures over time, and each metric's intervals as they shrink. The same figures stand in a table below each plot.
import { colour, Plot } from '../shell/plot.js'
import { Badge } from '../shell/ui.js'
import { html, useMemo } from '../vendor/preact.js'
import { bounds, meanText, metricName, pText, short, signed, verdictOf } from './text.js'

const QUIET = { legend: { show: false }, cursor: { drag: { x: false, y: false } } }
/** Steps of the axis of time: whole seconds. */
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 172_800, 604_800]
const A_DAY_SECONDS = 86_400

/** Moments as a plot's axis has them: with the day where they span more than one. @param {any} plot @param {number[]} ticks */
function clocks(plot, ticks) {
  const days = plot.scales.x.max - plot.scales.x.min > A_DAY_SECONDS
  return ticks.map((seconds) => {
    const at = new Date(seconds * 1_000)
    return days ? at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' }) : at.toLocaleTimeString('en-GB')
  })
}

/** @param {{trial: any}} props */
export function Exposures({ trial }) {
  const { over_time: moments, arms, created_at: since } = trial
  const data = useMemo(() => {
    // Several parts may end within one millisecond.
    const at = [Date.parse(since), ...moments.map((/** @type {any} */ one) => Date.parse(one.at))].map((ms) => ms / 1_000)
    const of = (/** @type {number} */ arm) => [0, ...moments.map((/** @type {any} */ one) => one.arms[arm].exposures)]
    return /** @type {any} */ ([at, ...arms.map((/** @type {any} */ _, /** @type {number} */ arm) => of(arm))])
  }, [moments, arms, since])
  const last = moments.at(-1)
  if (last === undefined) return null
  const said = `Users exposed over time; by now ${last.arms.map((/** @type {any} */ { arm, exposures }) => `${exposures} to ${arm}`).join(', ')}.`
  return html`<section class="card"><div class="card-head"><h2>Exposures over time</h2><ul class="legend">${arms.map(
    (/** @type {any} */ { name }, /** @type {number} */ at) =>
      html`<li key=${name}><span class="key c${at + 1}"></span>${name}</li>`,
  )}</ul></div><${Plot} height=${190} data=${data} label=${said} options=${() => ({
    ...QUIET,
    series: [
      {},
      ...arms.map((/** @type {any} */ { name }, /** @type {number} */ at) => ({
        label: name,
        stroke: colour(`--c${at + 1}`),
        width: 2,
        points: { show: false },
      })),
    ],
    axes: [{ space: 90, size: 32, incrs: SECONDS, values: clocks }, { size: 56 }],
  })} /></section>`
}

/** @param {{trial: any}} props */
export function MetricCards({ trial }) {
  const { metrics } = trial.result
  return html`<div class="grid-2 metrics">${metrics.map(
    (/** @type {any} */ metric, /** @type {number} */ at) =>
      html`<${MetricCard} key="${metric.metric} ${metric.arm}" at=${at} metric=${metric} trial=${trial} />`,
  )}</div>`
}

/** @param {{metric: any, at: number, trial: any}} props */
function MetricCard({ metric, at, trial }) {
  const { kind, arm, means } = metric
  const first = trial.arms[0].name
  const { tone, text } = verdictOf(metric)
  const points = trial.over_time.map((/** @type {any} */ moment) => ({
    ...moment.metrics[at],
    total: moment.arms.reduce((/** @type {number} */ sum, /** @type {any} */ { exposures }) => sum + exposures, 0),
  }))
  const drawn = points.some((/** @type {any} */ { confidence_sequence: sequence }) => sequence !== null)
  return html`<section class="card" aria-label="${metricName(metric.metric)}, ${arm}"><div class="card-head"><h3>${metricName(metric.metric)}${trial.arms.length > 2 && ` · ${arm}`}</h3>
      <${Badge} tone=${tone}>${text}<//></div>
    <p class="estimate"><strong class="num">${metric.difference === null ? '–' : signed(metric.difference, kind)}</strong>
      <span class="muted small">${first} ${meanText(means[0], metric)}, ${arm} ${meanText(means[1], metric)}; p ${pText(metric.adjusted_p)}, corrected</span></p>
    <dl class="evidence wide"><div><dt>at any look</dt><dd class="num">${bounds(metric.confidence_sequence, kind)}</dd></div>
      <div><dt>at one look</dt><dd class="num">${bounds(metric.fixed_interval, kind)}</dd></div></dl>
    ${drawn && html`<${Shrinking} metric=${metric} points=${points} /><${AsTable} points=${points} />`}
    ${!drawn && html`<p class="muted small">Intervals are given from ${kind === 'mean' ? 200 : 20} users an arm on.</p>`}</section>`
}

/** @param {{metric: any, points: any[]}} props */
function Shrinking({ metric, points }) {
  const { kind } = metric
  const data = useMemo(() => {
    const edge = (/** @type {string} */ key, /** @type {number} */ side) => points.map((point) => point[key]?.[side] ?? null)
    const estimates = points.map(({ confidence_sequence: sequence, difference }) => (sequence === null ? null : difference))
    return /** @type {any} */ ([
      points.map(({ total }) => total),
      edge('confidence_sequence', 1),
      edge('confidence_sequence', 0),
      edge('fixed_interval', 1),
      edge('fixed_interval', 0),
      points.map(() => 0),
      estimates,
    ])
  }, [points])
  const said =
    `${metricName(metric.metric)}: the difference after ${points.length} steps up to ${points.at(-1)?.total} users. ` +
    `The interval that holds at any look is ${bounds(metric.confidence_sequence, kind)} now.`
  return html`<${Plot} height=${190} data=${data} label=${said} options=${() => shrinkingOptions(kind)} />
    <ul class="legend"><li><span class="key c1"></span>estimate</li><li><span class="key band"></span>at any look</li><li><span class="key dashed"></span>at one look</li></ul>`
}

/** @param {string} kind @returns {any} */
function shrinkingOptions(kind) {
  const line = colour('--c1')
  const fixed = { stroke: colour('--c3'), width: 1.5, dash: [4, 4], points: { show: false } }
  const edge = { stroke: `color-mix(in srgb, ${line} 45%, transparent)`, width: 1, points: { show: false } }
  return {
    ...QUIET,
    series: [
      {},
      { label: 'high', ...edge },
      { label: 'low', ...edge },
      { label: 'fixed high', ...fixed },
      { label: 'fixed low', ...fixed },
      { label: 'no difference', stroke: colour('--line-strong'), width: 1, points: { show: false } },
      { label: 'estimate', stroke: line, width: 2, points: { show: false } },
    ],
    bands: [{ series: [1, 2], fill: `color-mix(in srgb, ${line} 16%, transparent)` }],
    scales: { x: { time: false }, y: { range: aroundTheEnd } },
    axes: [
      { space: 70, size: 32, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6] },
      {
        size: 62,
        values: (/** @type {any} */ _plot, /** @type {number[]} */ ticks) =>
          ticks.map((tick) => (kind === 'mean' ? short(tick) : `${short(tick * 100)}${kind === 'ratio' ? ' %' : ' pt'}`)),
      },
    ],
  }
}

/** Times the present interval's width that are shown above and below it: the first intervals are too wide to show whole. */
const ROOM = 1.5

/** @param {any} plot @param {number | null} low @param {number | null} high */
function aroundTheEnd(plot, low, high) {
  const last = (/** @type {number} */ series) =>
    plot.data[series].findLast((/** @type {number | null} */ value) => value !== null)
  const [top, bottom] = [last(1), last(2)]
  if (top === undefined || bottom === undefined || low === null || high === null) return [-1, 1]
  const room = Math.max(top - bottom, 1e-6) * ROOM
  return [Math.min(0, Math.max(low, bottom - room)) - room * 0.05, Math.max(0, Math.min(high, top + room)) + room * 0.05]
}

/** @param {{points: any[]}} props */
function AsTable({ points }) {
  return html`<details class="more"><summary>As a table</summary><div class="table-wrap tall" tabindex="0" role="region" aria-label="Intervals as they shrank"><table class="table"><thead><tr>
    <th class="num">users</th><th class="num">difference</th><th>at any look</th><th>at one look</th></tr></thead><tbody>${points.map(
      ({
        total,
        difference,
        confidence_sequence: sequence,
        fixed_interval: fixed,
        kind,
      }) => html`<tr key=${total}><td class="num">${total}</td>
      <td class="num">${difference === null ? '–' : signed(difference, kind)}</td><td class="num time">${bounds(sequence, kind)}</td><td class="num time">${bounds(fixed, kind)}</td></tr>`,
    )}</tbody></table></div></details>`
}
