// @ts-check
// One side's answer, and why it is what it is.

import { json } from '../shell/api.js'
import { toldOf } from '../shell/statement.js'
import { Badge, duration, EditLink, ErrorNote, Icon, StackedBar } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'

/**
 * @typedef {'waiting' | 'streaming' | 'done' | 'stopped' | 'failed'} State
 * @typedef {{model: string, text: string, state: State, firstMs?: number, ms?: number, finish?: string, palimpsest?: any, error?: unknown}} AnswerOf
 */

/** What the reasons mean. @type {Record<string, string>} */
const REASONS = {
  selected: 'the message needs it',
  requested: 'asked for by id',
  always: 'holds for every message',
  not_read: 'too far from the message to be read closely',
  below_threshold: 'read, and not likely enough to be needed',
  other_name: 'the message names another subject in full',
  boundless: 'it would apply to any message; declare it as a rule for every message',
  outranked: 'another edit is needed much more clearly',
  text_task: 'the message asks for a title, a summary or a translation of a text',
  counterexample: 'the message is like one that does not need it',
  outdated: 'a later edit says otherwise',
  over_limit: 'more edits applied than one prompt takes',
  in_adapter: 'the message needs it, and the adapter knows it without being told',
  budget: 'left out to fit the context',
}
const TOLD = ['selected', 'requested', 'always']

/** @type {Record<string, string>} */
const EVIDENCE = { reader: 'the reader’s judgement (above 0: for it)', named: 'how its subject is named' }

/** In their order, with a colour each. @type {Record<string, string>} */
const STAGES = { retrieve: 'c3', read: 'c8', gate: 'c7', decompose: 'c4', render: 'c6', queue: 'c5', prefill: 'c2', decode: 'c1' }
/** Near misses shown at once; the others are a click away. */
const NEAREST = 4

/** Stages that took time, with a colour each. @param {Record<string, number>} stages */
export function stageParts(stages) {
  return Object.entries(STAGES).flatMap(([name, tone]) => {
    const value = stages[name]
    return value === undefined ? [] : [{ name, value, tone }]
  })
}

/** @param {number} score a probability */
const percent = (score) => `${(score * 100).toFixed(1)} %`

/**
 * @param {{answer: AnswerOf, messages: {role: string, content: string}[], template: string, onCorrect: () => void}} props
 */
export function Answer({ answer, messages, template, onCorrect }) {
  const { model, text, state, palimpsest, error, ms, firstMs, finish } = answer
  const arm = palimpsest?.arm ?? (model.endsWith('@base') ? 'base' : 'edited')
  const running = state === 'waiting' || state === 'streaming'
  return html`<article class="card answer" aria-label=${arm === 'base' ? 'Base answer' : 'Edited answer'}>
    <div class="card-head"><div class="row"><h2>${arm === 'base' ? 'Base' : 'Edited'}</h2>
      ${palimpsest?.experiment && html`<${Badge}>experiment ${palimpsest.experiment.id}: ${palimpsest.experiment.arm}<//>`}</div>
      <span class="small muted num">${
        running
          ? html`<span class="spinner">
        </span>`
          : state === 'done'
            ? `${duration(firstMs)} to first word, ${duration(ms)} in all`
            : ''
      }</span></div>
    <div class="said wrap" aria-live="polite" aria-busy=${String(running)}>${text || (state === 'waiting' ? html`<span class="muted">Waiting for the first word</span>` : '')}</div>
    ${state === 'stopped' && html`<p><${Badge} tone="warn">stopped<//></p>`}
    ${finish === 'length' && html`<p><${Badge} tone="warn" title="Choose more tokens below and ask again.">cut off at the token limit<//></p>`}
    <${ErrorNote} error=${error} />
    ${palimpsest && html`<${Why} palimpsest=${palimpsest} arm=${arm} model=${model} messages=${messages} template=${template} />`}
    ${
      state !== 'waiting' &&
      html`<div class="row"><button type="button" class="button small" onClick=${onCorrect}>
      <${Icon} name="plus" />Wrong? Make an edit</button></div>`
    }
  </article>`
}

/** @param {{palimpsest: any, arm: string, model: string, messages: object[], template: string}} props */
function Why({ palimpsest, arm, model, messages, template }) {
  const { edits, trace, tokens_added: added } = palimpsest
  const turn = messages.length - 1
  const considered = trace.turns.find((/** @type {any} */ one) => one.turn === turn)?.considered ?? []
  /** What is known of an edit: its own turn says it best. @param {any} fired */
  const known = (fired) => {
    const turns = trace.turns.toSorted(
      (/** @type {any} */ a, /** @type {any} */ b) => +(b.turn === fired.turn) - +(a.turn === fired.turn),
    )
    const found = turns.flatMap((/** @type {any} */ one) => one.considered).find((/** @type {any} */ c) => c.id === fired.id)
    return { ...found, ...fired }
  }
  const fired = new Set(edits.map((/** @type {any} */ { id }) => id))
  const others = considered.filter((/** @type {any} */ c) => !TOLD.includes(c.reason) && !fired.has(c.id))
  const learnt = others.filter((/** @type {any} */ c) => c.reason === 'in_adapter')
  const near = others.filter((/** @type {any} */ c) => c.reason !== 'in_adapter')
  const parts = stageParts(trace.stages_ms)
  return html`<div class="stack why">
    ${
      arm === 'base'
        ? html`<p class="small muted">No edits on this side.</p>`
        : edits.length === 0
          ? html`<p><${Badge}>no edit fired<//> <span class="small muted">The model got what a plain server would give it.</span></p>`
          : html`<div><h3>${edits.length === 1 ? 'The edit that fired' : `${edits.length} edits that fired`}</h3><ul class="fired">${edits.map(
              (/** @type {any} */ one) => html`<${Fired} key=${one.id} one=${known(one)} earlier=${one.turn !== turn} />`,
            )}</ul></div>`
    }
    ${
      arm !== 'base' &&
      learnt.length > 0 &&
      html`<div><h3>Learnt by the adapter</h3><ul class="fired">${learnt.map(
        (/** @type {any} */ one) => html`<${Fired} key=${one.id} one=${one} earlier=${false} />`,
      )}</ul></div>`
    }
    ${arm !== 'base' && near.length > 0 && html`<${NearMisses} near=${near} />`}
    <details class="more"><summary>Time by stage</summary>
      <${StackedBar} parts=${parts} label=${parts.map(({ name, value }) => `${name} ${duration(value)}`).join(', ')} />
      <ul class="legend">${parts.map(
        ({ name, value, tone }) => html`<li key=${name}><span class="key ${tone}">
        </span>${name} <span class="num muted">${duration(value)}</span></li>`,
      )}</ul></details>
    <${ExactPrompt} model=${model} messages=${messages} template=${template} version=${palimpsest.memory_version} />
    <p class="small muted num">${trace.prompt_tokens} prompt tokens, ${trace.cached_tokens} of them from the cache
      ${arm === 'base' ? '' : `, ${added} added by edits`}${palimpsest.template ? `, template ${palimpsest.template}` : ''}</p>
  </div>`
}

/**
 * An edit as a turn considered it.
 * @typedef {{id: string, statement?: string, score?: number | null, similarity?: number | null, reason?: string, key?: string | null,
 *   outdated_by?: string, evidence?: Record<string, unknown> | null}} Considered
 */

/** @param {{score?: number | null | undefined, tone?: '' | 'accent'}} props */
function Score({ score, tone = '' }) {
  if (typeof score !== 'number') return null
  return html`<${Badge} tone=${tone} title="How likely the message needs this edit">${percent(score)}<//>`
}

/** @param {{one: Considered, earlier: boolean}} props */
function Fired({ one, earlier }) {
  return html`<li><a class="wrap" href="#/edits/${encodeURIComponent(one.id)}">${toldOf(one)}</a>
    <span class="row">${one.reason === 'always' ? html`<${Badge} tone="accent">always<//>` : html`<${Score} score=${one.score} tone="accent" />`}
      ${earlier && html`<${Badge}>from an earlier turn<//>`}</span>
    ${one.reason && html`<p class="small muted wrap"><${Reason} one=${one} /></p>`}</li>`
}

/** Why, in plain words, and what of the edit came nearest. @param {{one: Considered}} props */
function Reason({ one: { reason = '', outdated_by: later, similarity, key: nearest } }) {
  return html`${REASONS[reason] ?? reason.replaceAll('_', ' ')}${later && html`: <${EditLink} id=${later} />`}${
    nearest && html`; nearest to it: “${nearest}”`
  }${typeof similarity === 'number' && html`, <span class="num">similarity ${similarity.toFixed(2)}</span>`}`
}

/** Edits that were considered and are not told, the runner-up by name. @param {{near: Considered[]}} props */
function NearMisses({ near }) {
  const [all, setAll] = useState(false)
  const [first, ...others] = near.toSorted(
    (a, b) => (b.score ?? 0) - (a.score ?? 0) || (b.similarity ?? -1) - (a.similarity ?? -1),
  )
  return html`<div><h3>${near.length === 1 ? 'The runner-up, not told' : 'The runner-up'}</h3><ul class="near"><${Miss} one=${first} /></ul></div>
    ${
      others.length > 0 &&
      html`<details class="more"><summary>${others.length === 1 ? 'One more edit was' : `${others.length} more edits were`} considered</summary>
    <ul class="near">${(all ? others : others.slice(0, NEAREST)).map((one) => html`<${Miss} key=${one.id} one=${one} />`)}</ul>
    ${!all && others.length > NEAREST && html`<button type="button" class="button quiet small" onClick=${() => setAll(true)}>Show all ${others.length}</button>`}
  </details>`
    }`
}

/** @param {{one: Considered}} props */
function Miss({ one }) {
  const evidence = Object.entries(one.evidence ?? {})
  return html`<li><a class="wrap" href="#/edits/${encodeURIComponent(one.id)}">${toldOf(one)}</a>
    <p class="small muted wrap"><${Score} score=${one.score} /> <${Reason} one=${one} /></p>
    ${
      evidence.length > 0 &&
      html`<details class="more"><summary>Evidence</summary><dl class="evidence">${evidence.map(
        ([name, value]) => html`<div key=${name}><dt>${EVIDENCE[name] ?? name}</dt>
        <dd class="num">${typeof value === 'number' ? Number(value.toFixed(4)) : String(value ?? '–')}</dd></div>`,
      )}</dl></details>`
    }</li>`
}

/** Fetched when it is opened. @param {{model: string, messages: object[], template: string, version: number}} props */
function ExactPrompt({ model, messages, template, version }) {
  const [found, setFound] = useState(/** @type {{said?: any, error?: unknown}} */ ({}))
  const look = (/** @type {any} */ event) => {
    if (!event.currentTarget.open || found.said) return
    json('/v1/edits/explain', { body: { model, messages, ...(template !== '' && { template }) } }).then(
      (said) => setFound({ said }),
      (error) => setFound({ error }),
    )
  }
  const { said, error } = found
  const shown = model.endsWith('@base') ? said?.base : said?.prompt
  return html`<details class="more" onToggle=${look}><summary>The exact prompt</summary>
    <${ErrorNote} error=${error} />
    ${
      shown
        ? html`<div class="stack">${said.memory_version !== version && html`<p class="notice warn small">The edits have changed since: this is what would be sent now.</p>`}
          <pre class="code" tabindex="0" aria-label="The prompt as the model gets it">${shown.text}</pre>
            <p class="small muted num">${shown.tokens.length} tokens</p></div>`
        : !error && html`<p class="small muted" role="status">Loading</p>`
    }</details>`
}
