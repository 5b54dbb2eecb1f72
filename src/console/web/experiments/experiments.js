// @ts-check
// Experiments and rollouts: all of them, a new one (`?new=experiment`, `?new=rollout&batch=ID`), and one (`#/experiments/ID`).
import { json } from '../shell/api.js'
import { Badge, Empty, ErrorNote, Icon, PageHead, usePolling } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'
import { Trial } from './experiment.js'
import { NewExperiment } from './new-experiment.js'
import { NewRollout } from './new-rollout.js'
import { percent, stateOf, unitText, when } from './text.js'

const POLL_MS = 4_000

/** @param {{rest: string, query: URLSearchParams}} props */
export function Page({ rest, query }) {
  if (rest !== '') return html`<${Trial} key=${rest} id=${rest} />`
  switch (query.get('new')) {
    case 'experiment':
      return html`<${NewExperiment} />`
    case 'rollout':
      return html`<${NewRollout} batch=${query.get('batch') ?? ''} />`
    default:
      return html`<${All} />`
  }
}

function All() {
  const [all, setAll] = useState(/** @type {{experiments: any[], rollouts: any[]} | null} */ (null))
  const [error, setError] = useState(/** @type {unknown} */ (null))
  usePolling(async () => {
    try {
      const [experiments, rollouts] = await Promise.all([json('/v1/experiments'), json('/v1/rollouts')])
      setAll({ experiments: experiments.data, rollouts: rollouts.data })
      setError(null)
    } catch (thrown) {
      setError(thrown)
    }
  }, POLL_MS)
  const none = all !== null && all.experiments.length + all.rollouts.length === 0
  return html`
    <${PageHead} title="Experiments" about="Show that the edits help and that nothing else moved, before everyone gets them.">
      <a class="button" href="#/experiments?new=rollout"><${Icon} name="plus" />New rollout</a>
      <a class="button primary" href="#/experiments?new=experiment"><${Icon} name="plus" />New experiment</a><//>
    <${ErrorNote} error=${error} />
    ${all === null && !error && html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`}
    ${
      none &&
      html`<${Empty} title="Nothing is being tried out">
        <p><strong>An experiment</strong> splits your users between arms, such as base and edited, and compares what comes of it.
          <strong>A rollout</strong> gives a batch of edits to more and more of them while its guardrails hold.</p>
        <p><a href="#/experiments?new=experiment">Start an experiment</a> or <a href="#/experiments?new=rollout">roll out a batch</a>.</p><//>`
    }
    ${all !== null && all.experiments.length > 0 && html`<${List} title="Experiments" rows=${all.experiments} />`}
    ${all !== null && all.rollouts.length > 0 && html`<${List} title="Rollouts" rows=${all.rollouts} />`}`
}

/** @param {{title: string, rows: any[]}} props */
function List({ title, rows }) {
  const rollouts = rows[0]?.object === 'rollout'
  return html`<section class="stack"><h2>${title}</h2>
    <div class="table-wrap" tabindex="0" role="region" aria-label=${title}><table class="table"><thead><tr>
      <th>Name</th><th>State</th><th>${rollouts ? 'Batch' : 'Arms'}</th><th>Unit</th><th>Since</th><th>Until</th></tr></thead>
    <tbody>${rows.map((one) => {
      const { tone, text } = stateOf(one)
      return html`<tr key=${one.id}><td class="wrap name"><a href="#/experiments/${encodeURIComponent(one.id)}">${one.id}</a></td>
        <td><${Badge} tone=${tone}>${text}<//></td><td class="wrap">${rollouts ? one.batch : armsText(one.arms)}</td>
        <td>${unitText(one.unit)}</td><td class="num time">${when(one.created_at)}</td>
        <td class="num time">${one.ended_at === null ? '–' : when(one.ended_at)}</td></tr>`
    })}</tbody></table></div></section>`
}

/** @param {{name: string, weight: number}[]} arms */
function armsText(arms) {
  const whole = arms.reduce((sum, { weight }) => sum + weight, 0) || 1
  return arms.map(({ name, weight }) => `${name} ${percent(weight / whole)}`).join(', ')
}
