// @ts-check
// One hand-off: how far it is, what was measured, and what can be done with it.
import { json } from '../shell/api.js'
import { Badge, Bar, ErrorNote, PageHead, toast, usePolling } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'
import { ByEdits, Legend, Strip } from './plot.js'
import { figure, minutes, TONES } from './text.js'

const POLL_MS = 1_000
const OVER = ['done', 'failed', 'stopped', 'cancelled']

/** @param {{id: string}} props */
export function HandoffJob({ id }) {
  const [job, setJob] = useState(/** @type {any} */ (null))
  const [promoted, setPromoted] = useState(/** @type {boolean | null} */ (null))
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const [busy, setBusy] = useState(false)
  const path = `/v1/handoffs/${encodeURIComponent(id)}`
  const look = async () => {
    try {
      const found = await json(path)
      const adapters = found.adapter === null ? [] : (await json('/v1/adapters')).data
      setJob(found)
      setPromoted(adapters.find((/** @type {any} */ one) => one.id === id)?.promoted ?? null)
    } catch (thrown) {
      setError(thrown)
    }
  }
  usePolling(look, POLL_MS)
  const act = async (/** @type {string} */ what, /** @type {string} */ said) => {
    setBusy(true)
    setError(null)
    try {
      await json(`${path}/${what}`, { method: 'POST', body: {} })
      toast(said, 'good')
    } catch (thrown) {
      setError(thrown)
    }
    await look()
    setBusy(false)
  }
  const button = (/** @type {string} */ what, /** @type {string} */ text, /** @type {string} */ said, tone = '') =>
    html`<button type="button" class="button ${tone}" disabled=${busy} onClick=${() => act(what, said)}>${text}</button>`
  const over = job !== null && OVER.includes(job.state)
  return html`<${PageHead} title=${id} about=${job && `${job.method}, ${job.edits.length} edits, on ${job.base.name}`}>
      ${job !== null && !over && button('cancel', 'Cancel', 'Cancelled; what is finished is kept.', 'danger')}
      ${(job?.state === 'interrupted' || (over && job.state !== 'done')) && button('resume', 'Resume', 'It goes on with what was finished.')}
      ${promoted === false && button('promote', 'Promote', 'Its edits have left the prompt.', 'primary')}
      ${promoted === true && button('rollback', 'Roll back', 'Its edits are in the prompt again.', 'danger')}
      <a class="button" href="#/handoff">All hand-offs</a><//>
    <${ErrorNote} error=${error} />
    ${job === null && !error && html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`}
    ${job !== null && html`<${How} job=${job} promoted=${promoted} />`}
    ${job !== null && html`<${ByEdits} stages=${job.stages} />`}
    ${job?.stages.map((/** @type {any} */ stage) => html`<${Stage} key=${stage.edits} stage=${stage} />`)}`
}

/** @param {{job: any, promoted: boolean | null}} props */
function How({ job, promoted }) {
  const { state, progress, plan, fault, notes, estimate_s: estimate } = job
  const share = progress === null ? 0 : progress.of > 0 ? progress.done / progress.of : 0
  const at = progress && `Stage ${progress.stage} of ${plan.length}: ${progress.phase}, ${progress.done} of ${progress.of}`
  return html`<section class="card stack"><div class="row"><${Badge} tone=${TONES[state] ?? ''}>${state}<//>
      ${promoted !== null && html`<${Badge} tone=${promoted ? 'accent' : ''}>${promoted ? 'promoted' : 'not promoted'}<//>`}
      <span class="muted">Stages of ${plan.join(', ')} edits${estimate !== null && state === 'running' ? `; a stage takes about ${minutes(estimate)}` : ''}</span></div>
    ${
      progress !== null &&
      html`<div class="stack"><${Bar} share=${share} label=${at} />
      <p class="small">${at}${progress.seconds_left === null ? '' : `, ${minutes(progress.seconds_left)} left`}</p></div>`
    }
    ${fault !== null && html`<div class="notice bad"><strong>${fault.message}</strong><p>${fault.change}</p></div>`}
    ${notes.map((/** @type {string} */ note) => html`<p key=${note} class="muted small">${note}</p>`)}</section>`
}

/** @param {{stage: any}} props */
function Stage({ stage }) {
  const { edits, rank, bytes, seconds, measures, failures, ok } = stage
  return html`<section class="stack"><h2>${edits} edits ${ok !== null && html`<${Badge} tone=${ok ? 'good' : 'bad'}>${ok ? 'passed' : 'failed'}<//>`}</h2>
    <p class="muted small">Rank ${rank}, ${(bytes / 1e6).toFixed(2)} MB, made in ${minutes(seconds)}</p>
    ${
      measures.length > 0 &&
      html`<div class="table-wrap" tabindex="0" role="region" aria-label="Measures with ${edits} edits"><table class="table"><thead><tr>
      <th>Measure</th><th>Protocol</th><th class="num">Asked</th><th class="num">Base</th><th class="num">Prompt</th>
      <th class="num">Adapter</th><th class="num">95 %</th><th>0 to 100 %</th><th class="num">At least</th><th>Verdict</th></tr></thead>
      <tbody>${measures.map(
        (
          /** @type {any} */ one,
        ) => html`<tr key=${`${one.name} ${one.protocol}`}><td>${one.name}</td><td>${one.protocol}</td><td class="num">${one.asked}</td>
        <td class="num">${figure(one.base)}</td><td class="num">${figure(one.prompt)}</td><td class="num">${figure(one.value)}</td>
        <td class="num">${one.low === null ? '' : `${figure(one.low).replace(' %', '')}–${figure(one.high)}`}</td><td><${Strip} measure=${one} /></td><td class="num">${figure(one.least)}</td>
        <td>${one.least !== null && html`<${Badge} tone=${!one.decided ? '' : one.ok ? 'good' : 'bad'}>${!one.decided ? 'open' : one.ok ? 'holds' : 'broken'}<//>`}</td></tr>`,
      )}</tbody></table></div><${Legend} />
      <p class="muted small">Prompt: the edits as the gateway puts them into prompts, in chats alone. The line is the adapter’s 95 % interval, the upright the least.</p>`
    }
    ${
      failures.length > 0 &&
      html`<details class="more"><summary>Answers that failed (${failures.length})</summary><ul>${failures.map(
        (/** @type {any} */ one) =>
          html`<li class="wrap"><strong>${one.question}</strong> expected ${one.expected}, got “${one.answer}” (${one.measure})</li>`,
      )}</ul></details>`
    }</section>`
}
