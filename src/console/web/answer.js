// @ts-check
// One side's answer, and why it is what it is.
import { json } from './api.js'
import { Badge, duration, EditLink, ErrorNote, Icon, StackedBar } from './ui.js'
import { html, useState } from './vendor/preact.js'

/** What the gate's reasons mean. @type {Record<string, string>} */
const REASONS = {
  selected: 'applies',
  requested: 'asked for by id',
  no_subject: 'nothing in the question stands for its subject',
  part_of_longer_name: 'its name is part of a longer one',
  other_relation: 'the subject is meant, but something else is asked of it',
  opposite: 'the opposite is asked',
  below_threshold: 'not certain enough',
  outdated: 'a later edit says otherwise',
  outranked: 'another edit of the subject fits better',
  over_limit: 'more edits applied than one prompt takes',
  budget: 'dropped to fit the context',
}

/** In their order, with a colour each. @type {Record<string, string>} */
const STAGES = { retrieve: 'c3', gate: 'c7', decompose: 'c4', render: 'c6', queue: 'c5', prefill: 'c2', decode: 'c1' }
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
 * @param {{answer: import('./playground.js').AnswerOf, messages: {role: string, content: string}[], template: string, onCorrect: () => void}} props
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
  const statements = new Map(
    trace.turns.flatMap((/** @type {any} */ one) => one.considered.map((/** @type {any} */ c) => [c.id, c.statement])),
  )
  const near = considered.filter((/** @type {any} */ c) => !['selected', 'requested'].includes(c.reason))
  const parts = stageParts(trace.stages_ms)
  return html`<div class="stack why">
    ${
      arm === 'base'
        ? html`<p class="small muted">No edits on this side.</p>`
        : edits.length === 0
          ? html`<p><${Badge}>no edit fired<//> <span class="small muted">The model got what a plain server would give it.</span></p>`
          : html`<div><h3>${edits.length === 1 ? 'The edit that fired' : `${edits.length} edits that fired`}</h3><ul class="fired">${edits.map(
              (/** @type {any} */ { id, subject, score, turn: of }) => html`<li key=${id}>
                <a href="#/edits/${encodeURIComponent(id)}">${statements.get(id) ?? subject}</a>
                <span class="row"><${Badge} tone="accent" title="How likely the question needs this edit">${percent(score)}<//>
                  ${of !== turn && html`<${Badge}>from an earlier turn<//>`}</span></li>`,
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

/** Edits that were considered and do not apply, nearest first. @param {{near: any[]}} props */
function NearMisses({ near }) {
  const [all, setAll] = useState(false)
  const nearest = near.toSorted((a, b) => b.score - a.score || (b.similarity ?? -1) - (a.similarity ?? -1))
  return html`<details class="more"><summary>${near.length === 1 ? 'Near misses: 1 edit' : `Near misses: ${near.length} edits`} considered</summary>
    <ul class="near">${(all ? nearest : nearest.slice(0, NEAREST)).map((one) => html`<${Miss} key=${one.id} ...${one} />`)}</ul>
    ${!all && near.length > NEAREST && html`<button type="button" class="button quiet small" onClick=${() => setAll(true)}>Show all ${near.length}</button>`}
  </details>`
}

/** @param {{id: string, statement: string, score: number, similarity: number | null, reason: string, outdated_by?: string, evidence: Record<string, number>}} props */
function Miss({ id, statement, score, similarity, reason, outdated_by, evidence }) {
  const names = Object.entries(evidence)
  return html`<li><a href="#/edits/${encodeURIComponent(id)}">${statement}</a>
    <p class="small muted"><${Badge} title="How likely the question needs this edit">${percent(score)}<//> ${REASONS[reason] ?? reason}
      ${outdated_by && html`: <${EditLink} id=${outdated_by} />`}${similarity !== null && `, similarity ${similarity.toFixed(2)}`}</p>
    ${
      names.length > 0 &&
      html`<details class="more"><summary>Evidence</summary><dl class="evidence">${names.map(
        ([name, value]) => html`<div key=${name}><dt>${name}</dt>
        <dd class="num">${Number(value.toFixed(4))}</dd></div>`,
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
