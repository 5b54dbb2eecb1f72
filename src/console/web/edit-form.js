// @ts-check
// An edit by form: new, or another revision of one that is there. What it would contradict is shown before it lands.
import { json } from './api.js'
import { faultsOf, Outcome } from './new-edit.js'
import { ErrorNote, Field, PageHead, toast } from './ui.js'
import { html, useEffect, useRef, useState } from './vendor/preact.js'

/** A pause in typing that is long enough to rehearse the landing. */
const TYPING_MS = 600

/** `many`: how a list is written. @type {readonly {name: string, label: string, hint: string, many?: 'lines' | 'commas', needed?: boolean}[]} */
const FIELDS = [
  {
    name: 'prompt',
    label: 'Prompt',
    hint: 'A question, or a statement without its end: “The capital of France is”. {} stands for the subject.',
    needed: true,
  },
  { name: 'subject', label: 'Subject', hint: 'What it is about. A question finds the edit by this name.', needed: true },
  { name: 'target_new', label: 'Answer', hint: 'What the model is to say from now on.', needed: true },
  { name: 'aliases', label: 'Other names of the subject', hint: 'One to a line.', many: 'lines' },
  {
    name: 'paraphrases',
    label: 'Other wordings of the prompt',
    hint: 'One to a line. They make it found more surely.',
    many: 'lines',
  },
  { name: 'tags', label: 'Tags', hint: 'With commas between.', many: 'commas' },
  { name: 'source', label: 'Source', hint: 'Where you have it from: a link, a ticket, a file.' },
  { name: 'valid_from', label: 'Valid from', hint: '2026-01-31, or 2026-01-31T12:00Z. Blank: at once.' },
  { name: 'valid_to', label: 'Valid to', hint: 'That moment excluded. Blank: until further notice.' },
  {
    name: 'models',
    label: 'Only for models',
    hint: 'Names with commas between; * stands for anything. Blank: all.',
    many: 'commas',
  },
  { name: 'relation', label: 'Relation', hint: 'A label such as “capital”. Blank: read from the prompt.' },
  { name: 'target_true', label: 'Answer before', hint: 'What was true until now; kept for evaluation.' },
]
const NAMES = FIELDS.map(({ name }) => name)
const FIRST = FIELDS.slice(0, 3)
const WORDINGS = FIELDS.slice(3, 5)
const ABOUT = FIELDS.slice(5, 9)
const RARE = FIELDS.slice(9)

/** @param {Record<string, string>} values @param {string | null} id */
function editOf(values, id) {
  /** @type {Record<string, unknown>} */
  const edit = id === null ? {} : { id }
  for (const { name, many, needed } of FIELDS) {
    const value = (values[name] ?? '').trim()
    if (value === '' && !needed) continue
    edit[name] = many
      ? value
          .split(many === 'lines' ? '\n' : ',')
          .map((one) => one.trim())
          .filter(Boolean)
      : value
  }
  return edit
}

/** @param {any} edit @returns {Record<string, string>} */
function valuesOf(edit) {
  return Object.fromEntries(
    FIELDS.map(({ name, many }) => [name, many ? (edit[name] ?? []).join(many === 'lines' ? '\n' : ', ') : (edit[name] ?? '')]),
  )
}

/** `revise`: id of the edit that is to be said anew. @param {{revise: string | null}} props */
export function EditForm({ revise }) {
  const [values, setValues] = useState(/** @type {Record<string, string>} */ ({}))
  const [ready, setReady] = useState(revise === null)
  const [error, setError] = useState(/** @type {any} */ (null))
  const [checked, setChecked] = useState(/** @type {{said: string, landing: any} | null} */ (null))
  const [busy, setBusy] = useState(false)
  const load = () => {
    if (revise === null) return
    setError(null)
    json(`/v1/edits/${encodeURIComponent(revise)}`).then((edit) => {
      setValues(valuesOf(edit))
      setReady(true)
    }, setError)
  }
  useEffect(load, [revise])
  const edit = editOf(values, revise)
  const said = JSON.stringify(edit)
  const now = useRef(said)
  now.current = said
  const complete = FIRST.every(({ name }) => edit[name] !== '')

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
  const faults = faultsOf(error, NAMES)
  /** @param {(typeof FIELDS)[number]} field */
  const input = ({ name, label, hint, many, needed }) =>
    html`<${Field} key=${name} id="edit-${name}" label=${label} hint=${hint} fault=${faults.of[name]}>${(
      /** @type {object} */ attributes,
    ) => {
      const common = {
        ...attributes,
        class: 'input',
        value: values[name] ?? '',
        'aria-required': needed ? 'true' : undefined,
        onInput: (/** @type {any} */ event) => setValues((all) => ({ ...all, [name]: event.target.value })),
      }
      return many === 'lines'
        ? html`<textarea rows="3" ...${common}></textarea>`
        : html`<input autocomplete="off" ...${common} />`
    }}<//>`

  const title = revise === null ? 'New edit' : 'Revise an edit'
  if (!ready)
    return html`<${PageHead} title=${title} /><${ErrorNote} error=${error} retry=${load} />${error === null && html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`}`
  return html`
    <p class="small"><a href="#/edits">All edits</a></p>
    <${PageHead} title=${title} about=${
      revise === null
        ? 'One statement that the model is to know from the next request on.'
        : html`The revision before stays in its history. <code class="wrap">${revise}</code>`
    } />
    <form class="edit-form" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault()
      submit()
    }}>
      <div class="card">${FIRST.map(input)}
        <div class="grid-2">${WORDINGS.map(input)}</div>
        <div class="grid-2">${ABOUT.map(input)}</div>
        <details class="more" open=${RARE.some(({ name }) => values[name] || faults.of[name])}><summary>Rarely needed</summary><div class="stack">${RARE.map(input)}</div></details>
      </div>
      <div class="stack preview">
        <section class="card" aria-label="Preview"><h2>As it will be told</h2><${Preview} values=${values} /></section>
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

/** @param {{values: Record<string, string>}} props */
function Preview({ values }) {
  const subject = (values.subject ?? '').trim()
  const prompt = (values.prompt ?? '').trim().replace('{}', () => subject || '{}')
  const target = (values.target_new ?? '').trim()
  if (prompt === '' && target === '') return html`<p class="muted">Write a prompt and its answer.</p>`
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
      html`<p class="small muted">The prompt does not name the subject.
      A question that names “${subject}” still finds the edit; if the prompt is about something else, change one of the two.</p>`
    }`
}
