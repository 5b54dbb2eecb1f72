// @ts-check
// A batch on its way to everyone, by form.
import { json } from '../shell/api.js'
import { given, Input, numberOf } from '../shell/form.js'
import { ErrorNote, PageHead, toast } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'
import { faultsOf, GUARDRAILS, useKnown } from './new-experiment.js'

/** As the gateway has them where nothing is said. */
const USUAL = { error: '0.02', negative_feedback: '0.05', refusal: '0.05', latency: '2', collateral: '0.3', locality: '0.98' }
const STAGES = '0:10, 1:20, 10:50, 50:100'

/** "0:10, 1:20": per cent of the users, and exposures before the next stage. @param {string} text */
function stagesOf(text) {
  return text
    .split(',')
    .map((one) => one.trim())
    .filter(Boolean)
    .map((one) => {
      const [share = '', least] = one.split(':')
      const typed = numberOf(share.replace('%', ''))
      return given({ share: typeof typed === 'number' ? typed / 100 : typed, least: numberOf(least) })
    })
}

/** @param {{batch: string}} props */
export function NewRollout({ batch }) {
  const [values, setValues] = useState(
    /** @type {Record<string, string>} */ ({ ...USUAL, batch, id: '', stages: STAGES, prompts: '' }),
  )
  const [error, setError] = useState(/** @type {any} */ (null))
  const [busy, setBusy] = useState(false)
  const { batches } = useKnown()
  const faults = faultsOf(error)
  const field = (/** @type {string} */ name, /** @type {string} */ wire = name) => ({
    id: `rollout-${name}`,
    value: values[name] ?? '',
    fault: faults[wire],
    onValue: (/** @type {string} */ value) => setValues({ ...values, [name]: value }),
  })
  const start = async () => {
    setBusy(true)
    setError(null)
    const prompts = (values.prompts ?? '')
      .split('\n')
      .map((one) => one.trim())
      .filter(Boolean)
    const guardrails = given(Object.fromEntries(Object.keys(USUAL).map((name) => [name, numberOf(values[name])])))
    const body = given({
      id: values.id?.trim() || undefined,
      batch: (values.batch ?? '').trim(),
      stages: stagesOf(values.stages ?? ''),
      guardrails,
      locality_prompts: prompts.length > 0 ? prompts : undefined,
    })
    try {
      const made = await json('/v1/rollouts', { body })
      toast(`The rollout of ${made.batch} has begun.`, 'good')
      location.hash = `#/experiments/${encodeURIComponent(made.id)}`
    } catch (thrown) {
      setError(thrown)
      setBusy(false)
    }
  }
  return html`<${PageHead} title="New rollout" about="A batch goes from stage to stage by itself while its guardrails hold, and back at once when one breaks." />
    <form class="stack form" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault()
      start()
    }}>
      <section class="card"><h2>Batch</h2><datalist id="known-batches">${batches.map((id) => html`<option key=${id} value=${id} />`)}</datalist>
        <div class="grid-2"><${Input} ...${field('batch')} label="Batch" list="known-batches"
          hint="One that is there is held back from now on. One that is still to be imported is best named here first: nobody sees it before its stage." />
        <${Input} ...${field('id')} label="Name" hint="Optional; else it is named after its batch." /></div></section>
      <section class="card"><h2>Stages</h2><${Input} ...${field('stages')} label="Stages"
        hint="Per cent of the users : exposures before the next stage. 0 is the shadow: both ways of answering are tried in the background, nobody sees it." /></section>
      <section class="card"><h2>Guardrails</h2><p class="muted small">When one breaks, the batch is withdrawn at once. Empty: not watched.</p><div class="grid-2">
        <${Input} ...${field('locality', 'guardrails.locality')} label="Unrelated prompts answered the same" hint="At least this share; these are counted, not sampled." inputmode="decimal" />
        ${GUARDRAILS.map(
          ([name, label, hint]) =>
            html`<${Input} key=${name} ...${field(name, `guardrails.${name}`)} label=${label} hint=${hint} inputmode="decimal" />`,
        )}</div></section>
      <section class="card"><h2>Prompts that the batch is not about</h2><${Input} ...${field('prompts', 'locality_prompts')} label="Prompts" rows=${4}
        hint="Optional, one a line: must be answered as before. Some everyday questions and prompts of other edits are asked anyway." /></section>
      <${ErrorNote} error=${error} />
      <div class="row"><button class="button primary" disabled=${busy}>Start the rollout</button><a class="button" href="#/experiments">Cancel</a>
        ${busy && html`<span class="spinner" role="status" aria-label="Working"></span>`}</div>
    </form>`
}
