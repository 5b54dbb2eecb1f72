/** What bench/proxy.ts measured, as Markdown tables. */
import { median } from '../client.ts'

export interface Level {
  readonly connections: number
  readonly perSecond: number
  readonly p50: number
  readonly p99: number
  /** Processor microseconds a request; NaN (null in JSON) for the stub. */
  readonly cpuUs: number
}

/** One round of one arm; milliseconds. */
export interface Round {
  readonly arm: string
  readonly round: number
  readonly latency: { readonly p50: number; readonly p99: number }
  /** A paced stream: to the first word, and between words. */
  readonly stream: { readonly first: number; readonly gap: number; readonly gap99: number; readonly words: number }
  readonly levels: readonly Level[]
  readonly loadAverage: number
}

export interface Results {
  readonly at: string
  readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string }
  readonly setup: object
  readonly rounds: readonly Round[]
  readonly memory: readonly { readonly name: string; readonly of: string; readonly rssBytes: number }[]
}

const BASE = 'direct'
/** The peer that requests a second are compared with. */
const PEER = 'portkey'
const BOUNDS_MS = [5, 10, 50]
const HEADLINE = 16

const shown = (value: number, digits: number) => (Number.isNaN(value) ? '–' : value.toFixed(digits))
const row = (...cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`
const table = (heads: readonly string[], rows: readonly string[]) =>
  [row(...heads), row(...heads.map(() => '---')), ...rows].join('\n')

export function tables({ at, machine, setup, rounds, memory }: Results): string {
  const arms = [...new Set(rounds.map(({ arm }) => arm))].sort((a, b) => Number(b === BASE) - Number(a === BASE))
  const own = (arm: string) => rounds.filter((one) => one.arm === arm)
  const of = (arm: string, value: (one: Round) => number) => median(own(arm).map(value))
  /** Against another arm in the same round. */
  const against = (arm: string, other: string, value: (one: Round) => number, how: (a: number, b: number) => number) =>
    median(
      own(arm).flatMap((one) =>
        own(other)
          .filter(({ round }) => round === one.round)
          .map((two) => how(value(one), value(two))),
      ),
    )
  const added = (arm: string, value: (one: Round) => number) => against(arm, BASE, value, (a, b) => a - b)
  const level = (one: Round, connections: number) => one.levels.find((found) => found.connections === connections)
  const perSecond = (one: Round) => level(one, HEADLINE)?.perSecond ?? Number.NaN
  const frontier = (one: Round, boundMs: number) =>
    Math.max(0, ...one.levels.filter(({ p99 }) => p99 <= boundMs).map((found) => found.perSecond))
  const rows = (cells: (arm: string) => readonly (string | number)[]) => arms.map((arm) => row(arm, ...cells(arm)))
  const mb = (name: string, when: string) =>
    shown((memory.find((one) => one.name === name && one.of === when)?.rssBytes ?? Number.NaN) / 1e6, 0)
  const load = rounds.map(({ loadAverage }) => loadAverage)
  return `# The gateway over an HTTP upstream, beside its peers

Made by \`npm run bench:proxy\`, ${at}, ${machine.cores} cores of ${machine.cpu}, Node ${machine.node}; load average ${Math.min(...load).toFixed(1)} to ${Math.max(...load).toFixed(1)}. ${JSON.stringify(setup)}. Medians over rounds that take turns; what is added, and ratios, are within a round.

## One client

${table(
  [
    'arm',
    'p50, ms',
    'added',
    'p99, ms',
    'added',
    'first word of a stream, ms',
    'added',
    'gap between words, ms',
    'added',
    'gap p99, ms',
  ],
  rows((arm) => [
    shown(
      of(arm, (one) => one.latency.p50),
      2,
    ),
    shown(
      added(arm, (one) => one.latency.p50),
      2,
    ),
    shown(
      of(arm, (one) => one.latency.p99),
      2,
    ),
    shown(
      added(arm, (one) => one.latency.p99),
      2,
    ),
    shown(
      of(arm, (one) => one.stream.first),
      2,
    ),
    shown(
      added(arm, (one) => one.stream.first),
      2,
    ),
    shown(
      of(arm, (one) => one.stream.gap),
      3,
    ),
    shown(
      added(arm, (one) => one.stream.gap),
      3,
    ),
    shown(
      of(arm, (one) => one.stream.gap99),
      2,
    ),
  ]),
)}

## Load

${table(
  [
    'arm',
    `requests/s at ${HEADLINE} connections`,
    `against ${PEER}`,
    'p99 there, ms',
    'processor µs a request',
    ...BOUNDS_MS.map((bound) => `most requests/s at p99 ≤ ${bound} ms`),
  ],
  rows((arm) => [
    shown(of(arm, perSecond), 0),
    shown(
      against(arm, PEER, perSecond, (a, b) => a / b),
      2,
    ),
    shown(
      of(arm, (one) => level(one, HEADLINE)?.p99 ?? Number.NaN),
      1,
    ),
    shown(
      of(arm, (one) => level(one, HEADLINE)?.cpuUs ?? Number.NaN),
      0,
    ),
    ...BOUNDS_MS.map((bound) =>
      shown(
        of(arm, (one) => frontier(one, bound)),
        0,
      ),
    ),
  ]),
)}

## Memory

${table(
  ['server', 'idle, MB', 'loaded', 'half a minute after'],
  [...new Set(memory.map(({ name }) => name))].map((name) => row(name, mb(name, 'idle'), mb(name, 'loaded'), mb(name, 'after'))),
)}
`
}
