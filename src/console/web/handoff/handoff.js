// @ts-check
// Hand-offs: what is advised, a new one, all of them, and one (`#/handoff/ID`).

import { faultsOf } from '../experiments/new-experiment.js'
import { when } from '../experiments/text.js'
import { json } from '../shell/api.js'
import { given, Input, numberOf, Select } from '../shell/form.js'
import { Badge, Empty, ErrorNote, PageHead, toast, usePolling } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'
import { HandoffJob } from './job.js'
import { minutes, TONES } from './text.js'

const POLL_MS = 2_000
const METHODS = /** @type {const} */ ([
  ['memit', 'MEMIT: closed form'],
  ['alphaedit', 'AlphaEdit: closed form, in the null space'],
  ['pmet', 'PMET: closed form'],
  ['lora', 'LoRA, trained on the batch'],
  ['distil', 'Distilled from the prompted model'],
])
const TIMES = /** @type {const} */ ([
  ['later', 'later'],
  ['today', 'today'],
  ['now', 'now'],
])

/** @param {{rest: string}} props */
export function Page({ rest }) {
  return rest === '' ? html`<${All} />` : html`<${HandoffJob} key=${rest} id=${rest} />`
}

function All() {
  const [jobs, setJobs] = useState(/** @type {any[] | null} */ (null))
  const [error, setError] = useState(/** @type {unknown} */ (null))
  usePolling(async () => {
    try {
      setJobs((await json('/v1/handoffs')).data)
      setError(null)
    } catch (thrown) {
      setError(thrown)
    }
  }, POLL_MS)
  return html`<${PageHead} title="Hand-off" about="Edits that have proved themselves, from the prompt into the parameters as an adapter, and back." />
    <${ErrorNote} error=${error} />
    ${jobs !== null && html`<${NewHandoff} />`}
    <section class="stack"><h2>Hand-offs</h2>
    ${jobs?.length === 0 && html`<${Empty} title="No hand-off yet"><p>The base file is never written: undoing one drops its adapter.</p><//>`}
    ${
      jobs !== null &&
      jobs.length > 0 &&
      html`<div class="table-wrap" tabindex="0" role="region" aria-label="Hand-offs"><table class="table"><thead><tr>
        <th>Name</th><th>State</th><th>Method</th><th class="num">Edits</th><th>Since</th></tr></thead>
      <tbody>${jobs.map(
        ({ id, state, method, edits, created }) => html`<tr key=${id}>
        <td class="wrap name"><a href="#/handoff/${encodeURIComponent(id)}">${id}</a></td><td><${Badge} tone=${TONES[state] ?? ''}>${state}<//></td>
        <td>${method}</td><td class="num">${edits.length}</td><td class="num time">${when(created)}</td></tr>`,
      )}</tbody></table></div>`
    }</section>`
}

/** "tag=staff, q=pope", as on the command line; ids otherwise. @param {string} text */
function editsOf(text) {
  const parts = text
    .split(',')
    .map((one) => one.trim())
    .filter(Boolean)
  if (parts.length === 0) return undefined
  if (parts.every((one) => !/^(?:tag|batch|subject|q)=/.test(one))) return parts
  return Object.fromEntries(parts.map((one) => [one.slice(0, one.indexOf('=')), one.slice(one.indexOf('=') + 1)]))
}

function NewHandoff() {
  const [values, setValues] = useState(
    /** @type {Record<string, string>} */ ({ edits: '', when: 'later', method: 'memit', efficacy: '0.9' }),
  )
  const [error, setError] = useState(/** @type {any} */ (null))
  const [advice, setAdvice] = useState(/** @type {any} */ (null))
  const [busy, setBusy] = useState(false)
  const faults = faultsOf(error)
  const field = (/** @type {string} */ name, /** @type {string} */ wire = name) => ({
    id: `handoff-${name}`,
    value: values[name] ?? '',
    fault: faults[wire],
    onValue: (/** @type {string} */ value) => setValues({ ...values, [name]: value }),
  })
  const work = async (/** @type {() => Promise<void>} */ what) => {
    setBusy(true)
    setError(null)
    await what().catch(setError)
    setBusy(false)
  }
  const advise = () =>
    work(async () => {
      const edits = editsOf(values.edits ?? '')
      const query = new URLSearchParams({ when: values.when ?? 'later', ...(Array.isArray(edits) ? {} : edits) })
      const said = await json(`/v1/handoffs/advice?${query}`)
      setAdvice(said)
      if (said.method !== 'prompt') setValues({ ...values, method: said.method })
    })
  const start = () =>
    work(async () => {
      const thresholds = given({ efficacy: numberOf(values.efficacy) })
      const body = given({
        method: values.method,
        edits: editsOf(values.edits ?? ''),
        id: values.id?.trim() || undefined,
        thresholds,
      })
      const { id } = await json('/v1/handoffs', { body })
      toast(`${id} is on its way.`, 'good')
      location.hash = `#/handoff/${encodeURIComponent(id)}`
    })
  return html`<form class="card stack form" aria-label="New hand-off" onSubmit=${(/** @type {Event} */ event) => {
    event.preventDefault()
    start()
  }}><h2>New hand-off</h2>
    <div class="grid-2"><${Input} ...${field('edits')} label="Edits" hint="tag=T, batch=B, subject=S or q=WORDS, or ids; empty: all live ones." />
      <${Select} ...${field('when')} label="They are to hold" choices=${TIMES} />
      <${Select} ...${field('method')} label="Method" choices=${METHODS} />
      <${Input} ...${field('id')} label="Name" hint="Optional." />
      <${Input} ...${field('efficacy', 'thresholds.efficacy')} label="Least efficacy" inputmode="decimal"
        hint="0 to 1. At the first stage below it, all is taken back." /></div>
    ${advice !== null && html`<${Advice} advice=${advice} />`}
    <${ErrorNote} error=${error} />
    <div class="row"><button class="button primary" disabled=${busy}>Start</button>
      <button type="button" class="button" disabled=${busy} onClick=${advise}>What is advised?</button>
      ${busy && html`<span class="spinner" role="status" aria-label="Working"></span>`}</div></form>`
}

/** @param {{advice: any}} props */
function Advice({ advice }) {
  const { method, edits, reasons, basis, unknown, options } = advice
  return html`<div class="notice" role="status"><strong>Advised for ${edits} edits: ${method === 'prompt' ? 'stay in the prompt' : method}</strong>
    <ul>${reasons.map((/** @type {string} */ one) => html`<li key=${one}>${one}</li>`)}</ul></div>
    <details class="more"><summary>What this rests on, and what is not known</summary><ul>
      ${basis.map((/** @type {string} */ one) => html`<li key=${one}>Fitted on: ${one}</li>`)}
      ${unknown.map((/** @type {string} */ one) => html`<li key=${one}>Not known: ${one}</li>`)}</ul></details>
    <div class="table-wrap" tabindex="0" role="region" aria-label="What each way costs"><table class="table"><thead><tr>
      <th>Method</th><th class="num">Time</th><th class="num">Memory</th><th>Known from</th><th>Against it</th></tr></thead>
    <tbody>${options.map(
      (/** @type {any} */ one) => html`<tr key=${one.method}><td>${one.method}</td><td class="num">${minutes(one.seconds)}</td>
      <td class="num">${(one.memoryBytes / 1e9).toFixed(1)} GB</td><td>${one.measured ? 'measured here' : 'a guess'}</td><td class="wrap">${one.against ?? '–'}</td></tr>`,
    )}</tbody></table></div>`
}
