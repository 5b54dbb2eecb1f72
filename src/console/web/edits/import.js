// @ts-check
// A file of edits, or pasted text: looked at and rehearsed first, landed whole or not at all, taken back with one click.
import { ApiError, lines, request } from '../shell/api.js'
import { Input } from '../shell/form.js'
import { ErrorNote, Field, Icon, messageOf, PageHead } from '../shell/ui.js'
import { html, useEffect, useRef, useState } from '../vendor/preact.js'
import { changeBatch } from './batches.js'
import { ImportReport } from './import-report.js'
import { isRecords, sentenceLines } from './sentences.js'

/** @type {Record<string, string>} */
const MEDIA_TYPES = {
  json: 'application/json',
  jsonl: 'application/x-ndjson',
  ndjson: 'application/x-ndjson',
  yaml: 'application/yaml',
  yml: 'application/yaml',
  csv: 'text/csv',
}
/** Its notation is then told from the text. */
const UNKNOWN_TYPE = 'application/octet-stream'
/** As the gateway reads them. */
const FORMATS = ['palimpsest', 'easyedit', 'counterfact', 'zsre', 'knowedit', 'mquake', 'wikifactdiff', 'conflictedit']

/**
 * @typedef {{name: string, content: Blob, sentences?: boolean}} Chosen `sentences`: its lines were made into edits here
 * @typedef {{phase: 'idle'} | {phase: 'checking' | 'landing', done: number, total: number} | {phase: 'checked' | 'landed', landing: any} | {phase: 'refused', error: unknown}} State
 */

/** What pasted text is called. */
const PASTED = 'pasted text'

/** Text without a notation's ending: records as they are, anything else a sentence a line. @param {string} name @param {string} text @returns {Chosen} */
function fromText(name, text) {
  return isRecords(text)
    ? { name, content: new Blob([text]) }
    : { name, content: new Blob([sentenceLines(text)]), sentences: true }
}

/**
 * Posts the file; `onLine` gets the progress lines, the last line is the result.
 * @param {Chosen} file @param {{dry: boolean, tags: string, format: string, signal: AbortSignal}} how @param {(line: any) => void} onLine
 */
async function post({ name, content, sentences }, { dry, tags, format, signal }, onLine) {
  const query = new URLSearchParams({
    source: name.slice(0, 2_048),
    format,
    ...(tags.trim() && { tags }),
    ...(dry && { dry_run: 'true' }),
  })
  const ending = name.split('.').at(-1)?.toLowerCase() ?? ''
  const headers = {
    Accept: 'application/x-ndjson',
    'Content-Type': (sentences ? MEDIA_TYPES.jsonl : MEDIA_TYPES[ending]) ?? UNKNOWN_TYPE,
  }
  const response = await request(`/v1/edits?${query}`, { method: 'POST', body: content, headers, signal })
  for await (const line of lines(response)) {
    const value = JSON.parse(line)
    if (value.object === 'edit.batch') return value
    onLine(value)
  }
  throw new ApiError(0, {
    message: 'The gateway went away before it had said what it did. Import again: what has landed does not land twice.',
  })
}

export function Import() {
  const [file, setFile] = useState(/** @type {Chosen | null} */ (null))
  const [state, setState] = useState(/** @type {State} */ ({ phase: 'idle' }))
  const [tags, setTags] = useState('')
  const [format, setFormat] = useState('auto')
  const [pasted, setPasted] = useState('')
  const running = useRef(/** @type {AbortController | null} */ (null))
  useEffect(() => () => running.current?.abort(), [])

  /** @param {boolean} dry @param {Chosen} chosen @param {string} [as] */
  const send = async (dry, chosen, as = format) => {
    running.current?.abort()
    const controller = new AbortController()
    running.current = controller
    const phase = dry ? 'checking' : 'landing'
    setState({ phase, done: 0, total: 0 })
    try {
      const landing = await post(chosen, { dry, tags, format: as, signal: controller.signal }, ({ checked, indexed, total }) => {
        if (!controller.signal.aborted) setState({ phase, done: checked ?? indexed, total })
      })
      if (!controller.signal.aborted) setState({ phase: dry ? 'checked' : 'landed', landing })
    } catch (error) {
      if (!controller.signal.aborted) setState({ phase: 'refused', error })
    }
  }
  /** @param {FileList | null | undefined} files */
  const take = async (files) => {
    const picked = files?.[0]
    if (picked === undefined) return
    try {
      // Held in memory, so that what is checked is what lands.
      const chosen = /\.(?:txt|text)$/i.test(picked.name)
        ? fromText(picked.name, new TextDecoder('utf-8', { fatal: true }).decode(await picked.arrayBuffer()))
        : { name: picked.name, content: new Blob([await picked.arrayBuffer()]) }
      setFile(chosen)
      send(true, chosen)
    } catch (error) {
      setState({ phase: 'refused', error: new Error(`${picked.name} cannot be read: ${messageOf(error)}`) })
    }
  }
  const paste = () => {
    const chosen = fromText(PASTED, pasted)
    setFile(chosen)
    send(true, chosen)
  }
  const reset = () => {
    running.current?.abort()
    setFile(null)
    setState({ phase: 'idle' })
  }
  return html`
    <p class="small"><a href="#/edits">All edits</a></p>
    <${PageHead} title="Import edits" about="It is read and rehearsed first. All of it lands, or nothing.">
      ${state.phase !== 'idle' && state.phase !== 'landing' && html`<button type="button" class="button" onClick=${reset}>${file?.name === PASTED ? 'Change the text' : 'Another file'}</button>`}<//>
    ${
      state.phase === 'idle' &&
      html`<div class="grid-2"><${DropZone} onFiles=${take} />
        <form class="card" onSubmit=${(/** @type {Event} */ event) => {
          event.preventDefault()
          if (pasted.trim() !== '') paste()
        }}><${Input} id="import-text" label="Or paste here" hint="One sentence a line, or any of the notations that a file may have." rows=${7}
          value=${pasted} onValue=${setPasted} />
          <div><button class="button" disabled=${pasted.trim() === ''}>Check the text</button></div></form></div>`
    }
    ${
      (state.phase === 'idle' || state.phase === 'checked' || state.phase === 'refused') &&
      html`<div class="card"><div class="grid-2">
        <${Field} id="import-tags" label="Tags for every edit" hint="Optional, with commas between.">${(
          /** @type {object} */ attributes,
        ) =>
          html`<input class="input" autocomplete="off" ...${attributes} value=${tags} onInput=${(/** @type {any} */ event) => setTags(event.target.value)}
            onChange=${() => file && send(true, file)} />`}<//>
        <${Field} id="import-format" label="Format of the records" hint="Told from their fields, unless you say.">${(
          /** @type {object} */ attributes,
        ) =>
          html`<select class="input" ...${attributes} value=${format} disabled=${file?.sentences === true} onChange=${(
            /** @type {any} */ event,
          ) => {
            setFormat(event.target.value)
            if (file) send(true, file, event.target.value)
          }}><option value="auto">recognise it</option>${FORMATS.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>`}<//>
      </div></div>`
    }
    ${
      (state.phase === 'checking' || state.phase === 'landing') &&
      html`<${Progress} state=${state} name=${file?.name ?? ''} onCancel=${state.phase === 'checking' ? reset : null} />`
    }
    ${state.phase === 'refused' && html`<${Refused} error=${state.error} name=${file?.name ?? 'The file'} />`}
    ${
      state.phase === 'checked' &&
      file &&
      html`<${ImportReport} landing=${state.landing} name=${file.name} tags=${tags} format=${format} sentences=${file.sentences === true}
        checkable=${file.name !== PASTED && !file.sentences} onLand=${() => send(false, file)} />`
    }
    ${state.phase === 'landed' && html`<${Landed} landing=${state.landing} name=${file?.name ?? ''} />`}`
}

/** @param {{onFiles: (files: FileList | null | undefined) => void}} props */
function DropZone({ onFiles }) {
  const [over, setOver] = useState(false)
  const input = useRef(/** @type {HTMLInputElement | null} */ (null))
  const holds = (/** @type {DragEvent} */ event) => {
    event.preventDefault()
    setOver(true)
  }
  return html`<div class="drop ${over ? 'over' : ''}" onDragEnter=${holds} onDragOver=${holds} onDragLeave=${() => setOver(false)} onDrop=${(
    /** @type {DragEvent} */ event,
  ) => {
    event.preventDefault()
    setOver(false)
    onFiles(event.dataTransfer?.files)
  }}>
    <${Icon} name="upload" />
    <p><strong>Drop a file here</strong></p>
    <button type="button" class="button primary" onClick=${() => input.current?.click()}>Choose a file</button>
    <input class="visually-hidden" type="file" ref=${input} tabindex="-1" aria-label="File of edits" accept=".txt,.json,.jsonl,.ndjson,.yaml,.yml,.csv"
      onChange=${(/** @type {any} */ event) => onFiles(event.target.files)} />
    <p class="small muted">Text with one sentence a line; JSON, JSON lines, YAML or CSV: our own fields, or records of CounterFact, zsRE, KnowEdit, MQuAKE, WikiFactDiff,
      ConflictEdit and EasyEdit.</p></div>`
}

/** @param {{state: {phase: string, done: number, total: number}, name: string, onCancel: (() => void) | null}} props */
function Progress({ state: { phase, done, total }, name, onCancel }) {
  const what = phase === 'checking' ? `Checking ${name}` : `Landing ${name}`
  const detail = phase === 'checking' ? 'wordings compared' : 'edits indexed'
  return html`<section class="card" aria-label="Progress"><div class="row spread"><p role="status"><strong>${what}</strong></p>
      ${onCancel && html`<button type="button" class="button small" onClick=${onCancel}>Cancel</button>`}</div>
    <progress aria-label=${what} ...${total > 0 ? { value: done, max: total } : {}}></progress>
    <p class="small muted num">${total > 0 ? `${done.toLocaleString('en')} of ${total.toLocaleString('en')} ${detail}` : 'Reading'}${
      phase === 'landing' && total > 0 ? '. The edits are live already; you may leave this page.' : ''
    }</p></section>`
}

/** Every fault by line and field. @param {{error: unknown, name: string}} props */
function Refused({ error, name }) {
  const problems = error instanceof ApiError ? error.problems : []
  const said = new Error(messageOf(error).replace(/^The batch/, name))
  if (problems.length === 0) return html`<${ErrorNote} error=${said} />`
  return html`<div class="notice bad" role="alert"><strong>Nothing was imported</strong><p>${said.message}</p></div>
    <div class="table-wrap" tabindex="0" role="region" aria-label="Faults"><table class="table"><thead><tr>
      <th scope="col" class="num">Line</th><th scope="col">Field</th><th scope="col">What is wrong</th></tr></thead><tbody>${problems.map(
        ({ line, field, message }, i) =>
          html`<tr key=${i}><td class="num">${line ?? '–'}</td><td>${field ? html`<code class="wrap">${field}</code>` : '–'}</td><td class="wrap">${message}</td></tr>`,
      )}</tbody></table></div>
    <p class="small muted">${name === PASTED ? 'Change the text and check it again.' : `Mend ${name} and choose it again.`}</p>`
}

/** @param {{landing: any, name: string}} props */
function Landed({ landing, name }) {
  const [state, setState] = useState(/** @type {'live' | 'withdrawn' | 'busy'} */ ('live'))
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const { id, counts, replayed, version } = landing
  const changed = counts.added + counts.revised + counts.restored
  /** @param {'withdraw' | 'restore'} how */
  const change = async (how) => {
    const before = state
    setState('busy')
    setError(null)
    try {
      await changeBatch(id, how)
      setState(how === 'withdraw' ? 'withdrawn' : 'live')
    } catch (thrown) {
      setError(thrown)
      setState(before)
    }
  }
  const supersededText = counts.superseded > 0 ? `, ${counts.superseded.toLocaleString('en')} older ones superseded` : ''
  const told = replayed
    ? 'This very file had landed before; nothing changed.'
    : changed === 0
      ? 'The memory held all of it already; nothing changed.'
      : `${changed.toLocaleString('en')} of ${counts.edits.toLocaleString('en')} edits are new, revised or restored${supersededText}. Version ${version} of the memory.`
  return html`<div class="notice ${state === 'withdrawn' ? 'warn' : 'good'}" role="status"><strong>${
    state === 'withdrawn' ? `${name} is rolled back` : replayed || changed === 0 ? `${name}: nothing new` : `${name} has landed`
  }</strong><p>${state === 'withdrawn' ? 'None of its edits is told to the model any more.' : told}</p></div>
    <${ErrorNote} error=${error} />
    <div class="row"><a class="button primary" href="#/edits?${new URLSearchParams({ batch: id })}">See its edits</a>
      ${
        state === 'withdrawn'
          ? html`<button type="button" class="button" onClick=${() => change('restore')}>Restore</button>`
          : changed > 0 &&
            html`<button type="button" class="button danger" disabled=${state === 'busy'} onClick=${() => change('withdraw')}><${Icon} name="undo" />Undo the import</button>`
      }</div>`
}
