/** Ratios of one run beside those of the last, for bench/quick.ts. Pure. */

export interface Measure {
  readonly name: string
  /** Without a unit, so that it means the same on another machine. */
  readonly ratio: number
  readonly better: 'less' | 'more'
}

export interface Row {
  readonly name: string
  /** null: not measured this time. */
  readonly now: number | null
  /** null: not among the last results. */
  readonly last: number | null
  readonly worse: boolean
}

/** By how much a ratio may be worse before it is flagged: runs of one version differ by less. */
const TOLERANCE = 0.25

/** A row for each measure of either run; what is measured now stands first. */
export function compared(now: readonly Measure[], last: readonly Measure[]): Row[] {
  const rows = now.map(({ name, ratio, better }): Row => {
    const before = last.find((one) => one.name === name)?.ratio ?? null
    return { name, now: ratio, last: before, worse: before !== null && isWorse(ratio, before, better) }
  })
  const gone = last.filter(({ name }) => !now.some((one) => one.name === name))
  return [...rows, ...gone.map(({ name, ratio }): Row => ({ name, now: null, last: ratio, worse: false }))]
}

/** What is no number has not been measured, and does not pass for as good as before. */
function isWorse(now: number, last: number, better: Measure['better']): boolean {
  const kept = better === 'less' ? now <= last * (1 + TOLERANCE) : now >= last / (1 + TOLERANCE)
  return !kept
}

/** As Markdown. */
export function tableOf(rows: readonly Row[]): string {
  const text = (value: number | null) => (value === null ? '–' : value.toPrecision(3))
  const lines = rows.map(({ name, now, last, worse }) => {
    const change = now === null || last === null ? '–' : `${(now / last).toFixed(2)}${worse ? ' WORSE' : ''}`
    return `| ${name} | ${text(now)} | ${text(last)} | ${change} |`
  })
  return ['| measure | now | last | now/last |', '|---|---|---|---|', ...lines].join('\n')
}
