/** The report as one HTML page: no script, nothing from elsewhere, light or dark as the reader's system is. */

import { inScope } from '../data/probe.ts'
import { DESCRIPTIONS, METHODS, type Method } from '../methods/methods.ts'
import { isIdentical, isRight, type Outcome } from '../metrics/outcomes.ts'
import { plain, type Row } from '../metrics/scores.ts'
import type { Plotter } from './plots.ts'
import {
  CURVE_HEAD,
  curveBody,
  type Results,
  SELECTION_HEAD,
  type SelectionResults,
  selectionBody,
  settings,
  tableOf,
  title,
  totalsLines,
} from './report.ts'

/** Answers of a sort that the page lists. */
const LISTED = 40
/** Characters of an answer shown. */
const SHOWN_CHARS = 240

const COLOURS: Readonly<Record<Method, readonly [light: string, dark: string]>> = {
  base: ['#6b7280', '#9ca3af'],
  ice: ['#b45309', '#f59e0b'],
  ike: ['#047857', '#34d399'],
  cosine: ['#be185d', '#f472b6'],
  mello: ['#6d28d9', '#a78bfa'],
  palimpsest: ['#1d4ed8', '#60a5fa'],
  adapter: ['#0e7490', '#22d3ee'],
}

export function html(results: Results, outcomes: readonly Outcome[], plotter: Plotter): string {
  const { about, notes, generated, forced, selection } = results
  const sections = [
    `<h1>${text(title(about))}</h1>`,
    `<dl>${settings(about)
      .map(([name, value]) => `<dt>${text(name)}</dt><dd>${text(value)}</dd>`)
      .join('')}</dl>`,
    notes.length === 0 ? '' : `<ul class="notes">${notes.map((note) => `<li>${text(note)}</li>`).join('')}</ul>`,
    generated.length === 0 ? '' : generatedSection(generated, about.methods, plotter),
    forced.length === 0 ? '' : forcedSection(forced, about.methods, plotter),
    selection === null ? '' : selectionSection(selection, plotter),
    outcomes.length === 0 ? '' : answersSection(outcomes, about.methods),
  ]
  return page(title(about), sections)
}

/** One page of these sections; empty ones are left out. */
export function page(title: string, sections: readonly string[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${text(title)}</title>
<style>${style()}</style>
</head>
<body><main>
${sections.filter((section) => section !== '').join('\n')}
</main></body>
</html>
`
}

/** Rows of shares that are worth a picture. */
const PLOTTED =
  /^(?:harmonic|reliability|generalization|locality\/(?:identical|kept)$|portability|multi_hop|in_scope_neighbour|choice\/[^/]+$)/
const COSTS: readonly string[] = ['tokens_added', 'latency', 'fluency']

function generatedSection(rows: readonly Row[], methods: readonly Method[], plotter: Plotter): string {
  const plotted = rows.filter(({ id, unit }) => unit === 'share' && PLOTTED.test(id))
  const costs = rows.filter(({ id }) => COSTS.includes(id))
  return `<section><h2>Generated answers</h2>
<p>Greedy, chat template. An answer is right when it holds an accepted one as whole words (case, accents and punctuation aside) that are
no mere echo of what the model was told, and does not speak of an edit's subject that nobody asked about. Bars are 95 % intervals:
Wilson's for shares, bootstrap over records for means.</p>
<ul class="methods">${methods.map((method) => `<li><b class="${method}">${method}</b> ${text(DESCRIPTIONS[method])}</li>`).join('')}</ul>
<figure>${plotter.dots(plotted, methods)}</figure>
<div class="side"><figure>${plotter.tradeOff(rows, methods)}</figure>${costs.map((row) => `<figure>${plotter.bars(row, methods)}</figure>`).join('')}</div>
${tableHtml(tableOf(rows, methods))}</section>`
}

function forcedSection(rows: readonly Row[], methods: readonly Method[], plotter: Plotter): string {
  const shares = rows.filter(({ unit }) => unit === 'share')
  return `<section><h2>Teacher-forced</h2>
<p>Raw text, no chat template, edits in front as plain sentences. Success: the wanted answer is likelier than its rival (ROME, MEMIT; mean
over tokens). Magnitude: the difference of the two probabilities. Token accuracy: share of the answer's tokens that are the argmax
(EasyEdit). Not comparable with the table above.</p>
<figure>${plotter.dots(shares, methods)}</figure>
${tableHtml(tableOf(rows, methods))}</section>`
}

function selectionSection(selection: SelectionResults, plotter: Plotter): string {
  return `<section><h2>Selection alone</h2>
${totalsLines(selection)
  .map((line) => `<p>${text(line)}</p>`)
  .join('')}
<p class="key"><b class="palimpsest">● gate</b> <b class="cosine">● cosine</b></p>
<figure>${plotter.selection(selection)}</figure>
${tableHtml({ head: [...SELECTION_HEAD], body: selectionBody(selection.rows) })}
<h3>Precision and recall as the threshold moves</h3>
<div class="side"><figure>${plotter.curve(selection)}</figure>${tableHtml({ head: [...CURVE_HEAD], body: curveBody(selection) })}</div></section>`
}

function answersSection(outcomes: readonly Outcome[], methods: readonly Method[]): string {
  const lists = methods
    .filter((method) => method !== 'base')
    .flatMap((method) => {
      const answered = outcomes.filter(({ generated }) => generated[method] !== undefined)
      const missed = answered.filter((outcome) => inScope(outcome.probe) && isRight(outcome, method) === false)
      const moved = answered.filter((outcome) => !inScope(outcome.probe) && isIdentical(outcome, method) === false)
      return [
        answersList(`${method}: in scope, not right`, missed, method),
        answersList(`${method}: out of scope, not the base's answer`, moved, method),
      ]
    })
  return lists.join('') === '' ? '' : `<section><h2>Answers to look at</h2>${lists.join('')}</section>`
}

function answersList(name: string, some: readonly Outcome[], method: Method): string {
  if (some.length === 0) return ''
  const body = some
    .slice(0, LISTED)
    .map(({ probe, generated }) => [
      `${plain(probe.kind)}, ${plain(probe.sub)}`,
      clipped(probe.turns.at(-1) ?? ''),
      clipped(probe.answers.slice(0, 3).join(' / ')),
      clipped(generated.base?.text ?? ''),
      clipped(generated[method]?.text ?? ''),
    ])
  const count = some.length > LISTED ? `${LISTED} of ${some.length}` : String(some.length)
  return `<details><summary>${text(name)} (${count})</summary>${tableHtml({ head: ['probe', 'question', 'accepted', 'base', method], body }, 'answers')}</details>`
}

function clipped(whole: string): string {
  return whole.length <= SHOWN_CHARS ? whole : `${whole.slice(0, SHOWN_CHARS)}…`
}

export function tableHtml(
  { head, body }: { readonly head: readonly string[]; readonly body: readonly (readonly string[])[] },
  name = 'figures',
): string {
  const row = (cells: readonly string[], tag: 'th' | 'td') =>
    `<tr>${cells.map((cell) => `<${tag}>${text(cell)}</${tag}>`).join('')}</tr>`
  return `<div class="scroll"><table class="${name}"><thead>${row(head, 'th')}</thead><tbody>${body.map((cells) => row(cells, 'td')).join('')}</tbody></table></div>`
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

/** Questions and answers are data: nothing of them is markup. */
export function text(raw: string): string {
  return raw.replace(/[&<>"']/g, (mark) => ENTITIES[mark] ?? mark)
}

function style(): string {
  const variables = (theme: 0 | 1) => METHODS.map((method) => `--${method}:${COLOURS[method][theme]}`).join(';')
  return `
:root{color-scheme:light dark;--paper:#fff;--ink:#1f2937;--soft:#6b7280;--line:#e5e7eb;${variables(0)}}
@media (prefers-color-scheme:dark){:root{--paper:#111827;--ink:#e5e7eb;--soft:#9ca3af;--line:#374151;${variables(1)}}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1160px;margin:0 auto;padding:24px}
h1{font-size:24px;margin:0 0 12px}h2{font-size:19px;margin:36px 0 8px;border-top:1px solid var(--line);padding-top:20px}h3{font-size:16px;margin:24px 0 8px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0;font-size:14px}dt{color:var(--soft)}dd{margin:0}
.notes,.methods{font-size:13.5px;color:var(--soft);padding-left:20px}.methods b,.key b{margin-right:4px}
${METHODS.map((method) => `b.${method}{color:var(--${method})}`).join('')}
figure{margin:12px 0;overflow-x:auto}svg{max-width:100%;height:auto}
.side{display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:12.5px;margin:8px 0}th,td{padding:3px 8px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
.figures td,.figures th{white-space:nowrap}th:first-child,td:first-child,.answers td,.answers th{text-align:left}th{color:var(--soft);font-weight:600}
.answers td{min-width:110px;overflow-wrap:anywhere}
summary{cursor:pointer;margin:10px 0 4px}`
}
