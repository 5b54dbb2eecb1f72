import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Figure } from '../../src/evaluate/metrics/intervals.ts'
import { html } from '../../src/evaluate/report/html.ts'
import { openPlotter } from '../../src/evaluate/report/plots.ts'
import type { Results } from '../../src/evaluate/report/report.ts'

const figure = (value: number, n = 100): Figure => ({ value, low: Math.max(0, value - 0.05), high: Math.min(1, value + 0.05), n })

/** What `palimpsest eval` might have found on a day; typed, so that the reader is tested against what the writer writes. */
export function resultsOf(at: string, reliability: number, about: Partial<Results['about']> = {}): Results {
  return {
    about: {
      ...{ version: '0.1.0', at, data: 'tiny.json', format: 'counterfact', records: 100, recordsAsked: 50 },
      ...{ probes: { reliability: 50, locality: 50 }, editsLive: 100, methods: ['base', 'palimpsest'], model: 'small' },
      ...{ device: 'CPU', threads: 1, template: 'facts 1234', seed: 0, minutes: 3.2 },
      ...about,
    },
    notes: ['Answers have at most 32 tokens.'],
    generated: [
      {
        ...{ id: 'harmonic/identical', label: 'harmonic mean (locality: byte-identical)', unit: 'share' },
        values: { base: figure(0), palimpsest: figure(reliability - 0.02) },
      },
      {
        ...{ id: 'reliability', label: 'reliability', unit: 'share' },
        values: { base: figure(0.02), palimpsest: figure(reliability) },
      },
      {
        id: 'locality/identical',
        label: 'locality: byte-identical to base',
        unit: 'share',
        values: { palimpsest: figure(0.97) },
      },
      {
        id: 'latency',
        label: 'latency, median, ms',
        unit: 'ms',
        values: { palimpsest: { value: 140, low: 131, high: 150, n: 50 } },
      },
    ],
    forced: [
      {
        ...{ id: 'reliability/prompt/success', label: 'efficacy (prompt): success', unit: 'share' },
        values: { base: figure(0.2), palimpsest: figure(0.99) },
      },
    ],
    selection: null,
  }
}

export async function writeReport(dir: string, name: string, results: Results): Promise<void> {
  mkdirSync(join(dir, name), { recursive: true })
  writeFileSync(join(dir, name, 'results.json'), JSON.stringify(results))
  writeFileSync(join(dir, name, 'report.html'), html(results, [], await openPlotter()))
}

/** Two reports on the same data, one of selection alone, and a broken one. */
export async function writeReports(dir: string): Promise<void> {
  await writeReport(dir, 'tiny-20261101-080000', resultsOf('2026-11-01T08:00:00.000Z', 0.8))
  await writeReport(dir, 'tiny-20261120-080000', resultsOf('2026-11-20T08:00:00.000Z', 0.95))
  const totals = (precision: number) => ({ precision: figure(precision), recall: figure(0.9), falseAlarms: figure(0.01) })
  const alone = resultsOf('2026-11-10T08:00:00.000Z', 0.8, { model: null, methods: [] })
  await writeReport(dir, 'selected', {
    ...{ ...alone, generated: [], forced: [] },
    selection: {
      ...{ rows: [], gate: totals(0.98), cosine: totals(0.7), curve: [], cosineCurve: [], threshold: 0.6 },
      ...{ medianMs: { value: 2, low: 1.8, high: 2.2, n: 100 }, p99Ms: 5 },
    },
  })
  mkdirSync(join(dir, 'cut-short'))
  writeFileSync(join(dir, 'cut-short', 'results.json'), '{"about": {"version": "0.1.0"')
}
