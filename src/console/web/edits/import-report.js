// @ts-check
// What a file would do, before it does: its first edits, what changes, and what its author may not have meant.

import { kindOf, Statement } from '../shell/statement.js'
import { Badge, Figure } from '../shell/ui.js'
import { html } from '../vendor/preact.js'
import { kindsFound } from './findings.js'

const SHOWN_FINDINGS = 100

/** Beside the words of an edit; shown where one of those listed has it. @type {readonly {label: string, of: (edit: any) => any, many?: boolean}[]} */
const COLUMNS = [
  { label: 'Subject', of: ({ subject }) => subject },
  { label: 'Other wordings', of: ({ paraphrases }) => paraphrases?.length, many: true },
  {
    label: 'Examples',
    of: ({ examples, counterexamples }) => (examples?.length ?? 0) + (counterexamples?.length ?? 0),
    many: true,
  },
]

/**
 * `sentences`: read here as one sentence a line; `checkable`: a file, as the command line reads it too.
 * @param {{landing: any, name: string, tags: string, format: string, sentences: boolean, checkable: boolean, onLand: () => void}} props
 */
export function ImportReport({ landing, name, tags, format, sentences, checkable, onLand }) {
  const { counts, report, first_edits: first, format: recognised, replayed } = landing
  const found = kindsFound(report)
  const changes = counts.added + counts.revised + counts.restored
  const notation = sentences ? 'one sentence a line' : recognised === 'palimpsest' ? 'our own fields' : recognised
  const columns = COLUMNS.filter(({ of }) => first.some(of))
  return html`
    <section class="stack" aria-label="Preview"><div class="row spread">
        <p role="status"><strong class="wrap">${name}</strong>: ${many(counts.edits, 'edit')} <${Badge} tone="accent">${notation}<//></p>
        ${!replayed && html`<button type="button" class="button primary" onClick=${onLand}>${changes > 0 ? `Land ${many(changes, 'edit')}` : 'Land it'}</button>`}</div>
      ${
        replayed &&
        html`<div class="notice warn"><strong>This very file has landed before</strong>
        <p>The memory holds all of it (batch ${landing.id}): landing it again changes nothing.</p></div>`
      }
      ${
        !replayed &&
        html`<div class="grid-4"><${Figure} name="New">${number(counts.added)}<//><${Figure} name="Revised">${number(counts.revised + counts.restored)}<//>
        <${Figure} name="Held already">${number(counts.unchanged)}<//><${Figure} name="Give way">${number(counts.superseded)}<//></div>`
      }
      <div class="table-wrap" tabindex="0" role="region" aria-label="First edits of the file"><table class="table first-edits"><thead><tr>
        <th scope="col">Edit</th><th scope="col">Kind</th>${columns.map(
          ({ label, many }) => html`<th scope="col" key=${label} class=${many ? 'num' : ''}>${label}</th>`,
        )}</tr></thead>
        <tbody>${first.map(
          (
            /** @type {any} */ edit,
          ) => html`<tr key=${edit.id}><td class="wrap"><${Statement} edit=${edit} /></td><td>${kindOf(edit)}</td>
            ${columns.map(({ label, of, many }) => html`<td key=${label} class=${many ? 'num' : 'wrap'}>${of(edit)}</td>`)}</tr>`,
        )}</tbody></table></div>
      ${counts.edits > first.length && html`<p class="small muted">The first ${first.length} of ${number(counts.edits)}.</p>`}</section>
    <section class="stack" aria-label="What speaks against it"><h2>What speaks against it</h2>
      ${found.length === 0 && html`<div class="notice good" role="status"><strong>Nothing</strong><p>No contradiction, no edit superseded, none that fires where it should not.</p></div>`}
      ${found.map((kind, i) => html`<${Findings} key=${kind[0]} kind=${kind} report=${report} open=${i === 0} />`)}
      ${report.fault && html`<div class="notice warn"><p>Wordings could not be compared: ${report.fault}</p></div>`}
      ${report.pairs_left > 0 && html`<p class="small muted">${many(report.pairs_left, 'pair')} of edits about one subject, beyond the limit, were not compared.</p>`}</section>
    ${checkable && html`<${Preflight} name=${name} tags=${tags} format=${format} />`}`
}

/** @param {{kind: import('./findings.js').FindingKind, report: any, open: boolean}} props */
function Findings({ kind: [kind, title, tone, about], report, open }) {
  const all = report.findings.filter((/** @type {any} */ one) => one.kind === kind)
  const shown = all.slice(0, SHOWN_FINDINGS)
  return html`<details class="card findings" open=${open}><summary><${Badge} tone=${tone}>${number(report.counts[kind])}<//> ${title}</summary>
    <p class="small muted">${about}</p>
    <div class="table-wrap" tabindex="0" role="region" aria-label=${title}><table class="table"><thead><tr>
      <th scope="col" class="num">Line</th><th scope="col">What</th><th scope="col">Edits</th></tr></thead><tbody>${shown.map(
        (
          /** @type {any} */ { message, edit, other },
          /** @type {number} */ i,
        ) => html`<tr key=${i}><td class="num">${edit.line ?? '–'}</td><td class="wrap what">${message}</td>
          <td><code class="wrap">${edit.id}</code>${other && html`<br /><${Other} other=${other} />`}</td></tr>`,
      )}</tbody></table></div>
    ${report.counts[kind] > shown.length && html`<p class="small muted">The first ${shown.length} of ${number(report.counts[kind])}.</p>`}</details>`
}

/** @param {{other: {id: string, line: number | null}}} props */
function Other({ other: { id, line } }) {
  return line === null
    ? html`<a class="wrap" href="#/edits/${encodeURIComponent(id)}"><code>${id}</code></a> <span class="muted">in memory</span>`
    : html`<code class="wrap">${id}</code> <span class="muted">line ${line}</span>`
}

/** The evaluation takes minutes and a copy of the memory: the command line has it. @param {{name: string, tags: string, format: string}} props */
function Preflight({ name, tags, format }) {
  const command = [
    'palimpsest edits check',
    quoted(name),
    ...(format === 'auto' ? [] : [`--format ${format}`]),
    ...(tags.trim() === '' ? [] : [`--tags ${quoted(tags.trim())}`]),
  ].join(' ')
  return html`<details class="more"><summary>Ask the model before it lands</summary><div class="stack">
    <p class="small">This answers the prompts and paraphrases of the file, and questions about other things, on a copy of the memory.
       With <code>--progressive</code> it lands in stages where users are answered from, and all of it is taken back at the first that fails. On the machine of the gateway:</p>
    <pre class="code" tabindex="0" aria-label="Command">${command}</pre></div></details>`
}

/** As a shell takes it. @param {string} text */
function quoted(text) {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

/** @param {number} count */
function number(count) {
  return count.toLocaleString('en')
}

/** @param {number} count @param {string} noun */
function many(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? '' : 's'}`
}
