// @ts-check
// An experiment by form. What the gateway refuses is shown at its field.
import { json } from '../shell/api.js'
import { Check, given, Input, listOf, numberOf, Select } from '../shell/form.js'
import { ErrorNote, PageHead, toast } from '../shell/ui.js'
import { html, useEffect, useState } from '../vendor/preact.js'
import { Arms, toArm } from './arms-form.js'
import { Power } from './power.js'
import { METRICS } from './text.js'

/** @typedef {Record<string, string>} Values */

const UNITS = /** @type {const} */ ([
  ['user', 'User (the “user” field of a request)'],
  ['key', 'API key'],
  ['conversation', 'Conversation'],
  ['header', 'A header'],
])

/** Guardrails, each with a limit worth beginning with. */
export const GUARDRAILS = /** @type {const} */ ([
  ['error', 'More errors', 'Share of answers, 0.02: two in a hundred more than the first arm', '0.02'],
  ['negative_feedback', 'More negative feedback', 'Share of answers', '0.05'],
  ['refusal', 'More refusals', 'Share of answers', '0.05'],
  ['latency', 'Slower', 'Times the first arm’s latency: 2 is twice as slow', '2'],
  ['collateral', 'Changed without the target', 'Share of answers that an edit changed though its target does not show', ''],
])

export function NewExperiment() {
  const [values, setValues] = useState(
    /** @type {Values} */ ({
      id: '',
      unit: 'user',
      header: 'X-User',
      tags: '',
      models: '',
      planned: '2000',
      alpha: '0.05',
      coverage: '',
      more: '',
    }),
  )
  const [arms, setArms] = useState(
    /** @type {Values[]} */ ([
      { name: 'base', weight: '50', kind: 'base' },
      { name: 'edited', weight: '50', kind: 'edited' },
    ]),
  )
  const [metrics, setMetrics] = useState(['target_shown', 'negative_feedback', 'refusal', 'latency_ms'])
  const [guards, setGuards] = useState(/** @type {Values} */ ({}))
  const [keep, setKeep] = useState(false)
  const [error, setError] = useState(/** @type {any} */ (null))
  const [busy, setBusy] = useState(false)
  const known = useKnown()
  const faults = faultsOf(error)
  const set = (/** @type {string} */ name) => (/** @type {string} */ value) => setValues({ ...values, [name]: value })
  const field = (/** @type {string} */ name) => ({
    id: `new-${name}`,
    value: values[name] ?? '',
    onValue: set(name),
    fault: faults[name],
  })
  const start = async () => {
    setBusy(true)
    setError(null)
    try {
      const made = await json('/v1/experiments', { body: bodyOf({ values, arms, metrics, guards, keep }) })
      toast(`${made.id} runs.`, 'good')
      location.hash = `#/experiments/${encodeURIComponent(made.id)}`
    } catch (thrown) {
      setError(thrown)
      setBusy(false)
    }
  }
  return html`<${PageHead} title="New experiment" about="Users are split between arms, stay in theirs, and count only where the arms would answer differently." />
    <form class="stack form" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault()
      start()
    }}>
      <section class="card"><h2>Name</h2><${Input} ...${field('id')} label="Name" hint="1 to 64 letters, digits, dots, dashes or underscores." maxlength="64" /></section>
      <${Arms} arms=${arms} setArms=${setArms} known=${known} faults=${faults} />
      <section class="card"><h2>Who takes part</h2><div class="grid-2">
        <${Select} ...${field('unit')} label="What stays in one arm" choices=${UNITS} hint="The unit that is compared. Requests that do not say it take no part." />
        ${values.unit === 'header' && html`<${Input} ...${field('header')} label="Header" hint="Such as X-User." />`}
        <${Input} ...${field('tags')} label="Only requests with one of these tags" hint="Optional, separated by commas." />
        <${Input} ...${field('models')} label="Only requests to these models" hint="Optional, separated by commas." />
        <${Input} ...${field('coverage')} label="Share of the users that take part" hint="0 to 1; empty: all." inputmode="decimal" /></div></section>
      <section class="card"><fieldset class="plain-set"><legend><h2>What is compared</h2></legend><div class="checks">
        ${Object.entries(METRICS).map(
          ([name, { name: label, about }]) => html`<${Check} key=${name} id="metric-${name}" label=${label} hint=${about}
          checked=${metrics.includes(name)} onValue=${(/** @type {boolean} */ on) => setMetrics(on ? [...metrics, name] : metrics.filter((one) => one !== name))} />`,
        )}</div></fieldset>
        <${Input} ...${field('more')} label="Of the feedback" hint=${html`Optional: <code>label:NAME</code> or <code>number:NAME</code>, separated by commas.`} fault=${faults.metrics} /></section>
      <section class="card"><h2>Guardrails</h2><p class="muted small">The experiment stops by itself when an arm breaks one. Empty: not watched.</p><div class="grid-2">
        ${GUARDRAILS.map(
          ([
            name,
            label,
            hint,
            usual,
          ]) => html`<${Input} key=${name} id="guard-${name}" label=${label} hint=${hint} fault=${faults[`guardrails.${name}`]}
          inputmode="decimal" placeholder=${usual} value=${guards[name] ?? ''} onValue=${(/** @type {string} */ value) => setGuards({ ...guards, [name]: value })} />`,
        )}</div></section>
      <section class="card"><h2>How many users</h2>
        <${Power} alpha=${values.alpha ?? ''} onUse=${(/** @type {number} */ n) => set('planned')(String(n))} />
        <div class="grid-2">
        <${Input} ...${field('planned')} label="Planned users" inputmode="numeric" fault=${faults.planned_units}
          hint="Of all arms together. Intervals are tightest there; you may decide earlier or later." />
        <${Input} ...${field('alpha')} label="False alarms allowed (alpha)" hint="0.05: one in twenty." inputmode="decimal" /></div>
        <${Check} id="keep" label="Keep the prompts of exposures" hint="So that they can be replayed by both arms. Off: no words are kept." checked=${keep} onValue=${setKeep} /></section>
      <${ErrorNote} error=${error} />
      <div class="row"><button class="button primary" disabled=${busy}>Start the experiment</button><a class="button" href="#/experiments">Cancel</a>
        ${busy && html`<span class="spinner" role="status" aria-label="Working"></span>`}</div>
    </form>`
}

/** Templates, models and batches that arms may name. */
export function useKnown() {
  const [known, setKnown] = useState({
    templates: /** @type {string[]} */ ([]),
    models: /** @type {string[]} */ ([]),
    batches: /** @type {string[]} */ ([]),
    adapters: /** @type {string[]} */ ([]),
  })
  useEffect(() => {
    const ask = async () => {
      const [health, batches, models] = await Promise.all([json('/health'), json('/v1/batches?limit=100'), json('/v1/models')])
      setKnown({
        templates: health.templates.names,
        models: [health.model.name],
        batches: batches.data.map((/** @type {any} */ { id }) => id),
        adapters: models.data.flatMap((/** @type {any} */ { palimpsest }) => palimpsest?.adapter ?? []),
      })
    }
    // Names may still be typed where they cannot be listed.
    ask().catch(() => {})
  }, [])
  return known
}

/** Faults by field, the first of each. @param {any} error @returns {Record<string, string>} */
export function faultsOf(error) {
  /** @type {Record<string, string>} */
  const faults = {}
  const said = error?.problems?.length > 0 ? error.problems : error?.param ? [{ field: error.param, message: error.message }] : []
  for (const { field, message } of said) if (field) faults[field] ??= message
  return faults
}

/** @param {{values: Values, arms: Values[], metrics: string[], guards: Values, keep: boolean}} form */
function bodyOf({ values, arms, metrics, guards, keep }) {
  const audience = given({ tags: listOf(values.tags), models: listOf(values.models) })
  const limits = given(Object.fromEntries(Object.entries(guards).map(([name, value]) => [name, numberOf(value)])))
  return given({
    id: (values.id ?? '').trim(),
    arms: arms.map(toArm),
    unit: values.unit === 'header' ? `header:${values.header}` : values.unit,
    audience: Object.keys(audience).length > 0 ? audience : undefined,
    coverage: numberOf(values.coverage),
    metrics: [...metrics, ...(listOf(values.more) ?? [])],
    guardrails: Object.keys(limits).length > 0 ? limits : undefined,
    planned_units: numberOf(values.planned),
    alpha: numberOf(values.alpha),
    log_prompts: keep || undefined,
  })
}
