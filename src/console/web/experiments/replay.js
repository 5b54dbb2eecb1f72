// @ts-check
// Paired replay: prompts answered by every arm in the background, and compared.
import { json } from '../shell/api.js'
import { Check, given, Input } from '../shell/form.js'
import { Badge, EditLink, ErrorNote, toast, usePolling } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'
import { bounds, percent, pText, signed } from './text.js'

const POLL_MS = 2_500
const SHOWN_CHANGED = 10
const SHOWN_EDITS = 20

/**
 * Prompts of a file: one a line; of JSON or JSONL, texts, objects with `prompt` or `question`, or lists of messages.
 * @param {string} text @returns {unknown[]}
 */
export function promptsOf(text) {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)
  if (!/^[[{"]/.test(lines[0] ?? '')) return lines
  let records
  try {
    records = JSON.parse(text)
  } catch {
    records = lines.map((line, at) => {
      try {
        return JSON.parse(line)
      } catch {
        throw new Error(`Line ${at + 1} is no JSON. Give one prompt a line, JSONL, or a JSON array.`)
      }
    })
  }
  return [records].flat().map((one, at) => {
    const prompt = typeof one === 'string' ? one : (one?.messages ?? one?.prompt ?? one?.question)
    if (prompt === undefined) throw new Error(`Record ${at + 1} has no “prompt”, “question” or “messages”.`)
    return prompt
  })
}

/** @param {{trial: any}} props */
export function Replay({ trial }) {
  const [found, setFound] = useState(/** @type {any} */ (null))
  const [began, setBegan] = useState(0)
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const rollout = trial.object === 'rollout'
  const path = `/v1/${rollout ? 'rollouts' : 'experiments'}/${encodeURIComponent(trial.id)}/replay`
  const look = async () => {
    try {
      setFound(await json(path))
      setError(null)
    } catch (thrown) {
      setError(thrown)
    }
  }
  usePolling(look, POLL_MS)
  const waiting = found?.waiting ?? 0
  const total = Math.max(began, waiting)
  const any = found?.arms.some((/** @type {any} */ { pairs, failed }) => pairs + failed > 0)
  return html`<section class="card"><div class="card-head"><h2>${rollout ? 'Prompts tried both ways' : 'Paired replay'}</h2>
      ${
        waiting > 0 &&
        html`<div class="row"><progress value=${total - waiting} max=${total} aria-label="Prompts replayed"></progress>
        <span class="num" role="status">${waiting} waiting</span></div>`
      }</div>
    ${
      !rollout &&
      html`<p class="muted">The same prompts, answered by every arm in the background while nobody else asks: far fewer of them show a difference.</p>
      <${Start} trial=${trial} path=${path} onBegun=${(/** @type {number} */ accepted) => {
        setBegan(waiting + accepted)
        look()
      }} />`
    }
    <${ErrorNote} error=${error} />
    ${any && found.arms.map((/** @type {any} */ arm) => html`<${Arm} key=${arm.arm} arm=${arm} />`)}
    ${any && found.changed.length > 0 && html`<${Changed} changed=${found.changed} />`}
    ${rollout && found !== null && !any && html`<p class="muted">None yet.</p>`}</section>`
}

/** @param {{trial: any, path: string, onBegun: (accepted: number) => void}} props */
function Start({ trial, path, onBegun }) {
  const [text, setText] = useState('')
  const [logged, setLogged] = useState(false)
  const [judge, setJudge] = useState(false)
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const [busy, setBusy] = useState(false)
  const read = async (/** @type {any} */ event) => {
    const [file] = event.target.files
    if (file) setText(await file.text())
  }
  const start = async () => {
    setBusy(true)
    setError(null)
    try {
      const prompts = promptsOf(text)
      const body = given({
        prompts: prompts.length > 0 ? prompts : undefined,
        logged: logged || undefined,
        judge: judge || undefined,
      })
      const { accepted, left_out: left } = await json(path, { body })
      toast(
        `${accepted} prompts are replayed.${left > 0 ? ` ${left} were left out: the queue is full.` : ''}`,
        accepted > 0 ? 'good' : 'bad',
      )
      onBegun(accepted)
    } catch (thrown) {
      setError(thrown)
    }
    setBusy(false)
  }
  return html`<details class="more"><summary>Replay prompts</summary><form class="stack" onSubmit=${(
    /** @type {Event} */ event,
  ) => {
    event.preventDefault()
    start()
  }}>
    <${Input} id="replay-prompts" label="Prompts, one a line" rows=${4} value=${text} onValue=${setText} hint="Or JSONL with “prompt”, “question” or “messages”. At most 1,000." />
    <div class="field"><label for="replay-file">Or a file of them</label><input class="input" type="file" id="replay-file" accept=".txt,.json,.jsonl" onChange=${read} /></div>
    ${trial.log_prompts && html`<${Check} id="replay-logged" label="Prompts kept of exposures, too" checked=${logged} onValue=${setLogged} />`}
    <${Check} id="replay-judge" label="Have the model judge answers that differ" hint="In both orders; what it says only one way round counts as a tie." checked=${judge} onValue=${setJudge} />
    <${ErrorNote} error=${error} />
    <div><button class="button" disabled=${busy || (text.trim() === '' && !logged)}>Start the replay</button></div></form></details>`
}

/** @param {{arm: any}} props */
function Arm({ arm }) {
  const { pairs, failed, changed, target_shown: shown, judged, locality, edits } = arm
  return html`<div class="stack"><h3>${arm.arm}</h3><dl class="evidence wide">
      <div><dt>answered by both arms</dt><dd class="num">${pairs}${failed > 0 && `, ${failed} failed`}</dd></div>
      <div><dt>answered differently</dt><dd class="num">${changed}</dd></div>
      <div><dt>target gained, lost</dt><dd class="num">${shown.gained}, ${shown.lost} of ${shown.pairs}</dd></div>
      <div><dt>difference</dt><dd class="num">${signed(shown.difference, 'proportion')}</dd></div>
      <div><dt>at any look</dt><dd class="num">${bounds(shown.confidence_sequence, 'proportion')}</dd></div>
      <div><dt>at one look</dt><dd class="num">${bounds(shown.fixed_interval, 'proportion')}; p ${pText(shown.mcnemar_p)} (McNemar)</dd></div>
      ${shown.prompts_needed !== null && html`<div><dt>prompts that show it</dt><dd class="num">about ${shown.prompts_needed.toLocaleString('en')}</dd></div>`}
      ${judged.pairs > 0 && html`<div><dt>judged better, worse</dt><dd class="num">${judged.gained}, ${judged.lost} of ${judged.pairs}</dd></div>`}
      ${locality.n > 0 && html`<div><dt>unrelated, the same</dt><dd class="num">${locality.identical} of ${locality.n} (${percent(locality.identical / locality.n)})</dd></div>`}</dl>
    ${
      edits.length > 0 &&
      html`<details class="more"><summary>By edit (${edits.length})</summary>
      <div class="table-wrap" tabindex="0" role="region" aria-label="By edit"><table class="table"><thead><tr><th>Edit</th><th class="num">prompts</th><th class="num">changed</th>
      <th class="num">gained</th><th class="num">lost</th></tr></thead><tbody>${edits.slice(0, SHOWN_EDITS).map(
        (
          /** @type {any} */ one,
        ) => html`<tr key=${one.id}><td class="wrap"><${EditLink} id=${one.id} /></td><td class="num">${one.pairs}</td><td class="num">${one.changed}</td>
        <td class="num">${one.gained}</td><td class="num">${one.lost}</td></tr>`,
      )}</tbody></table></div></details>`
    }</div>`
}

/** @param {{changed: any[]}} props */
function Changed({ changed }) {
  return html`<details class="more"><summary>Prompts answered differently (${changed.length})</summary><ul class="pairs">${changed
    .slice(0, SHOWN_CHANGED)
    .map(
      (
        { question, answers, origin },
        at,
      ) => html`<li key=${at}><p class="wrap"><strong>${question ?? 'a live question, whose words are not kept'}</strong>
      ${origin === 'locality' && html`<${Badge} tone="warn">unrelated<//>`}</p><dl>${answers.map(
        (/** @type {any} */ { arm, text, target_shown: shown }) =>
          html`<div key=${arm}><dt class="muted small">${arm}</dt><dd class="wrap">${text} ${shown && html`<${Badge} tone="good">target shown<//>`}</dd></div>`,
      )}</dl></li>`,
    )}</ul></details>`
}
