// @ts-check
// Reports of `palimpsest eval`: all of them and a measure over time, one (`#/evaluation/ID`), and several beside each other (`?compare=A,B`).

import { when } from '../experiments/text.js'
import { json } from '../shell/api.js'
import { Select } from '../shell/form.js'
import { Badge, Empty, ErrorNote, PageHead } from '../shell/ui.js'
import { html, useEffect, useState } from '../vendor/preact.js'
import { OverTime } from './plot.js'
import { changeText, figureText, methodsOf, shownOf } from './text.js'

const MOST_COMPARED = 6

/** @param {{rest: string, query: URLSearchParams}} props */
export function Page({ rest, query }) {
  if (rest !== '') return html`<${One} key=${rest} id=${rest} />`
  const compared = (query.get('compare') ?? '').split(',').filter(Boolean).map(decodeURIComponent).slice(0, MOST_COMPARED)
  return compared.length > 0 ? html`<${Compared} key=${compared.join()} ids=${compared} />` : html`<${All} />`
}

/** What a path answers, once asked. @param {() => Promise<any>} ask @returns {{found: any, error: unknown, again: () => void}} */
function useAnswer(ask) {
  const [state, setState] = useState(/** @type {{found: any, error: unknown}} */ ({ found: null, error: null }))
  const again = () => {
    ask().then(
      (found) => setState({ found, error: null }),
      (error) => setState({ found: null, error }),
    )
  }
  useEffect(again, [])
  return { ...state, again }
}

const Loading = () => html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`

function All() {
  const { found, error, again } = useAnswer(() => json('/v1/evaluations'))
  const [chosen, setChosen] = useState(/** @type {string[]} */ ([]))
  const compare = `#/evaluation?compare=${chosen.map(encodeURIComponent).map(encodeURIComponent).join(',')}`
  return html`<${PageHead} title="Evaluation" about="Reports of palimpsest eval: how the edits do on published benchmarks, beside other ways to edit a model.">
      ${chosen.length > 1 && html`<a class="button primary" href=${compare}>Compare ${chosen.length}</a>`}<//>
    <${ErrorNote} error=${error} retry=${again} />
    ${!found && !error && html`<${Loading} />`}
    ${found && found.broken.length > 0 && html`<${Broken} broken=${found.broken} />`}
    ${
      found &&
      (found.data.length === 0
        ? html`<${Empty} title="No reports yet"><p>Make one on the command line, with a benchmark file as it was published:</p>
          <p><code>palimpsest eval --data counterfact.json --limit 100</code></p>
          <p>It goes to <code class="wrap">${found.folder}</code>, where this page looks (<code>--reports-dir</code> names another folder).</p><//>`
        : html`<${Reports} reports=${found.data} chosen=${chosen} setChosen=${setChosen} />
          ${found.left_out > 0 && html`<p class="muted">${found.left_out} older reports are left out.</p>`}
          <${OverTime} reports=${found.data} />`)
    }`
}

/** @param {{broken: {id: string, message: string}[]}} props */
function Broken({ broken }) {
  return html`<div class="notice warn"><strong>${broken.length === 1 ? 'One report cannot be read' : `${broken.length} reports cannot be read`}</strong>
    <ul class="plain">${broken.map(({ id, message }) => html`<li key=${id}><code>${id}</code>: ${message}</li>`)}</ul></div>`
}

/** @param {{reports: any[], chosen: string[], setChosen: (ids: string[]) => void}} props */
function Reports({ reports, chosen, setChosen }) {
  return html`<section class="stack"><div class="row spread"><h2>Reports</h2><span class="small muted">Choose two or more to compare them.</span></div>
    <div class="table-wrap" tabindex="0" role="region" aria-label="Reports"><table class="table"><thead><tr><th><span class="visually-hidden">Compare</span></th><th>Report</th><th>Made</th>
      <th>Data</th><th>Model</th><th class="num">records</th>${shownOf(reports).map(({ label }) => html`<th class="num" key=${label}>${label}</th>`)}</tr></thead>
    <tbody>${reports.map((one) => {
      const { id, at, data, model, records_asked: asked } = one
      const choose = (/** @type {any} */ event) =>
        setChosen(event.target.checked ? [...chosen, id] : chosen.filter((other) => other !== id))
      return html`<tr key=${id}><td><input type="checkbox" aria-label="Compare ${id}" checked=${chosen.includes(id)} onChange=${choose}
          disabled=${!chosen.includes(id) && chosen.length >= MOST_COMPARED} /></td>
        <td class="wrap name"><a href="#/evaluation/${encodeURIComponent(id)}">${id}</a></td><td class="num time">${when(at)}</td><td class="wrap">${data}</td>
        <td class="wrap">${model ?? html`<span class="muted">selection alone</span>`}</td><td class="num">${asked.toLocaleString('en')}</td>
        ${shownOf(reports).map(({ label, of }) => html`<td class="num" key=${label}>${of(one)}</td>`)}</tr>`
    })}</tbody></table></div>
    <p class="muted small">Figures of the method palimpsest, in per cent, with their 95 % intervals.</p></section>`
}

/** @param {{id: string}} props */
function One({ id }) {
  const path = `/v1/evaluations/${encodeURIComponent(id)}`
  const { found, error, again } = useAnswer(() => json(path))
  if (found === null)
    return html`<${PageHead} title=${id} />${error ? html`<${ErrorNote} error=${error} retry=${again} /><p><a href="#/evaluation">All reports</a></p>` : html`<${Loading} />`}`
  const about = html`<a href="#/evaluation">Evaluation</a> · ${found.data}${found.model === null ? ', selection alone' : `, ${found.model}`}, ${when(found.at)}`
  const protocols = [
    ['generated', 'Generated answers', 'Greedy, chat template; an answer is right when it holds an accepted one.'],
    ['forced', 'Teacher-forced', 'Raw text, the likelihood of given answers. Not comparable with the table above.'],
    ['selection', 'Selection alone', 'Which edits are selected, without a model.'],
  ]
  return html`<${PageHead} title=${id} about=${about}><a class="button" href="${path}/report" target="_blank" rel="noopener">Open the whole report</a><//>
    <section class="card"><h2>How it was made</h2><dl class="evidence wide">${settings(found).map(
      ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="wrap">${value}</dd></div>`,
    )}</dl>
      ${found.notes.length > 0 && html`<ul class="plain small muted">${found.notes.map((/** @type {string} */ note) => html`<li key=${note}>${note}</li>`)}</ul>`}</section>
    ${protocols.map(([protocol = '', title = '', said = '']) => {
      const rows = found.rows.filter((/** @type {any} */ row) => row.protocol === protocol)
      return rows.length > 0 && html`<${Figures} key=${protocol} title=${title} said=${said} rows=${rows} />`
    })}`
}

/** @param {any} report @returns {[string, string][]} */
function settings({
  records,
  records_asked: asked,
  edits_live: live,
  probes,
  device,
  threads,
  template,
  seed,
  minutes,
  version,
  format,
}) {
  const kinds = Object.entries(probes ?? {}).map(([kind, n]) => `${n} ${kind.replaceAll('_', ' ')}`)
  return [
    ['format', format],
    ['records', `${asked.toLocaleString('en')} of ${records.toLocaleString('en')} asked`],
    ['probes', kinds.join(', ')],
    ['edits in memory', live.toLocaleString('en')],
    ['device', `${device}, ${threads} threads`],
    ['template', template],
    ['made by', `Palimpsest ${version}, seed ${seed}, in ${minutes.toFixed(1)} minutes`],
  ]
}

/** @param {{title: string, said: string, rows: any[]}} props */
function Figures({ title, said, rows }) {
  const methods = methodsOf(rows)
  return html`<section class="stack"><div><h2>${title}</h2><p class="muted small">${said} With 95 % intervals; shares in per cent.</p></div>
    <div class="table-wrap" tabindex="0" role="region" aria-label=${title}><table class="table"><thead><tr><th>Measure</th><th class="num">n</th>
      ${methods.map((name) => html`<th class="num" key=${name}>${name}</th>`)}</tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr key=${row.id}><th scope="row" class="row-head">${row.label}</th>
      <td class="num">${Math.max(0, ...Object.values(row.values).map((/** @type {any} */ figure) => figure?.n ?? 0)).toLocaleString('en')}</td>
      ${methods.map((name) => html`<td class="num" key=${name}>${figureText(row.values[name], row.unit)}</td>`)}</tr>`,
    )}</tbody></table></div></section>`
}

/** @param {{ids: string[]}} props */
function Compared({ ids }) {
  const { found, error, again } = useAnswer(() => Promise.all(ids.map((id) => json(`/v1/evaluations/${encodeURIComponent(id)}`))))
  const [method, setMethod] = useState('palimpsest')
  const head = html`<${PageHead} title="Compared" about=${html`<a href="#/evaluation">Evaluation</a> · ${ids.length} reports, the oldest first`} />`
  if (found === null) return html`${head}${error ? html`<${ErrorNote} error=${error} retry=${again} />` : html`<${Loading} />`}`
  const reports = found.toSorted((/** @type {any} */ a, /** @type {any} */ b) => a.at.localeCompare(b.at))
  const methods = methodsOf(reports.flatMap((/** @type {any} */ one) => one.rows))
  const other = reports.some(
    (/** @type {any} */ one) =>
      one.data !== reports[0].data || one.records_asked !== reports[0].records_asked || one.seed !== reports[0].seed,
  )
  const keys = new Map(
    reports.flatMap((/** @type {any} */ one) => one.rows.map((/** @type {any} */ row) => [`${row.protocol} ${row.id}`, row])),
  )
  const rows = [...keys].map(([key, row]) => ({
    key,
    row,
    figures: reports.map(
      (/** @type {any} */ one) =>
        one.rows.find((/** @type {any} */ { protocol, id }) => `${protocol} ${id}` === key)?.values[method] ?? null,
    ),
  }))
  const shown = rows.filter(({ figures }) => figures.some(Boolean))
  return html`${head}
    ${other && html`<p class="notice warn">These runs asked different records, so a difference may be the records’ doing.</p>`}
    <${Select} id="compared-method" label="Method" inline=${true} value=${method} onValue=${setMethod} choices=${methods.map((name) => [name, name])} />
    <div class="table-wrap" tabindex="0" role="region" aria-label="Compared"><table class="table"><thead><tr><th>Measure</th>
      ${reports.map((/** @type {any} */ one) => html`<th class="num" key=${one.id}><a href="#/evaluation/${encodeURIComponent(one.id)}">${one.id}</a><br />${when(one.at)}</th>`)}
      <th class="num">last less first</th></tr></thead>
    <tbody>${shown.map(({ key, row, figures }) => {
      const { text, apart } = changeText(figures.at(0), figures.at(-1), row.unit)
      return html`<tr key=${key}><th scope="row" class="row-head">${row.label}${row.protocol === 'forced' && html` <span class="muted small">forced</span>`}</th>
        ${figures.map((/** @type {any} */ figure, /** @type {number} */ at) => html`<td class="num" key=${at}>${figureText(figure, row.unit)}</td>`)}
        <td class="num">${text} ${apart && html`<${Badge} tone="accent" title="The two intervals do not overlap">apart<//>`}</td></tr>`
    })}</tbody></table></div>
    <p class="muted small">“Apart”: the two 95 % intervals do not overlap. Intervals that overlap may still differ.</p>`
}
