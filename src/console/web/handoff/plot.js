// @ts-check
// A stage's measures on one scale, and one measure as the edits become more: base, prompt edits and adapter beside each other.
import { Select } from '../shell/form.js'
import { intervals, line, Plot } from '../shell/plot.js'
import { html, useMemo, useState } from '../vendor/preact.js'
import { figure } from './text.js'

/** In the order of their colours. */
const ARMS = /** @type {const} */ ([
  ['base', 'base'],
  ['prompt', 'edits in the prompt'],
  ['value', 'adapter'],
])
const WIDTH = 124
/** Radii: arms that agree lie in each other. */
const RADII = [7, 5.5, 3.5]
const INCREMENTS = [1, 2, 5, 10, 20, 50, 100, 200, 500]
const MIDDLE = 10

/** Shares; what is larger (fluency) has no place on a scale to 100 %. @param {any} measure */
const isShare = ({ value }) => value !== null && value <= 1

export function Legend() {
  return html`<ul class="legend">${ARMS.map(([, name], at) => html`<li key=${name}><span class="key c${at + 1}"></span>${name}</li>`)}</ul>`
}

/** One measure from 0 to 100 %: the arms' points, the adapter's interval, and where it has to be. @param {{measure: any}} props */
export function Strip({ measure }) {
  if (!isShare(measure)) return null
  const x = (/** @type {number} */ share) => 8 + share * (WIDTH - 16)
  const { low, high, least } = measure
  const said = ARMS.filter(([arm]) => measure[arm] !== null).map(([arm, name]) => `${name} ${figure(measure[arm])}`)
  return html`<svg class="strip" width=${WIDTH} height=${2 * MIDDLE} role="img" aria-label=${`${measure.name}: ${said.join(', ')}`}>
    <line class="track" x1=${x(0)} x2=${x(1)} y1=${MIDDLE} y2=${MIDDLE} />
    ${low !== null && html`<line class="interval" x1=${x(low)} x2=${x(high)} y1=${MIDDLE} y2=${MIDDLE} />`}
    ${least !== null && html`<line class="least" x1=${x(least)} x2=${x(least)} y1="2" y2=${2 * MIDDLE - 2} />`}
    ${ARMS.map(
      ([arm], at) =>
        measure[arm] !== null && html`<circle key=${arm} class="c${at + 1}" cx=${x(measure[arm])} cy=${MIDDLE} r=${RADII[at]} />`,
    )}</svg>`
}

/** Of stages that were measured, where there are two. @param {{stages: any[]}} props */
export function ByEdits({ stages }) {
  const judged = stages.filter(({ measures }) => measures.length > 0)
  const names = [...new Set(judged.flatMap(({ measures }) => measures.map((/** @type {any} */ one) => one.name)))]
  const [asked, setAsked] = useState('')
  const name = names.includes(asked) ? asked : names.includes('reliability') ? 'reliability' : (names[0] ?? '')
  if (judged.length < 2) return null
  return html`<section class="card stack"><div class="card-head"><h2>As the edits become more</h2></div>
    <${Select} id="by-edits" label="Measure" value=${name} onValue=${setAsked} choices=${names.map((one) => [one, one])} />
    <${Lines} key="${name} ${judged.length}" stages=${judged} name=${name} /></section>`
}

/** @param {{stages: any[], name: string}} props */
function Lines({ stages, name }) {
  const found = stages.map(({ edits, measures }) => ({ edits, ...measures.find((/** @type {any} */ one) => one.name === name) }))
  const shares = found.every((one) => one.value === undefined || isShare(one))
  const scale = shares ? 100 : 1
  const data = useMemo(
    () =>
      /** @type {any} */ ([
        found.map(({ edits }) => edits),
        ...ARMS.map(([arm]) => found.map((one) => (typeof one[arm] === 'number' ? one[arm] * scale : null))),
      ]),
    [stages, name],
  )
  const bars = found.map(({ edits, low, high }) =>
    typeof low === 'number' ? { x: edits, low: low * scale, high: high * scale } : null,
  )
  const last = found.at(-1)
  const said = ARMS.filter(([arm]) => typeof last[arm] === 'number').map(([arm, arms]) => `${arms} ${figure(last[arm])}`)
  return html`<${Plot} data=${data} label="${name} after ${stages.length} stages; after the last: ${said.join(', ')}." options=${() => ({
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    series: [{}, ...ARMS.map(([, arms], at) => line(arms, at))],
    scales: {
      x: {
        time: false,
        range: (/** @type {any} */ _plot, /** @type {number} */ _low, /** @type {number} */ high) => [0, high * 1.06],
      },
      ...(shares && { y: { range: /** @type {[number, number]} */ ([-3, 103]) } }),
    },
    hooks: { draw: [intervals([[], [], bars])] },
    axes: [
      {
        size: 32,
        space: 70,
        incrs: INCREMENTS,
        values: (/** @type {any} */ _plot, /** @type {number[]} */ ticks) => ticks.map((tick) => `${tick} edits`),
      },
      {
        size: 62,
        values: (/** @type {any} */ _plot, /** @type {number[]} */ ticks) =>
          ticks.map((tick) => (shares ? `${tick} %` : String(tick))),
      },
    ],
  })} /><${Legend} /><p class="muted small">Bars are the adapter’s 95 % intervals.</p>`
}
