// @ts-check
// One edit: what it says, whether it applies, how it came to be so, and what can be done with it.
import { json } from '../shell/api.js'
import { questionOf, Statement, shortened, statementOf } from '../shell/statement.js'
import { EditLink, Empty, ErrorNote, PageHead, toast } from '../shell/ui.js'
import { html, useEffect, useState } from '../vendor/preact.js'
import { moment, Rows, StateBadge } from './parts.js'
import { wordDiff } from './text-diff.js'

/** Fields as a reader meets them; lists are told one to a line. @type {readonly (readonly [name: string, label: string])[]} */
const FIELDS = [
  ['text', 'Sentence'],
  ['always', 'When'],
  ['when', 'When'],
  ['instruction', 'What to do'],
  ['prompt', 'Prompt'],
  ['target_new', 'Answer'],
  ['subject', 'Subject'],
  ['aliases', 'Other names'],
  ['paraphrases', 'Other wordings'],
  ['examples', 'Needed by'],
  ['counterexamples', 'Not needed by'],
  ['target_true', 'Answer before'],
  ['relation', 'Relation'],
  ['tags', 'Tags'],
  ['models', 'For models'],
  ['valid_from', 'Valid from'],
  ['valid_to', 'Valid to'],
  ['source', 'Source'],
]
const SHOWN_KIN = 20

/** @param {{id: string}} props */
export function EditDetail({ id }) {
  const [edit, setEdit] = useState(/** @type {any} */ (null))
  const [error, setError] = useState(/** @type {any} */ (null))
  const [busy, setBusy] = useState(false)
  const path = `/v1/edits/${encodeURIComponent(id)}`
  const load = () => {
    setError(null)
    json(path).then(setEdit, setError)
  }
  useEffect(load, [id])
  /** @param {'withdraw' | 'restore'} how */
  const change = async (how) => {
    setBusy(true)
    setError(null)
    try {
      setEdit(await json(`${path}/${how}`, { method: 'POST' }))
      toast(how === 'withdraw' ? 'Withdrawn: from the next request on it is not told.' : 'Restored.', 'good')
    } catch (thrown) {
      setError(thrown)
    }
    setBusy(false)
  }
  if (error?.status === 404)
    return html`<${PageHead} title="No such edit" /><${Empty} title="There is no edit “${id.slice(0, 80)}”">
      <p>It may belong to another tenant, or the address is cut short.</p><a class="button" href="#/edits">All edits</a><//>`
  if (edit === null)
    return html`<${PageHead} title="Edit" /><${ErrorNote} error=${error} retry=${load} />${error === null && html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`}`
  const question = questionOf(edit) ?? ''
  return html`
    <p class="small"><a href="#/edits">All edits</a></p>
    <${PageHead} title=${shortened(statementOf(edit))} about=${html`<code class="wrap">${edit.id}</code>`}>
      <a class="button primary" href="#/playground${question && `?${new URLSearchParams({ ask: question })}`}">Try it in the Playground</a>
      <a class="button" href="#/edits?${new URLSearchParams({ view: 'new', revise: edit.id })}">Revise</a>
      ${
        edit.state === 'withdrawn'
          ? html`<button type="button" class="button" disabled=${busy} onClick=${() => change('restore')}>Restore</button>`
          : html`<button type="button" class="button danger" disabled=${busy} onClick=${() => change('withdraw')}>Withdraw</button>`
      }<//>
    <${ErrorNote} error=${error} />
    <div class="grid-2 top">
      <section class="card" aria-label="Content"><div class="card-head"><h2>Content</h2><${StateBadge} state=${edit.state} /></div>
        <${WhyNot} edit=${edit} />
        <dl class="facts">${FIELDS.filter(([name]) => text(edit, name) !== '').map(
          ([name, label]) =>
            html`<div key=${name}><dt>${label}</dt><dd class="wrap"><${Value} edit=${edit} name=${name} /></dd></div>`,
        )}
          <div><dt>Batch</dt><dd class="wrap"><a href="#/edits?${new URLSearchParams({ batch: edit.batch })}">${edit.batch}</a></dd></div></dl></section>
      <section class="card" aria-label="History"><div class="card-head"><h2>History</h2>
        <span class="muted small">${edit.history.length === 1 ? 'one change' : `${edit.history.length} changes`}</span></div>
        <${History} history=${edit.history} /></section>
    </div>
    <${Kin} edit=${edit} />`
}

/** @param {any} edit @param {string} name */
function text(edit, name) {
  if (name === 'always') return edit?.always ? 'always' : ''
  return [edit?.[name] ?? ''].flat().join('\n')
}

/** @param {{edit: any, name: string}} props */
function Value({ edit, name }) {
  const value = edit[name]
  if (name === 'tags')
    return value.map(
      (/** @type {string} */ tag) => html`<a key=${tag} class="badge" href="#/edits?${new URLSearchParams({ tag })}">${tag}</a> `,
    )
  if (Array.isArray(value)) return html`<ul class="plain">${value.map((one) => html`<li key=${one}>${one}</li>`)}</ul>`
  return name.startsWith('valid_') ? html`<time datetime=${value}>${moment(value)}</time>` : text(edit, name)
}

/** Why the edit does not apply, where it does not. @param {{edit: any}} props */
function WhyNot({ edit }) {
  switch (edit.state) {
    case 'superseded':
      return html`<div class="notice warn"><p>A later edit says something else of the same: <${EditLink} id=${edit.superseded_by} /></p></div>`
    case 'withdrawn':
      return html`<div class="notice bad"><p>It was taken back and is not told to the model. Restore it to have it told again.</p></div>`
    case 'not_yet_valid':
      return html`<div class="notice"><p>It will be told from ${edit.valid_from ? moment(edit.valid_from) : 'its beginning'} on.</p></div>`
    case 'expired':
      return html`<div class="notice"><p>It was told until ${edit.valid_to ? moment(edit.valid_to) : 'its end'}.</p></div>`
    default:
      return null
  }
}

/** Latest first; a revision with what it changed. @param {{history: any[]}} props */
function History({ history }) {
  /** @type {any} */
  let before = null
  const told = history.map((record) => {
    const past = record.edit ? before : null
    if (record.edit) before = record.edit
    return { record, past }
  })
  return html`<ol class="revisions">${told.reverse().map(
    ({ record, past }) => html`<li key=${record.version}>
      <div class="row spread"><strong>${verb(record, past)}</strong><span class="muted small">version ${record.version}</span></div>
      <p class="small muted"><time datetime=${record.at}>${moment(record.at)}</time>${
        record.kind === 'add' &&
        html` · <a class="wrap" href="#/edits?${new URLSearchParams({ batch: record.batch })}">batch ${record.batch}</a>`
      }</p>
      ${record.edit && past && html`<${Changes} before=${past} after=${record.edit} />`}
      ${record.edit && !past && html`<p class="wrap"><${Statement} edit=${record.edit} /></p>`}</li>`,
  )}</ol>`
}

/** @param {any} record @param {any} past */
function verb({ kind }, past) {
  if (kind === 'add') return past ? 'Revised' : 'Landed'
  return kind === 'withdraw' ? 'Withdrawn' : 'Restored'
}

/** @param {{before: any, after: any}} props */
function Changes({ before, after }) {
  const changed = FIELDS.filter(([name]) => text(before, name) !== text(after, name))
  return html`<dl class="facts">${changed.map(
    ([name, label]) =>
      html`<div key=${name}><dt>${label}</dt><dd class="wrap diff">${wordDiff(text(before, name), text(after, name)).map(
        ({ kind, text: words }, i) =>
          kind === 'same' ? words : kind === 'gone' ? html`<del key=${i}>${words}</del>` : html`<ins key=${i}>${words}</ins>`,
      )}</dd></div>`,
  )}</dl>`
}

/** Other edits about the same, where it names what it is about. @param {{edit: any}} props */
function Kin({ edit }) {
  const [kin, setKin] = useState(/** @type {any[]} */ ([]))
  useEffect(() => {
    if (!edit.subject) return
    const wanted = new URLSearchParams({ subject: edit.subject, limit: String(SHOWN_KIN + 1) })
    json(`/v1/edits?${wanted}`).then(
      ({ data }) => setKin(data.filter((/** @type {any} */ { id }) => id !== edit.id).slice(0, SHOWN_KIN)),
      () => {},
    )
  }, [edit.id, edit.version, edit.state])
  if (kin.length === 0) return null
  return html`<section class="stack" aria-label="Others about the same"><h2>Others about ${edit.subject}</h2><${Rows} edits=${kin} /></section>`
}
