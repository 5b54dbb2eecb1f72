// @ts-check
// The arms of a new experiment; the first is the one that the others are compared with.
import { given, Input, listOf, numberOf, Select } from '../shell/form.js'
import { Icon } from '../shell/ui.js'
import { html } from '../vendor/preact.js'
import { percent } from './text.js'

/** @typedef {Record<string, string>} Values */

const KINDS = /** @type {const} */ ([
  ['base', 'Base: without edits'],
  ['edited', 'Edited'],
  ['adapter', 'Through an adapter'],
  ['model', 'Another model'],
])
const MOST_ARMS = 8

/** An arm as the gateway reads it. @param {Values} arm */
export function toArm({ name = '', weight, kind, template, threshold, tags, without, model, edits, adapter }) {
  const common = { name: name.trim(), weight: numberOf(weight) }
  if (kind === 'base') return given({ ...common, edits: 'off' })
  if (kind === 'adapter') return given({ ...common, adapter })
  if (kind === 'model') return given({ ...common, model: model?.trim(), edits: edits ?? 'on' })
  const what = {
    template: template || undefined,
    threshold: numberOf(threshold),
    tags: listOf(tags),
    without_batches: listOf(without),
  }
  return given({ ...common, edits: 'on', ...what })
}

/** @param {{arms: Values[], setArms: (arms: Values[]) => void, known: {templates: string[], models: string[], batches: string[], adapters: string[]}, faults: Record<string, string>}} props */
export function Arms({ arms, setArms, known, faults }) {
  const whole = arms.reduce((sum, { weight }) => sum + (Number(weight) || 0), 0)
  const add = () => setArms([...arms, { name: `arm-${arms.length + 1}`, weight: '50', kind: 'edited' }])
  return html`<section class="card"><div class="card-head"><h2>Arms</h2>
      <button type="button" class="button small" onClick=${add} disabled=${arms.length >= MOST_ARMS}><${Icon} name="plus" />Add an arm</button></div>
    <p class="muted small">The first arm is the one that the others are compared with.</p>
    <datalist id="known-batches">${known.batches.map((id) => html`<option key=${id} value=${id} />`)}</datalist>
    <datalist id="known-models">${known.models.map((id) => html`<option key=${id} value=${id} />`)}</datalist>
    ${arms.map((arm, at) => {
      const change = (/** @type {string} */ name) => (/** @type {string} */ value) =>
        setArms(arms.map((one, i) => (i === at ? { ...one, [name]: value } : one)))
      const field = (/** @type {string} */ name, /** @type {string} */ wire = name) => ({
        id: `arm-${at}-${name}`,
        value: arm[name] ?? '',
        onValue: change(name),
        fault: faults[`arms[${at}].${wire}`] ?? faults[`arms.${at}.${wire}`],
      })
      const of = whole > 0 ? percent((Number(arm.weight) || 0) / whole) : ''
      return html`<fieldset class="arm" key=${at}><legend>Arm ${at + 1}${at === 0 ? ', compared with' : ''}</legend>
        <div class="grid-3"><${Input} ...${field('name')} label="Name" />
          <${Input} ...${field('weight')} label="Weight" hint=${of && `${of} of the users`} inputmode="decimal" />
          <${Select} ...${field('kind')} label="Answers" choices=${KINDS} /></div>
        ${
          arm.kind === 'edited' &&
          html`<details class="more"><summary>Another template, threshold, tags or batches</summary><div class="grid-2">
          <${Select} ...${field('template')} label="Template" choices=${[['', 'as configured'], ...known.templates.map((name) => [name, name])]} />
          <${Input} ...${field('threshold')} label="Threshold of the gate" hint="0 to 1; empty: as calibrated." inputmode="decimal" />
          <${Input} ...${field('tags')} label="Only edits with one of these tags" hint="Separated by commas." />
          <${Input} ...${field('without', 'without_batches')} label="Without these batches" hint="As though they had never landed." list="known-batches" /></div></details>`
        }
        ${
          arm.kind === 'adapter' &&
          html`<${Select} ...${field('adapter')} label="Adapter" hint="With the edits that it does not hold. Made by a hand-off."
            choices=${[['', known.adapters.length === 0 ? 'there is none yet' : 'choose one'], ...known.adapters.map((id) => [id, id])]} />`
        }
        ${
          arm.kind === 'model' &&
          html`<div class="grid-2"><${Input} ...${field('model')} label="Model" hint="Served by this gateway." list="known-models" />
          <${Select} ...${field('edits')} label="Edits" choices=${[['on', 'on'], ['off', 'off']]} /></div>`
        }
        ${
          arms.length > 2 &&
          html`<div><button type="button" class="button small danger" onClick=${() => setArms(arms.filter((_, i) => i !== at))}>Remove arm ${at + 1}</button></div>`
        }</fieldset>`
    })}
    ${faults.arms && html`<p class="notice bad" role="alert">${faults.arms}</p>`}</section>`
}
