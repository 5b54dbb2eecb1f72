// @ts-check
// What the gateway is doing: load, latest requests, edits firing, time by stage. Asks every two seconds, and only while it is looked at.
import { stageParts } from '../playground/answer.js'
import { json } from '../shell/api.js'
import { colour, Plot } from '../shell/plot.js'
import { Badge, Bar, duration, EditLink, Empty, ErrorNote, Figure, PageHead, StackedBar, usePolling } from '../shell/ui.js'
import { html, useMemo, useState } from '../vendor/preact.js'

const POLL_MS = 2_000
/** As many as the gateway keeps, lest a page left open for days grow. */
const KEPT = 200
const ROWS = 30

export function Page() {
  const [health, setHealth] = useState(/** @type {any} */ (null))
  const [requests, setRequests] = useState(/** @type {any[]} */ ([]))
  const [prompts, setPrompts] = useState(false)
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const seen = useMemo(() => ({ latest: 0 }), [])
  usePolling(async () => {
    try {
      const [now, list] = await Promise.all([json('/health'), json(`/v1/requests?after=${seen.latest}`)])
      // A gateway that has restarted counts from the beginning.
      if (list.latest < seen.latest) setRequests([])
      seen.latest = list.latest
      setHealth(now)
      setPrompts(list.prompts_kept)
      if (list.data.length > 0) setRequests((all) => [...all, ...list.data].slice(-KEPT))
      setError(null)
    } catch (thrown) {
      setError(thrown)
    }
  }, POLL_MS)
  return html`
    <${PageHead} title="Live" about="What the gateway is doing now. Refreshed every two seconds while you look.">
      <${Freshness} health=${health} error=${error} /><//>
    <${ErrorNote} error=${error} />
    ${health && html`<${Load} health=${health} requests=${requests} />`}
    ${
      requests.length === 0
        ? health &&
          html`<${Empty} title="No requests yet"><p>Requests that ask the model appear here as they come.
              Send one from the <a href="#/playground">Playground</a>, or point a client at <code>${location.origin}/v1</code>.</p><//>`
        : html`<${Times} requests=${requests} /><div class="grid-2"><${Stages} requests=${requests} /><${Firing} requests=${requests} /></div>
            <${Latest} requests=${requests} prompts=${prompts} />`
    }`
}

/** @param {{health: any, error: unknown}} props */
function Freshness({ health, error }) {
  if (error) return html`<${Badge} tone="bad">not reached<//>`
  if (health === null) return html`<span class="spinner" role="status" aria-label="Loading"></span>`
  return health.status === 'ok' ? html`<${Badge} tone="good">serving<//>` : html`<${Badge} tone="warn">shutting down<//>`
}

/** @param {{health: any, requests: any[]}} props */
function Load({ health: { load, memory, uptime_seconds: up }, requests }) {
  const times = requests.filter(({ status }) => status === 200).map(({ ms }) => ms)
  return html`<div class="grid-4">
    <${Figure} name="Slots busy" note="of ${load.slots}">${load.busy}<//>
    <${Figure} name="Waiting in the queue" note="at most ${load.queue_limit}">${load.queued}<//>
    <${Figure} name="Answer time, median" note=${times.length > 0 ? `p95 ${duration(quantile(times, 0.95))}` : ''}>${duration(times.length > 0 ? quantile(times, 0.5) : null)}<//>
    <${Figure} name="Edits in the index" note=${memory.pending > 0 ? `${memory.pending} on their way` : `up ${upFor(up)}`}>${memory.indexed.toLocaleString('en')}<//>
  </div>`
}

/** @param {number} seconds */
function upFor(seconds) {
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`
  return `${Math.floor(seconds / 3_600)} h`
}

/** Steps of the axis of time: whole seconds. */
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400, 604_800]

/** @param {number} seconds since the epoch */
const clock = (seconds) => new Date(seconds * 1_000).toLocaleTimeString('en-GB')

/** @param {number[]} values @param {number} share */
function quantile(values, share) {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0
}

/** Each request as a point: to its first word and to its end. @param {{requests: any[]}} props */
function Times({ requests }) {
  const data = useMemo(() => {
    // In the order of their beginnings, which a plot over time asks for.
    const byTime = requests.toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at))
    const at = byTime.map((one) => Date.parse(one.at) / 1_000)
    return /** @type {any} */ ([
      at,
      byTime.map(({ ms }) => ms / 1_000),
      byTime.map((one) => (one.first_piece_ms === null ? null : one.first_piece_ms / 1_000)),
    ])
  }, [requests])
  const last = requests.at(-1)
  const said = `Answer times of the latest ${requests.length} requests; the last took ${duration(last?.ms)}, its first word ${duration(last?.first_piece_ms)}.`
  const dots = (/** @type {string} */ label, /** @type {string} */ name) => ({
    label,
    stroke: colour(name),
    width: 0,
    paths: () => null,
    points: { show: true, size: 7, fill: colour(name), stroke: colour(name) },
    value: (/** @type {any} */ _plot, /** @type {number | null} */ value) => (value === null ? '–' : duration(value * 1_000)),
  })
  return html`<section class="card"><div class="card-head"><h2>Answer times</h2><span class="small muted">latest ${requests.length} requests</span></div>
    <${Plot} height=${220} data=${data} label=${said}
      options=${() => ({
        series: [{}, dots('to the end', '--c1'), dots('to the first word', '--c2')],
        scales: {
          y: {
            range: (/** @type {any} */ _plot, /** @type {number} */ _low, /** @type {number} */ high) => [
              0,
              Math.max(high * 1.1, 0.01),
            ],
          },
        },
        axes: [
          { space: 90, incrs: SECONDS, values: (/** @type {any} */ _plot, /** @type {number[]} */ ticks) => ticks.map(clock) },
          {
            values: (/** @type {any} */ _plot, /** @type {number[]} */ ticks) =>
              ticks.map((s) => (s === 0 ? '0' : duration(s * 1_000))),
            size: 64,
          },
        ],
        legend: { live: false },
        cursor: { drag: { x: false, y: false } },
      })} /></section>`
}

/** Median and p95 of each stage. @param {{requests: any[]}} props */
function Stages({ requests }) {
  const names = stageParts(Object.fromEntries(requests.flatMap(({ stages_ms }) => Object.entries(stages_ms))))
  const rows = names.map(({ name, tone }) => {
    const times = requests.flatMap(({ stages_ms }) => (stages_ms[name] === undefined ? [] : [stages_ms[name]]))
    return { name, tone, p50: quantile(times, 0.5), p95: quantile(times, 0.95) }
  })
  const longest = Math.max(...rows.map(({ p95 }) => p95), 0.001)
  return html`<section class="card"><div class="card-head"><h2>Time by stage</h2></div><table class="table bare"><thead><tr><th>Stage</th><th class="num">median</th>
    <th class="num">p95</th><th><span class="visually-hidden">p95, as a bar</span></th></tr></thead>
    <tbody>${rows.map(
      ({ name, tone, p50, p95 }) =>
        html`<tr key=${name}><td>${name}</td><td class="num">${duration(p50)}</td><td class="num">${duration(p95)}</td><td class="bar-cell">
          <${Bar} share=${p95 / longest} tone=${tone} label="${name}: p95 ${duration(p95)}" /></td></tr>`,
    )}</tbody></table></section>`
}

/** @param {{requests: any[]}} props */
function Firing({ requests }) {
  /** @type {Map<string, {subject: string | undefined, many: number}>} */
  const counts = new Map()
  for (const { edits } of requests)
    for (const { id, subject } of edits) counts.set(id, { subject, many: (counts.get(id)?.many ?? 0) + 1 })
  const top = [...counts].toSorted(([, a], [, b]) => b.many - a.many).slice(0, 8)
  const fired = requests.filter(({ edits }) => edits.length > 0).length
  return html`<section class="card"><div class="card-head"><h2>Edits firing</h2>
    <span class="small muted num">in ${fired} of ${requests.length} requests</span></div>
    ${
      top.length === 0
        ? html`<p class="muted">None of these requests needed an edit.</p>`
        : html`<table class="table bare"><thead><tr><th>Edit</th><th class="num">requests</th><th><span class="visually-hidden">as a bar</span></th>
          </tr></thead><tbody>${top.map(
            ([id, { subject, many }]) =>
              html`<tr key=${id}><td class="wrap"><${Name} id=${id} subject=${subject} /></td><td class="num">${many}</td>
                <td class="bar-cell"><${Bar} share=${many / requests.length} label="${many} of ${requests.length}" /></td></tr>`,
          )}</tbody></table>`
    }</section>`
}

/** @param {{requests: any[], prompts: boolean}} props */
function Latest({ requests, prompts }) {
  return html`<section class="stack"><div class="row spread">
    <h2>Latest requests</h2>${!prompts && html`<span class="small muted">Questions are not kept: set <code>PALIMPSEST_LOG_PROMPTS=true</code> to see them here.</span>`}</div>
    <div class="table-wrap" tabindex="0" role="region" aria-label="Latest requests"><table class="table"><thead><tr>
      <th>Time</th>${prompts && html`<th>Question</th>`}<th>Arm</th><th>Edits</th><th class="num">Tokens</th><th class="num">First word</th>
      <th class="num">All</th><th>Stages</th><th>Status</th></tr></thead>
    <tbody>${requests
      .slice(-ROWS)
      .toReversed()
      .map((one) => html`<${Row} key=${one.seq} one=${one} prompts=${prompts} />`)}</tbody></table></div></section>`
}

/** @param {{one: any, prompts: boolean}} props */
function Row({ one, prompts }) {
  const parts = stageParts(one.stages_ms)
  return html`<tr><td class="num time">${clock(Date.parse(one.at) / 1_000)}</td>${prompts && html`<td class="asked">${one.question ?? ''}</td>`}
    <td><${Badge} tone=${one.arm === 'edited' && one.edits.length > 0 ? 'accent' : ''}>${one.arm ?? '–'}<//></td>
    <td><${Fired} edits=${one.edits} /></td>
    <td class="num">${one.prompt_tokens} + ${one.completion_tokens}</td><td class="num">${duration(one.first_piece_ms)}</td>
      <td class="num">${duration(one.ms)}</td>
    <td class="bar-cell"><${StackedBar} parts=${parts} label=${parts.map(({ name, value }) => `${name} ${duration(value)}`).join(', ')} /></td>
    <td><${Status} status=${one.status} error=${one.error} /></td></tr>`
}

/** @param {{edits: {id: string, subject?: string}[]}} props */
function Fired({ edits }) {
  if (edits.length === 0) return html`<span class="muted">none</span>`
  return edits.map(({ id, subject }, i) => html`${i > 0 && ', '}<${Name} id=${id} subject=${subject} />`)
}

/** An edit by its subject, or else by what it says. @param {{id: string, subject: string | undefined}} props */
function Name({ id, subject }) {
  return subject ? html`<a href="#/edits/${encodeURIComponent(id)}">${subject}</a>` : html`<${EditLink} id=${id} />`
}

/** @param {{status: number, error: string | null}} props */
function Status({ status, error }) {
  if (status === 200) return html`<${Badge} tone="good">200<//>`
  return status === 499
    ? html`<${Badge} tone="warn" title="The client left">left<//>`
    : html`<${Badge} tone="bad">${error ?? status}<//>`
}
