// @ts-check
// Made-up traffic, so that a newcomer sees an experiment at work: some prompts, asked by users that do not exist.
import { json } from '../shell/api.js'
import { Input } from '../shell/form.js'
import { ErrorNote, toast } from '../shell/ui.js'
import { html, useEffect, useRef, useState } from '../vendor/preact.js'

const MOST_REQUESTS = 2_000
const MOST_USERS = 2_000
/** Requests of ours at a time: few, since real users may be asking too. */
const AT_ONCE = 2
const ANSWER_TOKENS = 48
const SUGGESTED = 5
const SHOWN = 5

/** A request as this user would send it. @param {any} trial @param {string} model @param {string} prompt @param {string} user */
function requestOf({ unit, audience }, model, prompt, user) {
  const messages = [{ role: 'user', content: prompt }]
  // What stays in one arm is how the conversation begins.
  if (unit === 'conversation') messages.unshift({ role: 'system', content: `You speak with ${user}.` })
  const tags = audience.tags.length > 0 ? { palimpsest: { tags: audience.tags } } : {}
  const headers = /** @type {Record<string, string>} */ ({})
  if (unit === 'key') headers.Authorization = `Bearer ${user}`
  if (unit.startsWith('header:')) headers[unit.slice('header:'.length)] = user
  return { headers, body: { model, messages, max_tokens: ANSWER_TOKENS, ...(unit === 'user' && { user }), ...tags } }
}

/** @param {{trial: any, onSent: () => Promise<void>}} props */
export function Traffic({ trial, onSent }) {
  const [values, setValues] = useState({ prompts: '', requests: '200', users: '100' })
  const [going, setGoing] = useState(/** @type {{done: number, total: number, failed: number, on: boolean} | null} */ (null))
  const [answers, setAnswers] = useState(/** @type {any[]} */ ([]))
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const stop = useRef(/** @type {AbortController | null} */ (null))
  useEffect(() => {
    // Again with each event: the batch of a rollout may come after it.
    if (values.prompts !== '') return
    suggested(trial).then(
      (prompts) => setValues((now) => ({ ...now, prompts: now.prompts || prompts.join('\n') })),
      () => {},
    )
  }, [trial.events.length, trial.stage])
  useEffect(() => () => stop.current?.abort(), [])
  const prompts = values.prompts
    .split('\n')
    .map((one) => one.trim())
    .filter(Boolean)
  const [total, users] = [bounded(values.requests, MOST_REQUESTS), bounded(values.users, MOST_USERS)]
  const send = async () => {
    const controller = new AbortController()
    stop.current = controller
    setError(null)
    setAnswers([])
    let [next, done, failed] = [0, 0, 0]
    const tell = (/** @type {boolean} */ on) => setGoing({ done, total, failed, on })
    tell(true)
    const { model } = await json('/health').catch(() => ({ model: { name: '' } }))
    const run = Date.now().toString(36)
    const one = async (/** @type {number} */ at) => {
      const user = `made-up-${run}-${(at % users) + 1}`
      const prompt = prompts[at % prompts.length] ?? ''
      const { headers, body } = requestOf(trial, trial.audience.models[0] ?? model.name, prompt, user)
      try {
        const answer = await json('/v1/chat/completions', { headers, body, signal: controller.signal })
        const shown = { id: answer.id, prompt, user, text: answer.choices[0].message.content }
        setAnswers((all) => [{ ...shown, experiment: answer.palimpsest?.experiment }, ...all].slice(0, SHOWN))
      } catch (thrown) {
        if (controller.signal.aborted) return
        failed++
        setError(thrown)
        // A gateway that refuses everything is not to be asked two thousand times.
        if (failed >= 10 && failed > done / 2) controller.abort()
      }
    }
    const work = async () => {
      while (next < total && !controller.signal.aborted) {
        await one(next++)
        if (controller.signal.aborted) break
        done++
        tell(true)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, work))
    tell(false)
    await onSent()
  }
  const field = (/** @type {'prompts' | 'requests' | 'users'} */ name) => ({
    id: `traffic-${name}`,
    value: values[name],
    onValue: (/** @type {string} */ value) => setValues({ ...values, [name]: value }),
  })
  const busy = going?.on === true
  return html`<section class="card"><div class="card-head"><h2>Send it traffic</h2><span class="badge warn">made-up users</span></div>
    <p class="muted">Asks these prompts in turn as users that do not exist, to see the experiment at work. They count as exposures like anybody else:
      use a trial experiment, not one you will decide by.</p>
    <form class="stack" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault()
      if (!busy) send()
    }}>
      <${Input} ...${field('prompts')} label="Prompts, one a line" rows=${4} hint="Taken from edits that are live. Only prompts that an edit is for are exposures." />
      <div class="grid-2"><${Input} ...${field('requests')} label="How many requests" hint="1 to ${MOST_REQUESTS.toLocaleString('en')}." inputmode="numeric" />
        <${Input} ...${field('users')} label="As how many users" hint="1 to ${MOST_USERS.toLocaleString('en')}. A user stays in one arm." inputmode="numeric" /></div>
      <div class="row"><button class="button primary" disabled=${busy || prompts.length === 0}>Send ${total.toLocaleString('en')} requests</button>
        ${busy && html`<button type="button" class="button" onClick=${() => stop.current?.abort()}>Stop sending</button>`}
        ${
          going &&
          html`<progress value=${going.done} max=${going.total} aria-label="Requests sent"></progress>
          <span class="num" role="status">${going.done} of ${going.total} sent${going.failed > 0 && `, ${going.failed} failed`}</span>`
        }</div>
    </form><${ErrorNote} error=${error} />
    ${answers.length > 0 && html`<${Answers} answers=${answers} onSaid=${onSent} />`}</section>`
}

/** @param {string} typed @param {number} most */
function bounded(typed, most) {
  return Math.min(most, Math.max(1, Math.floor(Number(typed) || 1)))
}

/** Prompts that some live edits are about; of a rollout, of its batch. @param {any} trial @returns {Promise<string[]>} */
async function suggested({ batch }) {
  const of = batch === undefined ? '' : `&batch=${encodeURIComponent(batch)}`
  const { data } = await json(`/v1/edits?state=live&limit=${SUGGESTED}${of}`)
  return data.map((/** @type {any} */ { prompt }) => prompt.replaceAll('\n', ' '))
}

/** The latest answers, and what one thinks of them. @param {{answers: any[], onSaid: () => Promise<void>}} props */
function Answers({ answers, onSaid }) {
  const [said, setSaid] = useState(/** @type {Record<string, string>} */ ({}))
  const say = async (/** @type {string} */ id, /** @type {string} */ label, /** @type {number} */ score) => {
    try {
      const { outcome } = await json('/v1/feedback', { body: { completion_id: id, id: 'console', score, label } })
      setSaid((all) => ({ ...all, [id]: outcome === 'no_exposure' ? 'not an exposure, so not counted' : label }))
      await onSaid()
    } catch (thrown) {
      toast(/** @type {Error} */ (thrown).message, 'bad')
    }
  }
  return html`<div class="stack"><h3>Latest answers</h3><ul class="answers">${answers.map(
    ({ id, prompt, user, text, experiment }) => html`<li key=${id}><div class="wrap"><span class="muted">${prompt}</span> ${text}
      <span class="small muted">${user}, ${experiment ? `arm ${experiment.arm}` : 'no exposure'}</span></div>
      ${
        said[id]
          ? html`<span class="badge" role="status">${said[id]}</span>`
          : html`<div class="row"><button type="button" class="button small" onClick=${() => say(id, 'good', 1)}>Good</button>
          <button type="button" class="button small" onClick=${() => say(id, 'wrong', -1)}>Wrong</button></div>`
      }</li>`,
  )}</ul>
    <details class="more"><summary>How your application sends feedback</summary><pre class="code" tabindex="0">POST ${location.origin}/v1/feedback
{"completion_id": "${answers[0].id}", "score": 1, "label": "good"}</pre></details></div>`
}
