/** From outcomes to the figures of the report's tables. Pure. */

import { KINDS, type Kind } from '../data/probe.ts'
import type { Method } from '../methods/methods.ts'
import { fluency } from './entropy.ts'
import { bootstrap, type Figure, harmonicMean, mean, median, wilson } from './intervals.ts'
import { isIdentical, isRight, magnitude, type Outcome, succeeds, tokenAccuracy, tokenAgreement } from './outcomes.ts'

/** One row of a table: a measure, and each method's figure. */
export interface Row {
  /** Stable, for programs: "locality/neighbourhood/identical". */
  readonly id: string
  readonly label: string
  /** How figures are written: shares in per cent. */
  readonly unit: 'share' | 'number' | 'tokens' | 'ms' | 'probability'
  readonly values: Partial<Record<Method, Figure>>
}

/** ROME's and MEMIT's attribute prompts are not among their locality figures, and not among ours. */
const NOT_LOCALITY = 'attribute'

export interface Scoring {
  readonly outcomes: readonly Outcome[]
  readonly methods: readonly Method[]
  readonly seed: number
}

/** Headline first, then each kind and sub-kind. */
export function generatedRows({ outcomes, methods, seed }: Scoring): Row[] {
  const asked = outcomes.filter(({ generated }) => Object.keys(generated).length > 0)
  const of = (kind: Kind, sub?: string) =>
    asked.filter(({ probe }) => probe.kind === kind && (sub === undefined || probe.sub === sub))
  const subs = (kind: Kind) => [...new Set(of(kind).map(({ probe }) => probe.sub))].sort()
  const row = (id: string, label: string, some: readonly Outcome[], test: Test) => shareRow(id, label, some, methods, test)
  const localities = of('locality').filter(({ probe }) => probe.sub !== NOT_LOCALITY)
  const rows: (Row | null)[] = [
    harmonicRow(asked, methods, seed, 'identical'),
    harmonicRow(asked, methods, seed, 'kept'),
    row('reliability', 'reliability', of('reliability'), isRight),
    row('generalization', 'generalization', of('generalization'), isRight),
    row('locality/identical', 'locality: byte-identical to base', localities, isIdentical),
    row('locality/kept', 'locality: still right where base is', localities, isKept),
    row('locality/right', 'locality: right', localities, isRight),
    ...subs('portability').map((sub) => row(`portability/${sub}`, `portability: ${plain(sub)}`, of('portability', sub), isRight)),
    multiHopRow(of('multi_hop'), methods),
    row('multi_hop/question', 'multi-hop: each question', of('multi_hop'), isRight),
    row('in_scope_neighbour', 'in-scope neighbours', of('in_scope_neighbour'), isRight),
    // One sub-kind alone is the headline again.
    ...subs('locality')
      .filter((sub) => sub === NOT_LOCALITY || localities.some(({ probe }) => probe.sub !== sub))
      .flatMap((sub) => [
        row(`locality/${sub}/identical`, `${plain(sub)}: byte-identical to base`, of('locality', sub), isIdentical),
        row(`locality/${sub}/right`, `${plain(sub)}: right`, of('locality', sub), isRight),
      ]),
    ...subs('traffic').flatMap((sub) => [
      row(`traffic/${sub}/identical`, `${sub}: byte-identical to base`, of('traffic', sub), isIdentical),
      row(`traffic/${sub}/right`, `${sub}: right`, of('traffic', sub), isRight),
    ]),
    ...subs('choice').flatMap((sub) => [
      row(`choice/${sub}`, `${sub}: right choice`, of('choice', sub), isRight),
      row(`choice/${sub}/identical`, `${sub}: byte-identical to base`, of('choice', sub), isIdentical),
    ]),
    meanRow('fluency', 'fluency (n-gram entropy)', 'number', of('fluency'), methods, seed, ({ generated }, method) => {
      const text = generated[method]?.text
      return text === undefined ? null : fluency(text)
    }),
    ...firedRows(asked, methods),
    ...costRows(asked, methods, seed),
  ]
  return rows.filter((one) => one !== null)
}

export function forcedRows({ outcomes, methods, seed }: Scoring): Row[] {
  const asked = outcomes.filter(({ forced }) => Object.keys(forced).length > 0)
  const kinds = KINDS.filter((kind) => asked.some(({ probe }) => probe.kind === kind))
  const rows = kinds.flatMap((kind) => {
    const all = asked.filter(({ probe }) => probe.kind === kind)
    return [...new Set(all.map(({ probe }) => probe.sub))].sort().flatMap((sub) => {
      const some = all.filter(({ probe }) => probe.sub === sub)
      const name = forcedName(kind, sub)
      const row = (id: string, label: string, unit: Row['unit'], measure: Measure) =>
        meanRow(`${kind}/${sub}/${id}`, `${name}: ${label}`, unit, some, methods, seed, measure)
      return [
        row('success', 'success', 'share', (outcome, method) => asNumber(succeeds(outcome, method))),
        row('magnitude', 'magnitude', 'probability', magnitude),
        row('accuracy', 'token accuracy', 'share', tokenAccuracy),
        ...(kind === 'locality' ? [row('agreement', 'token agreement with base', 'share', tokenAgreement)] : []),
      ]
    })
  })
  return rows.filter((one) => one !== null)
}

/** ROME's names for its three. */
function forcedName(kind: Kind, sub: string): string {
  if (kind === 'reliability') return `efficacy (${plain(sub)})`
  return kind === 'generalization' || kind === 'locality' ? plain(sub) : `${plain(kind)}, ${plain(sub)}`
}

type Test = (outcome: Outcome, method: Method) => boolean | null
type Measure = (outcome: Outcome, method: Method) => number | null

export const plain = (name: string): string => name.replaceAll('_', ' ')
const asNumber = (value: boolean | null): number | null => (value === null ? null : Number(value))

/** Of the probes that base answers rightly, whether the method does. */
function isKept(outcome: Outcome, method: Method): boolean | null {
  return isRight(outcome, 'base') === true ? isRight(outcome, method) : null
}

function judged(some: readonly Outcome[], method: Method, test: Test): boolean[] {
  return some.map((outcome) => test(outcome, method)).filter((verdict) => verdict !== null)
}

function rowOf(
  id: string,
  label: string,
  unit: Row['unit'],
  methods: readonly Method[],
  figure: (method: Method) => Figure | null,
) {
  const values = Object.fromEntries(methods.map((method) => [method, figure(method)]).filter(([, value]) => value !== null))
  return Object.keys(values).length === 0 ? null : ({ id, label, unit, values } as Row)
}

function shareRow(id: string, label: string, some: readonly Outcome[], methods: readonly Method[], test: Test): Row | null {
  return rowOf(id, label, 'share', methods, (method) => {
    const verdicts = judged(some, method, test)
    return wilson(verdicts.filter(Boolean).length, verdicts.length)
  })
}

/** As published: the mean over a record's probes, then over records; the interval is drawn over records. */
function meanRow(
  id: string,
  label: string,
  unit: Row['unit'],
  some: readonly Outcome[],
  methods: readonly Method[],
  seed: number,
  measure: Measure,
): Row | null {
  return rowOf(id, label, unit, methods, (method) => {
    const perRecord = clusters(some).flatMap((cluster) => {
      const one = mean(cluster.map((outcome) => measure(outcome, method)).filter((value) => value !== null))
      return one === null ? [] : [one]
    })
    return bootstrap(perRecord, mean, seed)
  })
}

/** MQuAKE's accuracy: a record counts when any of its questions is answered rightly. */
function multiHopRow(some: readonly Outcome[], methods: readonly Method[]): Row | null {
  return rowOf('multi_hop', 'multi-hop: any question of a record', 'share', methods, (method) => {
    const records = clusters(some).map((cluster) => judged(cluster, method, isRight))
    const answered = records.filter((verdicts) => verdicts.length > 0)
    return wilson(answered.filter((verdicts) => verdicts.some(Boolean)).length, answered.length)
  })
}

/** Probes by record; a probe of traffic stands for itself. */
function clusters(some: readonly Outcome[]): Outcome[][] {
  const out = new Map<string | number, Outcome[]>()
  for (const outcome of some) {
    const key = outcome.probe.record ?? outcome.probe.id
    const had = out.get(key)
    if (had === undefined) out.set(key, [outcome])
    else had.push(outcome)
  }
  return [...out.values()]
}

const HARMONIC_LABELS = {
  identical: 'harmonic mean (locality: byte-identical)',
  kept: 'harmonic mean (locality: still right)',
} as const

/** Of reliability, generalization where the file has any, and locality; drawn over records. */
function harmonicRow(
  all: readonly Outcome[],
  methods: readonly Method[],
  seed: number,
  locality: 'identical' | 'kept',
): Row | null {
  const hasGeneralization = all.some(({ probe }) => probe.kind === 'generalization')
  const parts: readonly (readonly [Kind, Test])[] = [
    ['reliability', isRight],
    ...(hasGeneralization ? [['generalization', isRight] as const] : []),
    ['locality', locality === 'identical' ? isIdentical : isKept],
  ]
  const records = clusters(all.filter(({ probe }) => probe.record !== null && probe.sub !== NOT_LOCALITY))
  return rowOf(`harmonic/${locality}`, HARMONIC_LABELS[locality], 'share', methods, (method) => {
    const tallies = records.map((cluster) => parts.map(([kind, test]) => tally(cluster, kind, method, test)))
    const statistic = (drawn: readonly (readonly Tally[])[]) => {
      const shares = parts.map((_, part) => {
        const n = drawn.reduce((sum, record) => sum + (record[part]?.n ?? 0), 0)
        return n === 0 ? null : drawn.reduce((sum, record) => sum + (record[part]?.hits ?? 0), 0) / n
      })
      return shares.includes(null) ? null : harmonicMean(shares.filter((share) => share !== null))
    }
    return bootstrap(tallies, statistic, seed)
  })
}

interface Tally {
  readonly hits: number
  readonly n: number
}

function tally(cluster: readonly Outcome[], kind: Kind, method: Method, test: Test): Tally {
  const verdicts = judged(
    cluster.filter(({ probe }) => probe.kind === kind),
    method,
    test,
  )
  return { hits: verdicts.filter(Boolean).length, n: verdicts.length }
}

/** How often any edit was put before the model. */
function firedRows(all: readonly Outcome[], methods: readonly Method[]): (Row | null)[] {
  const groups = [...new Set(all.map(({ probe }) => groupOf(probe.kind, probe.sub)))]
  return groups.map((group) =>
    shareRow(
      `fired/${group}`,
      `edit in the prompt: ${plain(group)}`,
      all.filter(({ probe }) => groupOf(probe.kind, probe.sub) === group),
      methods.filter((method) => method !== 'base' && method !== 'mello'),
      ({ generated }, method) => (generated[method] === undefined ? null : generated[method].edits.length > 0),
    ),
  )
}

function groupOf(kind: Kind, sub: string): string {
  return kind === 'traffic' || kind === 'choice' ? sub : kind
}

function costRows(all: readonly Outcome[], methods: readonly Method[], seed: number): (Row | null)[] {
  const average = (id: string, label: string, unit: Row['unit'], of: Measure) => meanRow(id, label, unit, all, methods, seed, of)
  const share = (id: string, label: string, test: Test) => shareRow(id, label, all, methods, test)
  return [
    average('tokens_added', 'prompt tokens added, mean', 'tokens', ({ generated }, m) => generated[m]?.tokensAdded ?? null),
    rowOf('latency', 'latency, median, ms', 'ms', methods, (m) => median(all.flatMap(({ generated }) => generated[m]?.ms ?? []))),
    share('reused', 'answers taken over from an equal prompt', ({ generated }, m) => generated[m]?.reused ?? null),
    share('cut_off', 'answers cut off by the token limit', ({ generated }, m) =>
      generated[m] === undefined ? null : generated[m].finish === 'length',
    ),
    average(
      'ike_demonstrations',
      'IKE demonstrations that fit',
      'number',
      ({ generated }, m) => generated[m]?.demonstrations ?? null,
    ),
    average('mello_steps', 'MeLLo steps', 'number', ({ generated }, m) => generated[m]?.steps ?? null),
  ]
}
