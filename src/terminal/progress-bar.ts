/** How far something is. */
export interface Step {
  readonly label: string
  readonly done: number
  /** null when it is not known how much there is. */
  readonly total: number | null
  /** `bytes` are shown in MB; anything else is counted and named ("edits"). */
  readonly unit: string
  readonly perSecond: number
  readonly secondsLeft: number | null
}

const BAR_CHARS = 24
const MEGABYTE = 1e6

function clockTime(seconds: number): string {
  const s = Math.max(0, Math.round(seconds))
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60]
  const tail = `${String(s % 60).padStart(2, '0')}`
  return h > 0 ? `${h}:${String(m).padStart(2, '0')}:${tail}` : `${m}:${tail}`
}

function amount(step: Step): string {
  const of =
    step.total === null
      ? ''
      : `/${step.unit === 'bytes' ? Math.round(step.total / MEGABYTE) : step.total.toLocaleString('en-GB')}`
  return step.unit === 'bytes'
    ? `${Math.round(step.done / MEGABYTE)}${of} MB`
    : `${step.done.toLocaleString('en-GB')}${of} ${step.unit}`
}

function rate(step: Step): string {
  if (step.perSecond <= 0) return ''
  if (step.unit === 'bytes') return `${(step.perSecond / MEGABYTE).toFixed(1)} MB/s`
  // Slow work would be shown as none.
  if (step.perSecond < 10) return `${step.perSecond.toFixed(1)}/s`
  return `${Math.round(step.perSecond).toLocaleString('en-GB')}/s`
}

function bar(part: number, chars: number): string {
  const full = Math.round(part * chars)
  return `[${'#'.repeat(full)}${'-'.repeat(chars - full)}]`
}

/** One line, at most `columns` wide: the bar goes first when room is short, then the label is cut. */
export function progressLine(step: Step, columns: number): string {
  const part = step.total === null || step.total <= 0 ? null : Math.min(1, Math.max(0, step.done / step.total))
  const left = step.secondsLeft === null ? '' : `${clockTime(step.secondsLeft)} left`
  const figures = [part === null ? '' : `${Math.floor(part * 100)}%`.padStart(4), amount(step), rate(step), left]
    .filter((x) => x !== '')
    .join('  ')
  const wide = part === null ? `${step.label}  ${figures}` : `${step.label} ${bar(part, BAR_CHARS)} ${figures}`
  if (wide.length <= columns) return wide
  const room = columns - figures.length - 2
  if (room < 4) return figures.slice(0, columns)
  return `${step.label.length > room ? `${step.label.slice(0, room - 1)}…` : step.label}  ${figures}`
}

/** What a bar is drawn on: `process.stderr`, or a stand-in. */
export interface BarStream {
  write(text: string): unknown
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
}

const DRAW_EVERY_MS = 100
const PLAIN_EVERY_MS = 5_000
const CLEAR_LINE = '\r\u001b[K'
const PLAIN_COLUMNS = 120

/** Draws one line over and over on a terminal; elsewhere (a log, a pipe) prints one now and then. `now`: milliseconds. */
export class Bar {
  readonly #stream: BarStream
  readonly #now: () => number
  #drawnAt = Number.NEGATIVE_INFINITY
  #label = ''
  #shown = false

  constructor(stream: BarStream, now: () => number) {
    this.#stream = stream
    this.#now = now
  }

  update(step: Step): void {
    const tty = this.#stream.isTTY === true
    const fresh = step.label !== this.#label
    this.#label = step.label
    // In a log, what is over within seconds leaves no line at all.
    if (fresh) this.#drawnAt = tty ? Number.NEGATIVE_INFINITY : this.#now()
    if (this.#now() - this.#drawnAt < (tty ? DRAW_EVERY_MS : PLAIN_EVERY_MS)) return
    this.#drawnAt = this.#now()
    if (!tty) {
      this.#stream.write(`${progressLine(step, PLAIN_COLUMNS)}\n`)
      return
    }
    // One column is left free: some terminals wrap on the last one.
    this.#stream.write(`${CLEAR_LINE}${progressLine(step, (this.#stream.columns || 80) - 1)}`)
    this.#shown = true
  }

  /** A line that stays; the bar goes on below it. */
  log(line: string): void {
    this.clear()
    this.#stream.write(`${line}\n`)
  }

  clear(): void {
    if (this.#shown) this.#stream.write(CLEAR_LINE)
    this.#shown = false
    this.#label = ''
  }
}
