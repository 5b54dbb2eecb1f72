/** What bench/gateway.ts measured, as Markdown tables and as plots (Observable Plot, drawn without a browser). */

import { writeFileSync } from 'node:fs'
import { at, median } from '../client.ts'
import { ARMS, type ArmName, type First } from './first.ts'

/** A round of single requests, milliseconds. */
export interface Added {
  readonly arm: string
  readonly round: number
  readonly p50: number
  readonly p99: number
}

/** `rest`: without the reader's time. */
export interface Retrieved extends Added {
  readonly rest: { readonly p50: number; readonly p99: number }
}

/** A round at full load. */
export interface Loaded extends Added {
  readonly perSecond: number
  /** Processor time of the server. */
  readonly cpuMsPerRequest: number
  readonly loopDelayMs: { readonly p50: number; readonly p99: number; readonly max: number }
}

export interface Sample {
  readonly minute: number
  readonly rssBytes: number
  readonly heapBytes: number
  readonly perSecond: number
}

export interface Results {
  readonly at: string
  readonly machine: { readonly cpu: string; readonly cores: number; readonly loadAtStart: number; readonly node: string }
  readonly setup: object
  readonly latency?: readonly Added[]
  readonly retrieval?: { readonly added: readonly Retrieved[]; readonly embedMs: readonly number[] }
  readonly load?: readonly Loaded[]
  readonly first?: readonly First[]
  readonly soak?: readonly Sample[]
}

/** Median over rounds of what `own` has more than `peer` in the same round. */
function more<T extends { readonly round: number }>(own: readonly T[], peer: readonly T[], of: (one: T) => number): number {
  return median(own.flatMap((one) => peer.filter(({ round }) => round === one.round).map((other) => of(one) - of(other))))
}

function times<T extends { readonly round: number }>(own: readonly T[], peer: readonly T[], of: (one: T) => number): number {
  return median(own.flatMap((one) => peer.filter(({ round }) => round === one.round).map((other) => of(one) / of(other))))
}

const armsOf = (list: readonly { arm: string }[]) => [...new Set(list.map(({ arm }) => arm))]
const ofArm = <T extends { readonly arm: string }>(list: readonly T[], arm: string) => list.filter((one) => one.arm === arm)
const row = (...cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`
const table = (heads: readonly string[], rows: readonly string[]) =>
  [row(...heads), row(...heads.map(() => '---')), ...rows].join('\n')

function latencyTable(latency: readonly Added[]): string {
  const peer = ofArm(latency, 'node:http')
  const rows = armsOf(latency).map((arm) => {
    const own = ofArm(latency, arm)
    const cells = (['p50', 'p99'] as const).flatMap((p) => [median(own.map((one) => one[p])), more(own, peer, (one) => one[p])])
    return row(arm, ...cells.map((ms) => ms.toFixed(2)))
  })
  const heads = ['server, 1 client, edits off', 'p50, ms', 'more than node:http', 'p99, ms', 'more than node:http']
  return `## Latency added without retrieval (targets: 1 ms p50, 2.5 ms p99)\n\n${table(heads, rows)}`
}

function retrievalTable({ added, embedMs }: NonNullable<Results['retrieval']>): string {
  const rows = armsOf(added)
    .filter((arm) => !arm.startsWith('off'))
    .map((arm) => {
      const own = ofArm(added, arm)
      const peer = ofArm(added, `off, ${arm.split(', ')[1]}`)
      const extra = (pick: (one: Retrieved) => number) => more(own, peer, pick).toFixed(2)
      return row(
        arm,
        extra((one) => one.p50),
        extra((one) => one.p99),
        extra((one) => one.rest.p50),
        extra((one) => one.rest.p99),
      )
    })
  const embedding = `Embedding a question alone: p50 ${at(embedMs, 0.5).toFixed(2)} ms, p99 ${at(embedMs, 0.99).toFixed(2)} ms.`
  const heads = ['question', 'added p50, ms', 'added p99, ms', 'without the reader p50, ms', 'p99, ms']
  return `## Retrieval added, embedding included (targets without the reader: 12 ms p50, 25 ms p99; asked again: 1 ms)\n\n${table(heads, rows)}\n\n${embedding}`
}

function loadTable(load: readonly Loaded[]): string {
  const rows = armsOf(load).map((arm) => {
    const own = ofArm(load, arm)
    const of = (pick: (one: Loaded) => number, digits: number) => median(own.map(pick)).toFixed(digits)
    return row(
      arm,
      of((one) => one.perSecond, 0),
      times(own, ofArm(load, 'express'), (one) => one.perSecond).toFixed(2),
      of((one) => one.cpuMsPerRequest, 3),
      of((one) => one.p50, 2),
      of((one) => one.p99, 2),
      of((one) => one.loopDelayMs.p99, 1),
    )
  })
  const heads = ['server', 'requests/s', 'against Express', 'processor ms a request', 'p50, ms', 'p99, ms', 'loop delay p99, ms']
  return `## Requests a second (targets: 2,000 a process, loop delay p99 under 10 ms)\n\n${table(heads, rows)}`
}

function firstTable(first: readonly First[]): string {
  const rows = (['cold', 'warm'] as const).flatMap((kind) => {
    const of = (arm: ArmName) => ofArm(first, arm).filter((one) => one.kind === kind)
    return ARMS.map((arm) => {
      const own = of(arm)
      const middle = (pick: (one: First) => number) => median(own.map(pick)).toFixed(0)
      const ratio = (peer: ArmName) => times(own, of(peer), (one) => one.firstMs).toFixed(2)
      return row(
        kind,
        arm,
        middle((one) => one.firstMs),
        ratio('llama-server'),
        arm === 'one firing' ? ratio('edits off') : '',
        `${middle((one) => one.promptTokens)} (${middle((one) => one.cachedTokens)})`,
        `${own.filter((one) => one.edits > 0).length} of ${own.length}`,
      )
    })
  })
  const heads = ['', 'asked of', 'first token, ms', 'against llama-server', 'against its base', 'prompt tokens (cached)', 'fired']
  return `## Time to first token (targets: none firing 1.05 × + embedding; one firing 1.4 × cold, 2 × warm)\n\n${table(heads, rows)}`
}

function soakTable(soak: readonly Sample[]): string {
  const tenth = soak.length / 10
  const middle = (list: readonly Sample[], of: (one: Sample) => number) => median(list.map(of))
  const lowest = (list: readonly Sample[], of: (one: Sample) => number) => Math.min(...list.map(of))
  // As wide a window at either place, lest one collection of garbage decide; six samples of a sawtooth still leave much to chance.
  const third = Math.floor(soak.length / 3)
  const short = [soak.slice(tenth - 3, tenth + 3), soak.slice(-6)] as const
  const long = [soak.slice(tenth / 2, tenth / 2 + third), soak.slice(-third)] as const
  const rows = (
    [
      ['resident', 'rssBytes', middle, short],
      ['heap in use', 'heapBytes', middle, short],
      ['resident, over a third', 'rssBytes', middle, long],
      ['heap in use, over a third', 'heapBytes', middle, long],
      // Garbage makes a sawtooth of both; what is kept shows at its feet.
      ['resident, lowest', 'rssBytes', lowest, short],
      ['heap in use, lowest', 'heapBytes', lowest, short],
    ] as const
  ).map(([name, key, of, windows]) => {
    const [a, b] = windows.map((samples) => of(samples, (one) => one[key])) as [number, number]
    return row(name, (a / 1e6).toFixed(0), (b / 1e6).toFixed(0), (b / a).toFixed(3))
  })
  const total = soak.reduce((sum, one) => sum + one.perSecond, 0) / soak.length
  const heads = ['memory', 'after a tenth, MB', 'at the end, MB', 'ratio']
  return `## ${soak.at(-1)?.minute} minutes at full load, ${total.toFixed(0)} requests/s (target: resident 1.03 ×, by medians)\n\n${table(heads, rows)}`
}

export function tables({ at, machine, setup, latency, retrieval, load, first, soak }: Results): string {
  const made = `Made by \`npm run bench\`, ${at}, ${machine.cores} cores of ${machine.cpu} (load ${machine.loadAtStart.toFixed(1)} at its start), Node ${machine.node}; ${JSON.stringify(setup)}. Medians over rounds that take turns; differences and ratios are within a round.`
  const parts = [
    ...(latency ? [latencyTable(latency)] : []),
    ...(retrieval ? [retrievalTable(retrieval)] : []),
    ...(load ? [loadTable(load)] : []),
    ...(first ? [firstTable(first)] : []),
    ...(soak ? [soakTable(soak)] : []),
  ]
  return `# The gateway beside its peers\n\n${made}\n\n${parts.join('\n\n')}\n`
}

/** One SVG for each part that was measured. */
export async function writePlots({ latency, load, first, soak }: Results, out: string): Promise<void> {
  const [Plot, { parseHTML }] = await Promise.all([import('@observablehq/plot'), import('linkedom')])
  const { document } = parseHTML('<!doctype html><html><body></body></html>')
  const draw = (name: string, options: object) => {
    const style = { background: 'white', color: 'black', fontSize: '12px' }
    const drawn = Plot.plot({ document, style, width: 720, marginLeft: 150, marginBottom: 44, ...options } as never)
    const { outerHTML } = drawn as unknown as { outerHTML: string }
    writeFileSync(`${out}-${name}.svg`, `${outerHTML.replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ')}\n`)
  }
  const dots = (data: readonly object[], x: string) => [
    Plot.frame({ strokeOpacity: 0.15 }),
    Plot.dot(data as never, { x, y: 'arm', fill: 'steelblue', fillOpacity: 0.5, r: 3.5 }),
    Plot.tickX(data as never, Plot.groupY({ x: 'median' }, { x, y: 'arm', stroke: 'black', strokeWidth: 2 })),
  ]
  const arms = (list: readonly { arm: string }[]) => ({ domain: armsOf(list), label: null })
  if (latency) {
    const both = latency.flatMap(({ arm, p50, p99 }) => [
      { arm, ms: p50, what: 'p50' },
      { arm, ms: p99, what: 'p99' },
    ])
    const x = { label: 'ms, one client →', grid: true, zero: true }
    const facet = { data: both, y: 'what' }
    draw('latency', { height: 260, marginRight: 50, facet, fy: { label: null }, x, y: arms(latency), marks: dots(both, 'ms') })
  }
  if (load)
    draw('load', {
      height: 240,
      x: { label: 'requests/s →', grid: true, zero: true },
      y: arms(load),
      marks: dots(load, 'perSecond'),
    })
  if (first)
    for (const kind of ['cold', 'warm'] as const) {
      const own = first.filter((one) => one.kind === kind)
      const x = { label: `first token, ${kind}, ms →`, grid: true, zero: true }
      draw(`first-${kind}`, { height: 240, x, y: { domain: ARMS, label: null }, marks: dots(own, 'firstMs') })
    }
  if (soak) {
    const lines = soak.flatMap(({ minute, rssBytes, heapBytes }) => [
      { minute, mb: rssBytes / 1e6, what: 'resident' },
      { minute, mb: heapBytes / 1e6, what: 'heap in use' },
    ])
    const line = Plot.line(lines, { x: 'minute', y: 'mb', stroke: 'what' })
    const y = { label: '↑ MB', grid: true, zero: true }
    draw('soak', {
      height: 280,
      marginLeft: 60,
      marginRight: 90,
      x: { label: 'minutes →' },
      y,
      marks: [
        line,
        Plot.text(lines, Plot.selectLast({ x: 'minute', y: 'mb', z: 'what', text: 'what', dx: 6, textAnchor: 'start' })),
      ],
    })
  }
}
