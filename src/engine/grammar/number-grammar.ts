import { PalimpsestError } from '../../errors.ts'

/** Numbers between bounds, as GBNF (see json-grammar.ts). */

type Fields = Readonly<Record<string, unknown>>

/** Digits of an unbounded number: enough for all that a double tells apart. */
const MOST_DIGITS = 16

/** A rule body for integers within `minimum`, `maximum` and their exclusive kin. */
export function integers(fields: Fields, param: string): string {
  const { low, high } = bounds(fields, param)
  return integersBetween(
    low === null ? null : Math.floor(low.value) + (low.exclusive || !Number.isInteger(low.value) ? 1 : 0),
    high === null ? null : Math.ceil(high.value) - (high.exclusive || !Number.isInteger(high.value) ? 1 : 0),
    param,
  )
}

/** The same for numbers; null: unbounded. Only whole, not exclusive bounds from 0 on can be enforced. */
export function numbers(fields: Fields, param: string): string | null {
  const { low, high } = bounds(fields, param)
  if (low === null && high === null) return null
  for (const bound of [low, high])
    if (bound !== null && (bound.exclusive || !Number.isInteger(bound.value) || bound.value < 0))
      throw unenforceable(param, bound.keyword)
  if (low === null) throw unenforceable(param, high?.keyword ?? 'maximum')
  const fraction = '("." [0-9]{1,16})?'
  if (high === null) return `(${integersBetween(low.value, null, param)}) ${fraction}`
  const top = `"${high.value}" ("." "0"{1,4})?`
  return low.value > high.value - 1 ? `(${top})` : `((${integersBetween(low.value, high.value - 1, param)}) ${fraction} | ${top})`
}

interface Bound {
  readonly value: number
  readonly exclusive: boolean
  readonly keyword: string
}

function bounds(fields: Fields, param: string): { low: Bound | null; high: Bound | null } {
  const read = (keyword: string, exclusive: boolean): Bound[] => {
    const value = fields[keyword]
    if (value === undefined) return []
    if (typeof value !== 'number' || !Number.isFinite(value) || Math.abs(value) > Number.MAX_SAFE_INTEGER)
      throw unenforceable(param, keyword)
    return [{ value, exclusive, keyword }]
  }
  const lows = [...read('minimum', false), ...read('exclusiveMinimum', true)]
  const highs = [...read('maximum', false), ...read('exclusiveMaximum', true)]
  const tightest = (all: readonly Bound[], sign: 1 | -1) =>
    all.reduce<Bound | null>((best, one) => (best === null || sign * (one.value - best.value) >= 0 ? one : best), null)
  return { low: tightest(lows, 1), high: tightest(highs, -1) }
}

function integersBetween(low: number | null, high: number | null, param: string): string {
  if (low !== null && high !== null && low > high)
    throw new PalimpsestError('invalid_value', `No number can be valid under \`${param}\`: its bounds cross.`, { param })
  const parts: string[] = []
  if (low === null || low < 0) {
    const least = high === null || high >= -1 ? 1 : -high
    parts.push(`"-" (${naturals(least, low === null ? null : -low)})`)
  }
  if (high === null || high >= 0) parts.push(naturals(Math.max(0, low ?? 0), high))
  return parts.join(' | ')
}

/** Integers from `low` ≥ 0 on, without leading zeros. */
function naturals(low: number, high: number | null): string {
  if (high === null) {
    const digits = String(low).length
    const longer = digits < MOST_DIGITS ? [`[1-9] [0-9]{${digits},${MOST_DIGITS - 1}}`] : []
    return [sameLength(String(low), '9'.repeat(digits)), ...longer].join(' | ')
  }
  const parts: string[] = []
  const last = String(high).length
  for (let digits = String(low).length; digits <= last; digits++) {
    const from = digits === String(low).length ? String(low) : `1${'0'.repeat(digits - 1)}`
    parts.push(sameLength(from, digits === last ? String(high) : '9'.repeat(digits)))
  }
  return parts.join(' | ')
}

/** From `low` to `high`, both written with the same number of digits. */
function sameLength(low: string, high: string): string {
  const [a, b] = [low[0], high[0]]
  if (a === undefined || b === undefined) return ''
  const rest = low.length - 1
  const digits = rest === 0 ? '' : ` [0-9]{${rest}}`
  if (/^0*$/.test(low.slice(1)) && /^9*$/.test(high.slice(1))) return `[${a}-${b}]${digits}`
  if (a === b) return `"${a}" (${sameLength(low.slice(1), high.slice(1))})`
  const [next, before] = [Number(a) + 1, Number(b) - 1]
  const between = next <= before ? [`[${next}-${before}]${digits}`] : []
  const first = `"${a}" (${sameLength(low.slice(1), '9'.repeat(rest))})`
  return [first, ...between, `"${b}" (${sameLength('0'.repeat(rest), high.slice(1))})`].join(' | ')
}

function unenforceable(param: string, keyword: string): PalimpsestError {
  const at = `${param}.${keyword}`
  return new PalimpsestError(
    'unsupported_field',
    `\`${at}\` cannot be enforced: of other numbers than integers, only whole inclusive bounds from 0 on can.`,
    { param: at },
  )
}
