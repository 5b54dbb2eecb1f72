// @ts-check
// From a wrong answer to an edit: the question is its prompt, the subject is guessed, the target is yours. What an edit's landing did.

import { findingSaid } from '../edits/findings.js'
import { json } from '../shell/api.js'
import { Dialog, EditLink, ErrorNote, Field, toast } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'

const ASKING = new Set(
  'who what where when which why how is are was were does did do can in on the a an of by for name tell me please many much first last his her its their he she it they and'.split(
    ' ',
  ),
)

/** What a question is probably about: what is quoted, else its longest run of capitalised words, else what follows "of", else its end. @param {string} question */
export function guessSubject(question) {
  const text = question.trim().replace(/[?!.]+$/, '')
  const quoted = /["“”«»]([^"“”«»]+)["“”«»]/.exec(text)?.[1]
  if (quoted) return quoted
  const words = text.split(/\s+/)
  const bare = (/** @type {string} */ word) => word.replace(/['’]s$/, '').replace(/[,;:]+$/, '')
  /** @type {string[][]} */
  const runs = [[]]
  for (const word of words) {
    const named = /^[\p{Lu}\d]/u.test(word) && !ASKING.has(word.toLowerCase())
    if (named) runs.at(-1)?.push(bare(word))
    if (!named || bare(word) !== word) runs.push([])
  }
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), [])
  if (longest.length > 0) return longest.join(' ')
  const of = /\bof (?:the |an? )?(.+)$/i.exec(text)?.[1]
  if (of) return of
  return words
    .filter((word) => !ASKING.has(word.toLowerCase()))
    .map(bare)
    .slice(-3)
    .join(' ')
}

/** `subjects`: of edits that fired, for a question that names none. @param {{question: string, subjects: string[], onClose: () => void, onAgain: () => void}} props */
export function NewEdit({ question, subjects, onClose, onAgain }) {
  const [values, setValues] = useState(
    /** @type {Record<string, string>} */ ({
      prompt: question,
      subject: guessSubject(question) || (subjects.at(-1) ?? ''),
      target_new: '',
      aliases: '',
    }),
  )
  const [error, setError] = useState(/** @type {any} */ (null))
  const [checked, setChecked] = useState(/** @type {any} */ (null))
  const [landed, setLanded] = useState(/** @type {any} */ (null))
  const [busy, setBusy] = useState(false)
  const faults = faultsOf(error, FIELDS)
  const edit = () => {
    const aliases = (values.aliases ?? '')
      .split(',')
      .map((one) => one.trim())
      .filter(Boolean)
    const { prompt, subject, target_new } = values
    return { ...(subject?.trim() && { subject }), prompt, target_new, ...(aliases.length > 0 && { aliases }) }
  }
  /** @param {boolean} dry */
  const send = async (dry) => {
    setBusy(true)
    setError(null)
    setChecked(null)
    try {
      const answer = await json(`/v1/edits?source=console${dry ? '&dry_run=true' : ''}`, { body: edit() })
      if (dry) setChecked(answer)
      else setLanded(answer)
    } catch (thrown) {
      setError(thrown)
    }
    setBusy(false)
  }
  const undo = async () => {
    try {
      await json(`/v1/edits/${encodeURIComponent(landed.results[0].id)}/withdraw`, { method: 'POST' })
      toast('The edit is withdrawn.', 'good')
      onClose()
    } catch (thrown) {
      setError(thrown)
    }
  }
  if (landed)
    return html`<${Dialog} title="The edit is live" onClose=${onClose}><${Outcome} landing=${landed} /><${ErrorNote} error=${error} />
      <div class="row"><button type="button" class="button primary" onClick=${onAgain}>Ask again</button>
      <a class="button" href="#/edits/${encodeURIComponent(landed.results[0].id)}">See the edit</a>
      <button type="button" class="button danger" onClick=${undo}>Undo</button></div><//>`
  /** @param {string} name @param {string} label @param {string} hint @param {boolean} [first] */
  const input = (name, label, hint, first = false) =>
    html`<${Field} id="edit-${name}" label=${label} hint=${hint} fault=${faults.of[name]}>${(/** @type {object} */ attributes) =>
      html`<input class="input" autocomplete="off" data-focus=${first} ...${attributes} value=${values[name]}
        onInput=${(/** @type {any} */ event) => setValues({ ...values, [name]: event.target.value })} />`}<//>`
  return html`<${Dialog} title="New edit" onClose=${onClose}>
    <form onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault()
      send(false)
    }}>
      ${input('prompt', 'Prompt', 'A question, or a statement without its end.')}
      ${input('subject', 'Subject', 'Optional: the name of what it is about, guessed from the question.')}
      ${input('target_new', 'The right answer', 'What the model is to say from now on.', true)}
      ${input('aliases', 'Other names of the subject', 'Optional, separated by commas.')}
      <${ErrorNote} error=${faults.rest} />
      ${checked && html`<${Outcome} landing=${checked} />`}
      <div class="row"><button class="button primary" disabled=${busy}>Add the edit</button>
        <button type="button" class="button" disabled=${busy} onClick=${() => send(true)}>Check first</button>
        ${busy && html`<span class="spinner" role="status" aria-label="Working"></span>`}</div>
      <p class="small"><a href="#/edits?${new URLSearchParams({ view: 'new', example: question })}">Write a sentence or a rule instead</a></p>
    </form><//>`
}

const FIELDS = ['prompt', 'subject', 'target_new', 'aliases']

/** An error's faults by field, and what no field can show. @param {any} error @param {readonly string[]} fields */
export function faultsOf(error, fields) {
  /** @type {Record<string, string>} */
  const of = {}
  const problems = error?.problems ?? []
  for (const { field, message } of problems) {
    const name = fields.find((one) => field === one || field?.startsWith(`${one}.`) || field?.startsWith(`${one}[`))
    if (name !== undefined) of[name] ??= message
  }
  return { of, rest: problems.length > 0 && problems.length === Object.keys(of).length ? null : error }
}

/** What the landing of one edit did or would do. @param {{landing: any}} props */
export function Outcome({ landing }) {
  const [result] = landing.results
  const { supersedes, conflicts_with: conflicts, duplicate_of: duplicate, outcome } = result
  const findings = landing.report?.findings ?? []
  const would = landing.dry_run
  const clean = supersedes.length + conflicts.length + findings.length === 0 && !duplicate && outcome === 'added'
  return html`<div class="notice ${clean || !would ? 'good' : 'warn'}" role="status">
    <strong>${would ? (clean ? 'Nothing speaks against it' : 'Before it lands') : `Version ${landing.version} of the memory`}</strong>
    <ul class="plain">
      ${outcome === 'unchanged' && html`<li>The memory ${would ? 'holds' : 'held'} this very edit already.</li>`}
      ${outcome === 'restored' && html`<li>It was withdrawn, and ${would ? 'would be' : 'is'} live again.</li>`}
      ${outcome === 'revised' && html`<li>It revises an edit of the same id.</li>`}
      ${duplicate && html`<li>It says the same as <${EditLink} id=${duplicate} />.</li>`}
      ${supersedes.map((/** @type {string} */ id) => html`<li key=${id}>It ${would ? 'would take' : 'takes'} the place of <${EditLink} id=${id} />.</li>`)}
      ${conflicts.map((/** @type {string} */ id) => html`<li key=${id}>It contradicts <${EditLink} id=${id} />.</li>`)}
      ${findings.map((/** @type {any} */ one) => html`<li key=${one.kind + one.message}>${findingSaid(one)}</li>`)}
      ${!would && clean && html`<li>From the next request on, the model is told.</li>`}
    </ul></div>`
}
