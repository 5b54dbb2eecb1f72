// @ts-check
// An edit by form, new or revised: one box for a sentence; the fields of a fact and of a rule unfold. What it would contradict is shown first.

import { faultsOf, Outcome } from '../playground/new-edit.js'
import { json } from '../shell/api.js'
import { Check } from '../shell/form.js'
import { kindOf, Statement } from '../shell/statement.js'
import { ErrorNote, Field, PageHead, toast } from '../shell/ui.js'
import { html, useEffect, useRef, useState } from '../vendor/preact.js'
import { carried, EXAMPLES, editOf, FIRST, fieldsOf, ofKind, RARE, TAGS, valuesOf, WORDINGS } from './fields.js'

/** A pause in typing that is long enough to rehearse the landing. */
const TYPING_MS = 600

/** @typedef {import('../shell/statement.js').Kind} Kind */

/** @type {readonly Kind[]} */
const KINDS = ['sentence', 'fact', 'rule']
/** What the links under the box say. @type {Record<Kind, string>} */
const UNFOLD = { sentence: 'Write it as one sentence', fact: 'Give it as a question and its answer', rule: 'Make it a rule' }

/**
 * `revise`: id of the edit that is to be said anew; `example`: a message that needs the new one.
 * @param {{revise: string | null, example?: string}} props
 */
export function EditForm({ revise, example = '' }) {
  const [kind, setKind] = useState(/** @type {Kind} */ ('sentence'))
  const [values, setValues] = useState(/** @type {Record<string, string>} */ ({ examples: example }))
  const [ready, setReady] = useState(revise === null)
  const [error, setError] = useState(/** @type {any} */ (null))
  const [checked, setChecked] = useState(/** @type {{said: string, landing: any} | null} */ (null))
  const [busy, setBusy] = useState(false)
  const load = () => {
    if (revise === null) return
    setError(null)
    json(`/v1/edits/${encodeURIComponent(revise)}`).then((edit) => {
      setKind(kindOf(edit))
      setValues(valuesOf(edit))
      setReady(true)
    }, setError)
  }
  useEffect(load, [revise])
  const edit = editOf(values, kind, revise)
  const said = JSON.stringify(edit)
  const now = useRef(said)
  now.current = said
  const complete = FIRST[kind].every(({ name }) => edit[name] !== '')
  const first = useRef(/** @type {HTMLElement | null} */ (null))
  /** @param {Kind} next */
  const unfold = (next) => {
    setValues(carried(values, kind, next))
    setKind(next)
    setError(null)
    // What is still missing comes next.
    setTimeout(() => {
      const inputs = [...(first.current?.querySelectorAll('textarea, input.input') ?? [])]
      const blank = inputs.find((one) => /** @type {HTMLInputElement} */ (one).value === '') ?? inputs[0]
      if (blank instanceof HTMLElement) blank.focus()
    })
  }

  /** Rehearses what stands in the form. @returns {Promise<any>} the landing, or null where it was refused */
  const rehearse = async () => {
    setError(null)
    try {
      const landing = await json('/v1/edits?source=console&dry_run=true', { body: edit })
      if (now.current !== said) return null
      setChecked({ said, landing })
      return landing
    } catch (thrown) {
      if (now.current === said) setError(thrown)
      return null
    }
  }
  useEffect(() => {
    if (!complete || !ready) return
    const timer = setTimeout(rehearse, TYPING_MS)
    return () => clearTimeout(timer)
  }, [said, ready])

  const fresh = checked?.said === said ? checked.landing : null
  /** What speaks against it is seen first; the second time it lands. */
  const submit = async () => {
    setBusy(true)
    const shown = fresh !== null
    const landing = shown ? fresh : await rehearse()
    if (landing !== null && (shown || isClean(landing))) {
      try {
        const { version, results } = await json('/v1/edits?source=console', { body: edit })
        toast(`Version ${version} of the memory: from the next request on, the model is told.`, 'good')
        location.hash = `#/edits/${encodeURIComponent(results[0].id)}`
      } catch (thrown) {
        setError(thrown)
      }
    } else if (landing === null) document.querySelector('[aria-invalid="true"]')?.scrollIntoView({ block: 'center' })
    setBusy(false)
  }
  const faults = faultsOf(
    error,
    fieldsOf(kind).map(({ name }) => name),
  )
  /** @param {string} name @param {string} value */
  const set = (name, value) => setValues((all) => ({ ...all, [name]: value }))
  /** @param {import('./fields.js').FieldOf} field */
  const input = ({ name, label, hint, many, needed, rows }) =>
    html`<${Field} key=${name} id="edit-${name}" label=${label} hint=${hint} fault=${faults.of[name]}>${(
      /** @type {object} */ attributes,
    ) => {
      const common = {
        ...attributes,
        class: 'input',
        value: values[name] ?? '',
        'aria-required': needed ? 'true' : undefined,
        onInput: (/** @type {any} */ event) => set(name, event.target.value),
      }
      return many === 'lines' || rows !== undefined
        ? html`<textarea rows=${rows ?? 3} ...${common}></textarea>`
        : html`<input autocomplete="off" ...${common} />`
    }}<//>`

  const rare = ofKind(RARE, kind)
  const title = revise === null ? 'New edit' : 'Revise an edit'
  if (!ready)
    return html`<${PageHead} title=${title} /><${ErrorNote} error=${error} retry=${load} />${error === null && html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`}`
  return html`
    <p class="small"><a href="#/edits">All edits</a></p>
    <${PageHead} title=${title} about=${
      revise === null
        ? 'From the next request on, the model goes by it.'
        : html`The revision before stays in its history. <code class="wrap">${revise}</code>`
    } />
    <form class="edit-form" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault()
      submit()
    }}>
      <div class="card">
        <div class="stack first" ref=${first}>${FIRST[kind].map((field) =>
          field.name !== 'when'
            ? input(field)
            : html`${values.always !== 'true' && input(field)}<${Check} key="always" id="edit-always" label="Always"
                hint="It holds for every message." checked=${values.always === 'true'} onValue=${(/** @type {boolean} */ on) => set('always', on ? 'true' : '')} />`,
        )}</div>
        <div class="row unfold">${KINDS.filter((one) => one !== kind).map(
          (one) => html`<button type="button" class="link" key=${one} onClick=${() => unfold(one)}>${UNFOLD[one]}</button>`,
        )}</div>
        ${ofKind(WORDINGS, kind).map(input)}
        <div class="grid-2">${EXAMPLES.map(input)}</div>
        ${TAGS.map(input)}
        <details class="more" open=${rare.some(({ name }) => values[name] || faults.of[name])}><summary>Source, validity, models</summary>
          <div class="grid-2">${rare.map(input)}</div></details>
      </div>
      <div class="stack preview">
        <section class="card" aria-label="Preview"><h2>As it will be told</h2><${Preview} edit=${edit} kind=${kind} /></section>
        ${fresh && html`<${Outcome} landing=${fresh} />`}
        <${ErrorNote} error=${faults.rest} />
        <div class="row"><button class="button primary" disabled=${busy}>${fresh && !isClean(fresh) ? 'Land it all the same' : revise === null ? 'Add the edit' : 'Land the revision'}</button>
          ${busy && html`<span class="spinner" role="status" aria-label="Working"></span>`}</div>
        ${fresh === null && complete && !error && html`<p class="small muted">It is compared with what the memory holds.</p>`}
      </div>
    </form>`
}

/** Nothing is contradicted, replaced or doubtful. @param {any} landing */
function isClean({ results: [result], report }) {
  return result.outcome !== 'unchanged' && result.supersedes.length + result.conflicts_with.length + report.findings.length === 0
}

/** What is missing yet, by kind. @type {Record<Kind, string>} */
const MISSING = {
  sentence: 'Write a sentence.',
  fact: 'Write a prompt and its answer.',
  rule: 'Say when it applies, and what to do then.',
}

/** @param {{edit: any, kind: Kind}} props */
function Preview({ edit, kind }) {
  if (FIRST[kind].every(({ name, needed }) => !needed || !edit[name])) return html`<p class="muted">${MISSING[kind]}</p>`
  if (kind !== 'fact') return html`<p class="statement wrap"><${Statement} edit=${edit} /></p>`
  const { subject = '', target_new: target } = edit
  const prompt = edit.prompt.replace('{}', () => subject || '{}')
  const at = subject === '' ? -1 : prompt.toLowerCase().indexOf(subject.toLowerCase())
  return html`<p class="statement wrap">${
    at === -1
      ? prompt
      : html`${prompt.slice(0, at)}<mark>${prompt.slice(at, at + subject.length)}</mark>${prompt.slice(at + subject.length)}`
  } <strong>${target}</strong></p>
    ${
      subject !== '' &&
      at === -1 &&
      prompt !== '' &&
      html`<p class="small muted">The prompt does not name the subject “${subject}”. If it is about something else, change one of the two.</p>`
    }`
}
