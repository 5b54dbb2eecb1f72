// @ts-check
// Figures of evaluations, as text.

/** @typedef {{value: number, low: number, high: number, n: number}} Figure */

/** @param {number} value @param {string} unit */
export function numberText(value, unit) {
  if (unit === 'share') return (100 * value).toFixed(1)
  if (unit === 'probability') return value.toFixed(3)
  return unit === 'number' ? value.toFixed(1) : value.toFixed(0)
}

/** "93.5 (89.1–96.2)". @param {Figure | null | undefined} figure @param {string} unit */
export function figureText(figure, unit) {
  if (!figure) return '–'
  const { value, low, high } = figure
  return `${numberText(value, unit)} (${numberText(low, unit)}–${numberText(high, unit)})`
}

/** @param {Figure | null | undefined} first @param {Figure | null | undefined} last @param {string} unit */
export function changeText(first, last, unit) {
  if (!first || !last) return { text: '–', apart: false }
  const text = numberText(Math.abs(last.value - first.value), unit)
  const sign = last.value > first.value ? '+' : last.value < first.value ? '−' : ''
  return { text: `${sign}${text}`, apart: first.high < last.low || last.high < first.low }
}

const ORDER = ['palimpsest', 'base']

/** Methods that have a figure, ours first and the base next. @param {{values: Record<string, unknown>}[]} rows @returns {string[]} */
export function methodsOf(rows) {
  const names = [...new Set(rows.flatMap(({ values }) => Object.keys(values)))]
  const rank = (/** @type {string} */ name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length)
  return names.toSorted((a, b) => rank(a) - rank(b))
}

/** Columns of the list: measures that any report has. */
const HEADLINES = [
  ['harmonic/identical', 'harmonic mean'],
  ['reliability', 'reliability'],
  ['locality/identical', 'locality'],
  ['multi_hop', 'multi-hop'],
  ['selection/precision', 'precision'],
  ['selection/recall', 'recall'],
]
const MOST_COLUMNS = 4

/** @param {any[]} reports @returns {{label: string, of: (report: any) => string}[]} */
export function shownOf(reports) {
  const figure = (/** @type {any} */ report, /** @type {string} */ id) =>
    report.rows.find((/** @type {any} */ row) => row.id === id)?.values.palimpsest
  return HEADLINES.filter(([id = '']) => reports.some((report) => figure(report, id)))
    .slice(0, MOST_COLUMNS)
    .map(([id = '', label = '']) => ({ label, of: (report) => figureText(figure(report, id), 'share') }))
}
