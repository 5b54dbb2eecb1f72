import { describe, expect, it } from 'vitest'
import { wilson } from '../../../src/evaluate/metrics/intervals.ts'
import type { Outcome } from '../../../src/evaluate/metrics/outcomes.ts'
import type { Row } from '../../../src/evaluate/metrics/scores.ts'
import { html } from '../../../src/evaluate/report/html.ts'
import { openPlotter } from '../../../src/evaluate/report/plots.ts'
import { markdown, type Results } from '../../../src/evaluate/report/report.ts'

const share = (hits: number, n: number) => wilson(hits, n) ?? undefined
const row = (id: string, base: number, palimpsest: number, unit: Row['unit'] = 'share'): Row => ({
  ...{ id, label: id, unit },
  values: { base: share(base, 10), palimpsest: share(palimpsest, 10) } as Row['values'],
})
const results: Results = {
  about: {
    ...{
      version: '0.0.0',
      at: '2026-11-24T09:00:00.000Z',
      data: 'towns.json',
      format: 'counterfact',
      records: 2,
      recordsAsked: 1,
    },
    ...{ probes: { reliability: 2 }, editsLive: 2, methods: ['base', 'palimpsest'], model: 'tiny', device: 'cpu', threads: 1 },
    ...{ template: 'facts 00000000', seed: 0, minutes: 1 },
  },
  notes: ['a <note>'],
  generated: [row('reliability', 1, 9), row('locality/identical', 10, 10), row('tokens_added', 0, 3, 'tokens')],
  forced: [row('reliability/prompt/success', 2, 10)],
  selection: {
    rows: [
      {
        ...{ kind: 'reliability', sub: 'prompt', n: 10, found: wilson(9, 10), anyFound: wilson(9, 10), wrong: wilson(0, 10) },
        ...{
          cosineFound: wilson(7, 10),
          cosineWrong: wilson(1, 10),
          vectorRecall: { 1: wilson(8, 10) },
          subjectRecall: wilson(10, 10),
          offered: wilson(10, 10),
        },
      },
    ],
    gate: { precision: wilson(9, 9), recall: wilson(9, 10), falseAlarms: null },
    cosine: { precision: wilson(7, 8), recall: wilson(7, 10), falseAlarms: null },
    curve: [0.1, 0.3, 0.5].map((threshold) => ({
      threshold,
      precision: wilson(9, 10),
      recall: wilson(8, 10),
      falseAlarms: null,
    })),
    cosineCurve: [{ threshold: 0.5, precision: wilson(5, 10), recall: wilson(6, 10), falseAlarms: null }],
    ...{ threshold: 0.5, medianMs: null, p99Ms: null },
  },
}
const outcome: Outcome = {
  probe: {
    id: 'p',
    record: 0,
    kind: 'reliability',
    sub: 'prompt',
    turns: ['Is <b>Orrin</b> & Velm one?'],
    wants: ['e'],
    answers: ['Bo'],
  },
  generated: { base: answer('no'), palimpsest: answer('<script>alert(1)</script>') },
  forced: {},
  edits: new Map(),
}
function answer(text: string) {
  return { text, finish: 'stop' as const, edits: [], promptTokens: 1, completionTokens: 1, tokensAdded: 0, ms: 1, reused: false }
}

describe('the report', () => {
  it('as Markdown: a row a measure, shares in per cent with their interval', () => {
    const text = markdown(results)
    expect(text).toContain('| measure | n | base | palimpsest |')
    expect(text).toContain('| reliability | 10 | 10.0 (1.8–40.4) | 90.0 (59.6–98.2) |')
    expect(text.indexOf('## Teacher-forced')).toBeGreaterThan(text.indexOf('## Generated answers'))
  })

  it('as one page without script or anything from another host, whatever the answers hold', async () => {
    const page = html(results, [outcome], await openPlotter())
    expect(page).not.toMatch(/<script|<link|<img|@import|url\(|href=/i)
    expect(page.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:\/\//)
    expect(page).toContain('Is &lt;b&gt;Orrin&lt;/b&gt; &amp; Velm one?')
    expect(page).toContain('&lt;script&gt;alert(1)&lt;/script&gt;')
    expect(page.match(/<svg/g)?.length).toBeGreaterThanOrEqual(5)
    expect(page).toContain('var(--palimpsest)')
    expect(page).toContain('prefers-color-scheme:dark')
  })
})
