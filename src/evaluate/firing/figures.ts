/** Figures of which edits fired on which messages. Pure. */
import { type Figure, quantile, wilson } from '../metrics/intervals.ts'
import type { Fired } from './ask.ts'
import { type Case, isFound } from './case.ts'

export interface Shares {
  /** In scope: every wanted edit is among those selected. */
  readonly found: Figure | null
  /** In scope: found, and nothing beside it that is not allowed. */
  readonly right: Figure | null
  /** Near misses: anything is selected that is not allowed. */
  readonly fires: Figure | null
}

/** `type` null: all of the group; `group` null: all there is. */
export interface FiringRow extends Shares {
  readonly group: string | null
  readonly type: string | null
  readonly n: number
}

export interface FiringPoint extends Shares {
  readonly group: string | null
  readonly threshold: number
}

/** Candidates of a tenth of the scores: the mean score, and the share that was wanted. */
export interface Bin {
  readonly from: number
  readonly to: number
  readonly meanScore: number | null
  readonly wanted: Figure | null
}

/** Milliseconds, by rank. */
interface Spread {
  readonly n: number
  readonly p50: number
  readonly p99: number
}

/** `whole`: the question's embedding included; `reader`: of messages with which it read anything. */
export interface SelectionTimes {
  readonly whole: Spread | null
  readonly reader: Spread | null
}

export interface Firing {
  readonly rows: readonly FiringRow[]
  readonly curve: readonly FiringPoint[]
  readonly reliability: readonly Bin[]
  readonly times: SelectionTimes
}

export function firingOf(fired: readonly Fired[], thresholds: readonly number[]): Firing {
  const groups = [...groupBy(fired, (one) => one.case.group)]
  const curves: [string | null, readonly Fired[]][] = [[null, fired], ...(groups.length > 1 ? groups : [])]
  return {
    rows: [
      ...groups.flatMap(([group, own]) => rowsOf(group, own)),
      ...(groups.length > 1 ? sides(fired).map((some) => rowOf(null, null, some)) : []),
    ],
    curve: curves.flatMap(([group, own]) =>
      thresholds.map((threshold) => ({ group, threshold, ...sharesOf(own, (one) => above(one, threshold)) })),
    ),
    reliability: bins(fired),
    times: {
      whole: spread(fired.map(({ ms }) => ms)),
      reader: spread(fired.flatMap(({ readMs }) => readMs ?? [])),
    },
  }
}

function spread(ms: readonly number[]): Spread | null {
  const [p50, p99] = [quantile(ms, 0.5), quantile(ms, 0.99)]
  return p50 === null || p99 === null ? null : { n: ms.length, p50, p99 }
}

/** In scope first; each side's types, and all of it where there are several. */
function rowsOf(group: string, own: readonly Fired[]): FiringRow[] {
  return sides(own).flatMap((side) => {
    const types = [...groupBy(side, (one) => one.case.type)]
    return [...types.map(([type, some]) => rowOf(group, type, some)), ...(types.length > 1 ? [rowOf(group, null, side)] : [])]
  })
}

function sides(fired: readonly Fired[]): (readonly Fired[])[] {
  return [fired.filter((one) => inside(one.case)), fired.filter((one) => !inside(one.case))].filter((side) => side.length > 0)
}

const inside = ({ wants }: Case): boolean => wants.length > 0

function rowOf(group: string | null, type: string | null, some: readonly Fired[]): FiringRow {
  return { group, type, n: some.length, ...sharesOf(some, ({ selected }) => selected) }
}

function sharesOf(fired: readonly Fired[], selected: (one: Fired) => readonly string[]): Shares {
  const within = fired.filter((one) => inside(one.case))
  const without = fired.filter((one) => !inside(one.case))
  const share = (some: readonly Fired[], test: (one: Fired) => boolean) => wilson(some.filter(test).length, some.length)
  return {
    found: share(within, (one) => isFound(one.case, selected(one))),
    right: share(within, (one) => isFound(one.case, selected(one)) && !isAstray(one, selected(one))),
    fires: share(without, (one) => isAstray(one, selected(one))),
  }
}

function isWanted({ wants, equals = [] }: Case, id: string): boolean {
  return wants.includes(id) || equals.includes(id)
}

function isAstray(one: Fired, selected: readonly string[]): boolean {
  return selected.some((id) => !isWanted(one.case, id) && !one.allowed.includes(id))
}

/** What another threshold selects; what the limit of edits a turn cuts off is left in. */
function above({ considered }: Fired, threshold: number): string[] {
  return considered.flatMap(({ id, score, reason }) => (score >= threshold && reason !== 'outdated' ? [id] : []))
}

const BINS = 10

/** Edits that may fire or not tell nothing of the score, nor do those that a later edit replaces. */
function bins(fired: readonly Fired[]): Bin[] {
  const judged = fired.flatMap((one) =>
    one.considered.flatMap(({ id, score, reason }) => {
      const wanted = isWanted(one.case, id)
      return reason === 'outdated' || (!wanted && one.allowed.includes(id)) ? [] : [{ score, wanted }]
    }),
  )
  return Array.from({ length: BINS }, (_, i) => {
    const some = judged.filter(({ score }) => Math.min(BINS - 1, Math.floor(score * BINS)) === i)
    const sum = some.reduce((total, { score }) => total + score, 0)
    return {
      from: i / BINS,
      to: (i + 1) / BINS,
      meanScore: some.length === 0 ? null : sum / some.length,
      wanted: wilson(some.filter(({ wanted }) => wanted).length, some.length),
    }
  })
}

function groupBy(fired: readonly Fired[], key: (one: Fired) => string): Map<string, Fired[]> {
  const out = new Map<string, Fired[]>()
  for (const one of fired) {
    const had = out.get(key(one))
    if (had === undefined) out.set(key(one), [one])
    else had.push(one)
  }
  return out
}
