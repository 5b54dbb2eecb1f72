// @ts-check
// Parts of one experiment or rollout: stages, sample ratio, summary, guardrails, history, and the dialogs that end it.
import { json } from '../shell/api.js'
import { Badge, Bar, Dialog, ErrorNote, toast } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'
import {
  bounds,
  eventText,
  guardrailText,
  meanText,
  metricName,
  percent,
  pText,
  signed,
  stageText,
  verdictOf,
  when,
} from './text.js'

/** @typedef {{trial: any}} Of */
/** @typedef {{trial: any, onClose: () => void, look: () => Promise<void>}} Act */

/** The stages as steps. @param {Of} props */
export function Stages({ trial }) {
  const { stages, stage, outcome, standing } = trial
  const [now] = standing
  const steps = [...stages.map(stageText), 'live']
  const reached = outcome === 'live' ? steps.length : stage
  const state = (/** @type {number} */ at) =>
    at < reached ? 'done' : at > reached ? 'ahead' : outcome === 'rolled_back' ? 'broken' : 'now'
  const said = { done: 'passed', now: 'now', ahead: 'to come', broken: 'rolled back here' }
  const end = trial.events.findLast((/** @type {any} */ { kind }) => kind === 'rolled_back' || kind === 'live')
  return html`<section class="card"><div class="card-head"><h2>Stages</h2></div>
    <ol class="steps">${steps.map(
      (text, at) => html`<li key=${text} class=${state(at)} aria-current=${state(at) === 'now' ? 'step' : undefined}>
      <span class="step-name">${text}</span><span class="small">${said[state(at)]}</span></li>`,
    )}</ol>
    ${now && html`<p role="status">${waiting(trial, now)}</p>`}
    ${end && html`<p class="notice ${outcome === 'live' ? 'good' : 'bad'}">${eventText(end).name}: ${eventText(end).told}</p>`}</section>`
}

/** What the next stage waits for. @param {any} trial @param {any} standing */
function waiting({ stages, stage, batch }, { exposed, least, locality }) {
  const shadow = stages[stage].share === 0
  const prompts = `${locality.n} of ${locality.expected} unrelated prompts answered by both ways, ${locality.identical} the same`
  if (locality.expected === 0) return `Waits for batch ${batch} to be imported.`
  const many = shadow
    ? `${exposed} of ${least} prompts with the batch at work tried in the background`
    : `${exposed} of ${least} users exposed to the batch`
  return `Before the next stage: ${many}; ${prompts}.`
}

/** Is every arm as full as its weight says? Without that, no figure means anything. @param {Of} props */
export function Ratio({ trial }) {
  const { result, arms, events } = trial
  const { mismatch, p_value: p, chi_square_p: once } = result.sample_ratio
  const units = result.arms.reduce((/** @type {number} */ sum, /** @type {any} */ { exposures }) => sum + exposures, 0)
  const whole = arms.reduce((/** @type {number} */ sum, /** @type {any} */ { weight }) => sum + weight, 0)
  const changed = events.some((/** @type {any} */ { kind }) => kind === 'reweighed')
  return html`<section class="card"><div class="card-head"><h2>Arms</h2>
      ${units > 0 && html`<${Badge} tone=${mismatch ? 'bad' : 'good'}>${mismatch ? 'sample ratio mismatch' : 'sample ratio as it should be'}<//>`}</div>
    ${
      mismatch
        ? html`<div class="notice bad" role="alert"><strong>The result is blocked</strong><p>The arms are not as full as their weights say (p ${pText(p)} at any look,
          ${pText(once)} at one). Something that depends on the arm decides who is counted, so no figure below would mean anything and none is shown.
          Find the cause (requests lost in one arm? clients that retry?), then start a new experiment.</p></div>`
        : html`<p>${units === 0 ? 'Nobody has been exposed yet.' : `The arms are as full as their weights say (p ${pText(p)} at any look, ${pText(once)} at one).`}</p>`
    }
    <div class="table-wrap" tabindex="0" role="region" aria-label="Arms"><table class="table"><thead><tr><th>Arm</th><th class="num">users</th><th class="num">share</th>
      <th class="num">should be</th><th><span class="visually-hidden">share, as a bar</span></th><th class="num">answers</th></tr></thead>
    <tbody>${result.arms.map(
      (
        /** @type {any} */ arm,
        /** @type {number} */ at,
      ) => html`<tr key=${arm.arm}><td><span class="key c${at + 1}"></span>${arm.arm}</td>
        <td class="num">${arm.exposures.toLocaleString('en')}</td><td class="num">${units === 0 ? '–' : percent(arm.exposures / units)}</td>
        <td class="num">${changed ? '' : '≈ '}${percent(arms[at].weight / whole)}${changed ? ' now' : ''}</td>
        <td class="bar-cell"><${Bar} share=${units === 0 ? 0 : arm.exposures / units} tone="c${at + 1}" label="${arm.arm}: ${arm.exposures} of ${units} users" /></td>
        <td class="num">${arm.answers.toLocaleString('en')}</td></tr>`,
    )}</tbody></table></div></section>`
}

/** Every metric in one table. @param {Of} props */
export function Summary({ trial }) {
  const { result, arms, alpha } = trial
  const first = arms[0].name
  const rows = result.metrics
  const several = arms.length > 2
  return html`<section class="stack"><div><h2>Result</h2><p class="muted small">“At any look” holds however often you look and whenever you stop;
      “at one look” only at an end fixed beforehand. p is corrected for all ${rows.length} comparisons; below ${alpha} counts.</p></div>
    <div class="table-wrap" tabindex="0" role="region" aria-label="Result"><table class="table tight"><thead><tr>
      <th>Metric</th>${several && html`<th>Arm</th>`}<th>Verdict</th><th class="num">${first}</th><th class="num">${several ? 'arm' : arms[1].name}</th>
      <th class="num">difference</th><th>at any look</th><th>at one look</th><th class="num">p</th></tr></thead>
    <tbody>${rows.map((/** @type {any} */ row) => {
      const { tone, text } = verdictOf(row)
      const [base, other] = row.means
      return html`<tr key="${row.metric} ${row.arm}"><th scope="row" class="row-head">${metricName(row.metric)}</th>${several && html`<td>${row.arm}</td>`}<td><${Badge} tone=${tone}>${text}<//></td>
        <td class="num">${meanText(base, row)}</td><td class="num">${meanText(other, row)}</td>
        <td class="num">${row.difference === null ? '–' : signed(row.difference, row.kind)}</td><td class="num time">${bounds(row.confidence_sequence, row.kind)}</td>
        <td class="num time">${bounds(row.fixed_interval, row.kind)}</td><td class="num">${pText(row.adjusted_p)}</td></tr>`
    })}</tbody></table></div></section>`
}

/** @param {Of} props */
export function Guards({ trial }) {
  const { guardrails, standing, status, events } = trial
  if (guardrails.length === 0) return null
  const last = events.findLast((/** @type {any} */ { broken, checked }) => Array.isArray(checked ?? broken))
  const shown = standing.length > 0 ? standing : last ? [{ arm: last.arm ?? '', guardrails: last.checked ?? last.broken }] : []
  return html`<section class="card"><div class="card-head"><h2>Guardrails</h2>${status !== 'running' && html`<span class="small muted">as they last stood</span>`}</div>
    ${
      shown.length === 0
        ? html`<ul class="plain">${guardrails.map((/** @type {any} */ one) => html`<li key=${one.kind}>${guardrailText(one).name}: ${guardrailText(one).limit}</li>`)}</ul>`
        : html`<div class="table-wrap" tabindex="0" role="region" aria-label="Guardrails"><table class="table"><thead><tr><th>Guardrail</th><th>Arm</th><th>State</th>
        <th class="num">observed</th><th class="num">limit</th></tr></thead><tbody>${shown.flatMap(
          (/** @type {any} */ { arm, guardrails: checked }) =>
            checked.map((/** @type {any} */ { guardrail, broken, observed }) => {
              const { name, limit, figure } = guardrailText(guardrail)
              return html`<tr key="${arm} ${guardrail.kind}"><td>${name}</td><td>${arm}</td>
              <td>${broken ? html`<${Badge} tone="bad">broken<//>` : observed === null ? html`<${Badge}>nothing seen yet<//>` : html`<${Badge} tone="good">holds<//>`}</td>
              <td class="num">${observed === null ? '–' : figure(observed)}</td><td class="num">${limit}</td></tr>`
            }),
        )}</tbody></table></div>`
    }</section>`
}

/** @param {Of} props */
export function History({ trial }) {
  return html`<section class="card"><h2>History</h2><ol class="history">${trial.events.map(
    (/** @type {any} */ event, /** @type {number} */ at) => {
      const { name, told } = eventText(event)
      const { at: moment, kind: _, ...evidence } = event
      return html`<li key=${at}><span class="num muted">${when(moment)}</span><div class="stack"><p class="wrap"><strong>${name}</strong>${told && `: ${told}`}</p>
      ${
        Object.keys(evidence).length > 0 &&
        html`<details class="more"><summary>Evidence on record</summary><pre class="code" tabindex="0">${JSON.stringify(evidence, null, 2)}</pre></details>`
      }</div></li>`
    },
  )}</ol></section>`
}

/** Which arm everyone gets. @param {Act} props */
export function Ship({ trial, onClose, look }) {
  const [arm, setArm] = useState(trial.arms.at(-1).name)
  const { blocked, metrics } = trial.result
  const shown = metrics.filter((/** @type {any} */ one) => one.significant && one.arm === arm)
  const doubt = blocked
    ? 'The result is blocked: the arms are not as full as they should be.'
    : arm !== trial.arms[0].name && shown.length === 0
      ? 'No metric shows a difference of this arm yet.'
      : ''
  const [send, busy, error] = useSending(async () => {
    await json(`/v1/experiments/${encodeURIComponent(trial.id)}/ship`, { body: { arm } })
    toast(`Arm ${arm} is shipped.`, 'good')
    await look()
    onClose()
  })
  return html`<${Dialog} title="Ship an arm" onClose=${onClose}><form onSubmit=${send}>
      <fieldset class="plain-set"><legend class="label">From now on, the whole audience is answered by</legend>${trial.arms.map(
        (/** @type {any} */ { name }) =>
          html`<label class="check" key=${name}><input type="radio" name="arm" value=${name} checked=${name === arm} onChange=${() => setArm(name)} /><span>${name}</span></label>`,
      )}</fieldset>
      <ul class="plain">${shown.map(
        (/** @type {any} */ one) => html`<li key=${one.metric}>
        ${metricName(one.metric)}: ${signed(one.difference, one.kind)}, ${bounds(one.confidence_sequence, one.kind)} at any look</li>`,
      )}</ul>
      ${doubt && html`<p class="notice warn">${doubt}</p>`}
      <p class="muted small">The experiment ends and its result stays on record. It can be rolled back at any time.</p><${ErrorNote} error=${error} />
      <div class="row"><button class="button primary" disabled=${busy}>Ship ${arm}</button><button type="button" class="button" onClick=${onClose}>Cancel</button></div></form><//>`
}

/** Stops an experiment, takes back what was shipped, or rolls a batch back. @param {Act} props */
export function End({ trial, onClose, look }) {
  const rollout = trial.object === 'rollout'
  const back = rollout || trial.status === 'shipped'
  const what = rollout
    ? `Batch ${trial.batch} is withdrawn at once: from the next request on, everyone is answered without it.`
    : back
      ? `Arm ${trial.shipped} is taken back: everyone is answered as before the experiment.`
      : 'Everyone is answered as before the experiment. What was found stays on record; it cannot be started again.'
  const path = rollout
    ? `/v1/rollouts/${encodeURIComponent(trial.id)}/rollback`
    : `/v1/experiments/${encodeURIComponent(trial.id)}/stop`
  const name = back ? 'Roll back now' : 'Stop the experiment'
  const [send, busy, error] = useSending(async () => {
    await json(path, { method: 'POST' })
    toast(back ? 'Rolled back.' : 'Stopped.', 'good')
    await look()
    onClose()
  })
  return html`<${Dialog} title="${name}?" onClose=${onClose}><form onSubmit=${send}><p>${what}</p><${ErrorNote} error=${error} />
    <div class="row"><button class="button danger" disabled=${busy}>${name}</button><button type="button" class="button" onClick=${onClose}>Cancel</button></div></form><//>`
}

/** @param {() => Promise<void>} work @returns {[(event: Event) => void, boolean, unknown]} */
function useSending(work) {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault()
    setBusy(true)
    try {
      await work()
    } catch (thrown) {
      setError(thrown)
      setBusy(false)
    }
  }
  return [send, busy, error]
}
