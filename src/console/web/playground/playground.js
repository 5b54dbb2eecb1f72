// @ts-check
// One conversation, answered twice and side by side.

import { ApiError, events, json, request } from '../shell/api.js'
import { Empty, ErrorNote, Field, Icon, messageOf, PageHead } from '../shell/ui.js'
import { html, useEffect, useRef, useState } from '../vendor/preact.js'
import { Answer } from './answer.js'
import { NewEdit } from './new-edit.js'

/**
 * @typedef {import('./answer.js').AnswerOf} AnswerOf
 * @typedef {{id: number, question: string, answers: AnswerOf[]}} Turn
 * @typedef {{models: string[], template: string, maxTokens: number}} Settings
 */

let turnIds = 0

/** The conversation outlives a visit to another page. @type {{turns: Turn[], settings: Settings | null}} */
const kept = { turns: [], settings: null }

/** `?ask=…`: a question to begin with. @param {{query: URLSearchParams}} props */
export function Page({ query }) {
  const [served, setServed] = useState(/** @type {{models: string[], templates: string[]} | null} */ (null))
  const [fault, setFault] = useState(/** @type {unknown} */ (null))
  const [settings, setSettings] = useState(kept.settings)
  const [turns, setTurns] = useState(kept.turns)
  const [question, setQuestion] = useState(query.get('ask') ?? '')
  const [correcting, setCorrecting] = useState(/** @type {Turn | null} */ (null))
  const [announced, setAnnounced] = useState('')
  const stopper = useRef(/** @type {AbortController | null} */ (null))
  const eager = useRef(false)
  const box = useRef(/** @type {HTMLTextAreaElement | null} */ (null))
  kept.turns = turns
  kept.settings = settings

  const load = () => {
    setFault(null)
    Promise.all([json('/v1/models'), json('/health')]).then(([list, health]) => {
      const models = list.data.flatMap((/** @type {any} */ one) => armsOf(one))
      setServed({ models, templates: health.templates.names })
      setSettings((now) => now ?? { models: [models[1] ?? models[0], models[0]], template: '', maxTokens: 256 })
    }, setFault)
  }
  useEffect(load, [])
  useEffect(() => () => stopper.current?.abort(), [])

  // The turn that has just been asked, not the one before, is to be seen.
  useEffect(() => document.querySelector('.turn:last-of-type')?.scrollIntoView({ block: 'start' }), [turns.at(-1)?.id])

  const busy = turns.some(({ answers }) => answers.some(({ state }) => state === 'waiting' || state === 'streaming'))

  /** Asks all sides at once; `before` is the conversation so far. @param {string} asked @param {Turn[]} before */
  const ask = async (asked, before) => {
    if (settings === null || asked.trim() === '') return
    const id = ++turnIds
    const controller = new AbortController()
    stopper.current = controller
    const answers = settings.models.map((model) => /** @type {AnswerOf} */ ({ model, text: '', state: 'waiting' }))
    setTurns([...before, { id, question: asked, answers }])
    setAnnounced('Asked.')
    /** @param {number} side @param {Partial<AnswerOf>} change */
    const update = (side, change) =>
      setTurns((all) =>
        all.map((turn) =>
          turn.id === id ? { ...turn, answers: turn.answers.map((one, i) => (i === side ? { ...one, ...change } : one)) } : turn,
        ),
      )
    await Promise.all(
      settings.models.map((model, side) =>
        streamed({ model, messages: messagesOf(before, side, asked), settings, signal: controller.signal }, (change) =>
          update(side, change),
        ),
      ),
    )
    setAnnounced(controller.signal.aborted ? 'Stopped.' : 'Both answers are complete.')
  }
  const send = () => {
    const asked = question
    eager.current = settings === null
    if (settings === null || busy || asked.trim() === '') return
    setQuestion('')
    ask(asked, turns)
  }
  // Whoever presses Enter before the models are known is asked for once they are.
  useEffect(() => {
    if (eager.current) send()
  }, [settings])
  const again = (/** @type {Turn} */ turn) => {
    setCorrecting(null)
    ask(turn.question, turns.slice(0, turns.indexOf(turn)))
  }
  const clear = () => {
    stopper.current?.abort()
    setTurns([])
    box.current?.focus()
  }

  return html`
    <${PageHead} title="Playground" about="Ask once, see what the model says without and with the edits, and why.">
      ${turns.length > 0 && html`<button type="button" class="button" onClick=${clear}>New conversation</button>`}
    <//>
    <${ErrorNote} error=${fault} retry=${load} />
    <p class="visually-hidden" role="status">${announced}</p>
    ${turns.length === 0 && html`<${Start} onPick=${(/** @type {string} */ one) => ask(one, [])} ready=${settings !== null} />`}
    ${turns.map(
      (turn, index) => html`<section class="turn" key=${turn.id} aria-label="Turn ${index + 1}">
        <p class="question wrap"><span class="visually-hidden">You asked: </span>${turn.question}</p>
        <${Verdict} turn=${turn} before=${turns.slice(0, index)} />
        <div class="grid-2">${turn.answers.map(
          (
            answer,
            side,
          ) => html`<${Answer} key=${side} answer=${answer} messages=${messagesOf(turns.slice(0, index), side, turn.question)}
            template=${settings?.template ?? ''} onCorrect=${() => setCorrecting(turn)} />`,
        )}</div>
      </section>`,
    )}
    <form class="composer card" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault()
      send()
    }}>
      <label class="visually-hidden" for="question">Your question</label>
      <textarea class="input" id="question" rows="2" ref=${box} placeholder="Ask something, such as: Who is the pope?" value=${question}
        onInput=${(/** @type {any} */ event) => setQuestion(event.target.value)}
        onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
          event.preventDefault()
          send()
        }}></textarea>
      <div class="row spread">
        <div class="row">${served && settings && html`<${Choices} served=${served} settings=${settings} onChange=${setSettings} />`}</div>
        ${
          busy
            ? html`<button type="button" class="button danger" onClick=${() => stopper.current?.abort()}><${Icon} name="stop" />Stop</button>`
            : html`<button class="button primary" disabled=${settings === null}>Ask</button>`
        }
      </div>
    </form>
    ${correcting && html`<${NewEdit} question=${correcting.question} subjects=${subjectsOf(correcting)} onClose=${() => setCorrecting(null)} onAgain=${() => again(correcting)} />`}`
}

/** What the edits that fired in this turn are about. @param {Turn} turn @returns {string[]} */
function subjectsOf({ answers }) {
  return answers.flatMap(({ palimpsest }) => palimpsest?.edits.flatMap((/** @type {any} */ { subject }) => subject || []) ?? [])
}

/** What a side can be: the arms by name, so that no experiment decides, or else as users get it. @param {any} model @returns {string[]} */
function armsOf({ id, palimpsest }) {
  if (palimpsest.arm === undefined) return []
  return palimpsest.arm === 'edited' ? [`${id}@edited`] : [id]
}

/** The conversation as one side has it, with its own answers. @param {Turn[]} turns @param {number} side @param {string} question */
function messagesOf(turns, side, question) {
  const before = turns.flatMap((turn) => [
    { role: 'user', content: turn.question },
    { role: 'assistant', content: turn.answers[side]?.text ?? '' },
  ])
  return [...before, { role: 'user', content: question }]
}

/**
 * @param {{model: string, messages: object[], settings: Settings, signal: AbortSignal}} asked
 * @param {(change: Partial<AnswerOf>) => void} update
 */
async function streamed({ model, messages, settings, signal }, update) {
  const started = performance.now()
  const { template, maxTokens } = settings
  let text = ''
  /** @type {number | undefined} */
  let firstMs
  try {
    const palimpsest = { explain: true, ...(template !== '' && { template }) }
    const body = { model, messages, stream: true, max_tokens: maxTokens, palimpsest }
    for await (const chunk of events(await request('/v1/chat/completions', { body, signal }))) {
      const choice = chunk.choices[0]
      if (choice?.delta?.content) {
        firstMs ??= performance.now() - started
        text += choice.delta.content
        update({ text, firstMs, state: 'streaming' })
      }
      if (choice?.finish_reason)
        update({
          text,
          state: 'done',
          ms: performance.now() - started,
          finish: choice.finish_reason,
          palimpsest: chunk.palimpsest,
        })
    }
  } catch (error) {
    if (signal.aborted) return update({ state: 'stopped', ms: performance.now() - started })
    update({ state: 'failed', error: error instanceof ApiError ? error : new Error(`The answer broke off: ${messageOf(error)}`) })
  }
}

/** Whether the sides say the same; and where both were given the same and still differ, why that can be. @param {{turn: Turn, before: Turn[]}} props */
function Verdict({ turn, before }) {
  const { answers, question } = turn
  if (answers.length < 2 || answers.some(({ state }) => state !== 'done')) return null
  const differs = (/** @type {string[]} */ [first, ...others]) => others.some((one) => one !== first)
  if (!differs(answers.map(({ text }) => text))) return html`<p class="small muted">Both sides say the same, to the letter.</p>`
  const told = answers.some(({ model, palimpsest }) => model.includes('@adapter') || palimpsest?.edits.length !== 0)
  const given = answers.map((_, side) => JSON.stringify(messagesOf(before, side, question)))
  if (told || differs(given) || differs(answers.map(({ model }) => model.split('@')[0] ?? '')))
    return html`<p class="small muted">The two answers differ.</p>`
  return html`<p class="small muted">The two answers differ, though no edit fired and both prompts are the same: the engine answered them in one batch and
    rounds differently there.</p>`
}

const EXAMPLES = ['Who is the pope?', 'Who is the chancellor of Germany?', 'How many legs does a spider have?']

/** @param {{onPick: (question: string) => void, ready: boolean}} props */
function Start({ onPick, ready }) {
  return html`<${Empty} title="Ask a question to begin">
    <p>Both sides get the same conversation. Beside each answer you will find the edits that fired, those that came near, and the exact prompt.</p>
    <div class="row examples">${EXAMPLES.map((one) => html`<button type="button" class="button small" key=${one} disabled=${!ready} onClick=${() => onPick(one)}>${one}</button>`)}</div><//>`
}

/** @param {{served: {models: string[], templates: string[]}, settings: Settings, onChange: (settings: Settings) => void}} props */
function Choices({ served, settings, onChange }) {
  const { models, template, maxTokens } = settings
  const names = [
    ...served.models,
    ...served.models.filter((one) => one.endsWith('@edited')).map((one) => one.replace(/@edited$/, '')),
  ]
  /** @param {number} side @param {string} model */
  const choose = (side, model) => onChange({ ...settings, models: models.map((one, i) => (i === side ? model : one)) })
  return html`
    ${models.map(
      (model, side) =>
        html`<${Field} key=${side} inline=${true} id="side-${side}" label=${side === 0 ? 'Left' : 'Right'}>${(
          /** @type {object} */ attributes,
        ) =>
          html`<select class="input" ...${attributes} value=${model} onChange=${(/** @type {any} */ event) => choose(side, event.target.value)}>
          ${names.map((name) => html`<option key=${name} value=${name}>${sideName(name)}</option>`)}</select>`}<//>`,
    )}
    <${Field} inline=${true} id="template" label="Template">${(/** @type {object} */ attributes) =>
      html`<select class="input" ...${attributes} value=${template} onChange=${(/** @type {any} */ event) => onChange({ ...settings, template: event.target.value })}>
        <option value="">default</option>${served.templates.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>`}<//>
    <${Field} inline=${true} id="max-tokens" label="Tokens">${(/** @type {object} */ attributes) =>
      html`<select class="input" ...${attributes} value=${maxTokens} onChange=${(/** @type {any} */ event) => onChange({ ...settings, maxTokens: Number(event.target.value) })}>
        ${[32, 64, 128, 256, 512, 1024].map((many) => html`<option key=${many} value=${many}>${many}</option>`)}</select>`}<//>`
}

/** @param {string} model */
function sideName(model) {
  if (model.endsWith('@base')) return 'Base'
  return model.endsWith('@edited') ? 'Edited' : 'As users get it'
}
