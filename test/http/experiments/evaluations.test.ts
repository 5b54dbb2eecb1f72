import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { resultsOf, writeReport, writeReports } from '../../browser/reports.ts'
import { type Served, serve } from '../fakes.ts'

let dir: string
let served: Served
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'palimpsest-reports-'))
  await writeReports(dir)
  served = await serve({ gateway: { reportsDir: dir }, limits: { reportBytes: 200_000 } })
})
afterEach(async () => {
  await served.close()
  rmSync(dir, { recursive: true, force: true })
})

// biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
async function get(path: string): Promise<{ status: number; body: any; headers: Headers }> {
  const response = await fetch(`${served.base}${path}`)
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text.startsWith('{') ? JSON.parse(text) : text }
}

describe('the reports of evaluations', () => {
  it('are listed, the latest first, with their headline figures; a broken one is named', async () => {
    const { body } = await get('/v1/evaluations')
    expect(body.data.map(({ id }: { id: string }) => id)).toEqual(['tiny-20261120-080000', 'selected', 'tiny-20261101-080000'])
    expect(body.data[0]).toMatchObject({ data: 'tiny.json', model: 'small', records_asked: 50, methods: ['base', 'palimpsest'] })
    const rows = body.data[0].rows as { id: string; protocol: string; values: object }[]
    expect(rows.find(({ id }) => id === 'reliability')?.values).toEqual({
      base: { value: 0.02, low: 0, high: 0.07, n: 100 },
      palimpsest: { value: 0.95, low: 0.95 - 0.05, high: 1, n: 100 },
    })
    expect(body.data[1].rows.map(({ id }: { id: string }) => id)).toEqual([
      ...['selection/precision', 'selection/recall', 'selection/falseAlarms', 'selection/latency'],
    ])
    expect(body.broken).toEqual([{ id: 'cut-short', message: expect.stringMatching(/^results\.json is no JSON/) }])
    expect([body.folder, body.left_out]).toEqual([dir, 0])
  })

  it('are read one at a time, whole, and anew when their file changes', async () => {
    const { body } = await get('/v1/evaluations/tiny-20261120-080000')
    expect(body).toMatchObject({ object: 'evaluation', notes: ['Answers have at most 32 tokens.'], probes: { reliability: 50 } })
    expect(body.rows).toHaveLength(5)
    await writeReport(dir, 'tiny-20261120-080000', resultsOf('2026-11-21T08:00:00.000Z', 0.5))
    expect((await get('/v1/evaluations/tiny-20261120-080000')).body.at).toBe('2026-11-21T08:00:00.000Z')
  })

  it('have a page that may run and load nothing', async () => {
    const { body, headers, status } = await get('/v1/evaluations/tiny-20261120-080000/report')
    expect([status, headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8'])
    expect(headers.get('content-security-policy')).toBe(
      "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; sandbox",
    )
    expect(body).toContain('<h1>Evaluation on tiny.json, small</h1>')
  })

  it.each(['..%2F..%2Fetc', '..', '%2e%2e', '.hidden', 'a%00b', 'none', 'a%5Cb', 'x'.repeat(250)])(
    'are not found elsewhere: %s',
    async (id) => {
      mkdirSync(join(dir, '.hidden'))
      writeFileSync(join(dir, '.hidden', 'results.json'), '{}')
      for (const path of [`/v1/evaluations/${id}`, `/v1/evaluations/${id}/report`]) expect((await get(path)).status).toBe(404)
    },
  )

  it('are refused with what is wrong where they are broken, too large or without a page', async () => {
    const broken = await get('/v1/evaluations/cut-short')
    expect([broken.status, broken.body.error.code]).toEqual([500, 'evaluation_broken'])
    expect(broken.body.error.message).toMatch(/^cut-short: results\.json is no JSON .*palimpsest eval$/)
    const other: object = { ...resultsOf('2026-11-21T08:00:00.000Z', 0.5), generated: [{ id: 'reliability', values: 'many' }] }
    writeFileSync(join(dir, 'selected', 'results.json'), JSON.stringify(other))
    expect((await get('/v1/evaluations/selected')).body.error.message).toMatch(/not what palimpsest eval writes \(generated\.0/)
    writeFileSync(join(dir, 'selected', 'results.json'), ' '.repeat(200_001))
    expect((await get('/v1/evaluations/selected')).body.error.message).toMatch(/200001 bytes, more than the 200000/)
    rmSync(join(dir, 'tiny-20261120-080000', 'report.html'))
    expect((await get('/v1/evaluations/tiny-20261120-080000/report')).status).toBe(404)
    expect((await get('/v1/evaluations?limit=3')).status).toBe(400)
    expect((await fetch(`${served.base}/v1/evaluations`, { method: 'POST' })).status).toBe(405)
  })

  it('are none where there is no such folder, and a link out of it is no report', async () => {
    const elsewhere = mkdtempSync(join(tmpdir(), 'palimpsest-elsewhere-'))
    await writeReport(elsewhere, 'secret', resultsOf('2026-11-21T08:00:00.000Z', 0.5))
    symlinkSync(join(elsewhere, 'secret'), join(dir, 'linked'))
    expect((await get('/v1/evaluations')).body.data).toHaveLength(3)
    expect((await get('/v1/evaluations/linked')).status).toBe(404)
    const bare = await serve({ gateway: { reportsDir: join(dir, 'nothing-here') } })
    expect(await (await fetch(`${bare.base}/v1/evaluations`)).json()).toMatchObject({ data: [], broken: [], left_out: 0 })
    await bare.close()
    rmSync(elsewhere, { recursive: true, force: true })
  })
})
