// @ts-check
// How many users an effect takes to be seen, asked of the gateway as one types.
import { json } from '../shell/api.js'
import { given, Input, numberOf, Select } from '../shell/form.js'
import { messageOf } from '../shell/ui.js'
import { html, useEffect, useState } from '../vendor/preact.js'

const KINDS = /** @type {const} */ ([
  ['share', 'a share, such as target shown'],
  ['paired', 'a share, over replayed prompts'],
  ['mean', 'a mean, such as a score'],
])
/** Fields of each kind: name on the wire, label, what to begin with. */
const FIELDS = /** @type {Record<string, readonly (readonly [name: string, label: string, usual: string])[]>} */ ({
  share: [
    ['base', 'In the first arm', '0.2'],
    ['other', 'In the other, as hoped', '0.3'],
  ],
  paired: [
    ['gained', 'Right only with the other arm', '0.15'],
    ['lost', 'Right only with the first', '0.03'],
  ],
  mean: [
    ['difference', 'Difference hoped for', '0.2'],
    ['deviation', 'Standard deviation', '1'],
  ],
})
const SETTLE_MS = 250

/** @param {{alpha: string, onUse: (units: number) => void}} props */
export function Power({ alpha, onUse }) {
  const [kind, setKind] = useState('share')
  const [values, setValues] = useState(/** @type {Record<string, string>} */ ({}))
  const [power, setPower] = useState('0.8')
  const [plan, setPlan] = useState(/** @type {any} */ (null))
  const [fault, setFault] = useState('')
  const fields = FIELDS[kind] ?? []
  const typed = fields.map(([name, , usual]) => values[name] ?? usual)
  useEffect(() => {
    let on = true
    const ask = async () => {
      const effect = Object.fromEntries(fields.map(([name], i) => [name, numberOf(typed[i])]))
      try {
        const answer = await json('/v1/experiments/plan', {
          body: given({ ...effect, alpha: numberOf(alpha), power: numberOf(power) }),
        })
        if (on) setPlan(answer)
        if (on) setFault('')
      } catch (thrown) {
        if (on) setFault(messageOf(thrown))
      }
    }
    const timer = setTimeout(ask, SETTLE_MS)
    return () => {
      on = false
      clearTimeout(timer)
    }
  }, [kind, typed.join(' '), alpha, power])
  const many = kind === 'paired' ? 'prompts' : 'users'
  const count = (/** @type {number | null} */ n) => (n === null ? 'no number of' : n.toLocaleString('en'))
  return html`<div class="power"><div class="grid-4">
      <${Select} id="power-kind" label="To see" value=${kind} onValue=${setKind} choices=${KINDS} />
      ${fields.map(
        ([name, label], i) =>
          html`<${Input} key=${name} id="power-${name}" label=${label} value=${typed[i] ?? ''} inputmode="decimal"
        onValue=${(/** @type {string} */ value) => setValues({ ...values, [name]: value })} />`,
      )}
      <${Input} id="power-power" label="Chance to see it (power)" value=${power} onValue=${setPower} inputmode="decimal" /></div>
    <div class="row spread" role="status" aria-live="polite">
      ${
        fault
          ? html`<p class="fault">${fault}</p>`
          : plan &&
            html`<p><strong>${count(plan.looks_at_will)} ${many}</strong> if you look whenever you like, ${count(plan.one_look)} for a single look at the end.</p>
        ${
          plan.looks_at_will !== null &&
          kind !== 'paired' &&
          html`<button type="button" class="button small" onClick=${() => onUse(Math.max(20, plan.looks_at_will))}>Plan ${count(plan.looks_at_will)} ${many}</button>`
        }`
      }</div></div>`
}
