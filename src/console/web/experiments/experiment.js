// @ts-check
// One experiment, or one rollout: what is known now, and what can be done. Asks again every few seconds while it is looked at.
import { json } from '../shell/api.js'
import { Badge, ErrorNote, Figure, PageHead, usePolling } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'
import { End, Guards, History, Ratio, Ship, Stages, Summary } from './parts.js'
import { Exposures, MetricCards } from './plots.js'
import { Replay } from './replay.js'
import { servesText, stateOf, unitText, when } from './text.js'
import { Traffic } from './traffic.js'

const POLL_MS = 2_500
const POINTS = 40

/** @param {{id: string}} props */
export function Trial({ id }) {
  const [trial, setTrial] = useState(/** @type {any} */ (null))
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const [dialog, setDialog] = useState(/** @type {'' | 'ship' | 'end'} */ (''))
  const path = `/v1/experiments/${encodeURIComponent(id)}`
  const look = async () => {
    try {
      setTrial(await json(`${path}?points=${POINTS}`))
      setError(null)
    } catch (thrown) {
      setError(thrown)
    }
  }
  usePolling(look, POLL_MS)
  if (trial === null)
    return html`<${PageHead} title=${id} />${
      error
        ? html`<${ErrorNote} error=${error} retry=${look} /><p><a href="#/experiments">All experiments</a></p>`
        : html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`
    }`
  const { status, object } = trial
  const rollout = object === 'rollout'
  const state = stateOf(trial)
  const running = status === 'running'
  const act = { trial, onClose: () => setDialog(''), look }
  const about = html`<a href="#/experiments">Experiments</a> · ${rollout ? `rollout of batch ${trial.batch}, by ${unitText(trial.unit)}` : `by ${unitText(trial.unit)}`},
    since ${when(trial.created_at)}${trial.ended_at === null ? '' : `, until ${when(trial.ended_at)}`}`
  return html`<${PageHead} title=${trial.id} about=${about}><${Badge} tone=${state.tone}>${state.text}<//>
      ${running && !rollout && html`<button type="button" class="button primary" onClick=${() => setDialog('ship')}>Ship an arm</button>`}
      ${
        (running || (status === 'shipped' && !rollout)) &&
        html`<button type="button" class="button danger" onClick=${() => setDialog('end')}>${rollout || !running ? 'Roll back' : 'Stop'}</button>`
      }<//>
    <${ErrorNote} error=${error} />
    ${dialog === 'ship' && html`<${Ship} ...${act} />`}${dialog === 'end' && html`<${End} ...${act} />`}
    ${status === 'shipped' && !rollout && html`<p class="notice good" role="status">Its audience is answered by arm <strong>${trial.shipped}</strong>. “Roll back” takes that back.</p>`}
    ${trial.result.ledger_full && html`<p class="notice warn">The ledger is full: no more exposures are taken. Stop experiments that have ended.</p>`}
    ${rollout && html`<${Stages} trial=${trial} />`}
    <${Overview} trial=${trial} />
    ${!rollout && html`<${Ratio} trial=${trial} />`}
    <${Exposures} trial=${trial} />
    ${!trial.result.blocked && trial.over_time.length > 0 && html`<${Summary} trial=${trial} /><${MetricCards} trial=${trial} />`}
    <${Guards} trial=${trial} />
    ${(running || rollout) && html`<${Traffic} trial=${trial} onSent=${look} />`}
    <${Replay} trial=${trial} />
    <${History} trial=${trial} />`
}

/** @param {{trial: any}} props */
function Overview({ trial }) {
  const { result, arms, planned_units: planned, object } = trial
  const sum = (/** @type {'exposures' | 'answers' | 'unfinished'} */ key) =>
    result.arms.reduce((/** @type {number} */ total, /** @type {any} */ arm) => total + arm[key], 0)
  const exposures = sum('exposures')
  const share = Math.min(100, Math.round((exposures / planned) * 100))
  return html`<div class="grid-4">
    <${Figure} name="Users exposed" note=${object === 'rollout' ? 'in this stage' : `of ${planned.toLocaleString('en')} planned, ${share} %`}>${exposures.toLocaleString('en')}<//>
    <${Figure} name="Answers" note=${sum('unfinished') > 0 ? `${sum('unfinished')} unfinished` : ''}>${sum('answers').toLocaleString('en')}<//>
    ${arms
      .slice(0, 2)
      .map(
        (/** @type {any} */ arm, /** @type {number} */ at) =>
          html`<${Figure} key=${arm.name} name="Arm ${arm.name}" note=${servesText(arm)}>${result.arms[at].exposures.toLocaleString('en')}<//>`,
      )}</div>`
}
