import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Served } from '../http/fakes.ts'
import { open, openBrowser, serve } from './browser.ts'
import { writeReports } from './reports.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let browser: Browser
let served: Served
let dir: string
beforeAll(async () => {
  browser = await openBrowser()
  dir = mkdtempSync(join(tmpdir(), 'palimpsest-reports-'))
  served = await serve({ gateway: { reportsDir: dir } })
})
afterEach(() => Promise.all(browser.contexts().map((context) => context.close())))
afterAll(async () => {
  await browser.close()
  await served.close()
  rmSync(dir, { recursive: true, force: true })
})

describe('the page Evaluation', () => {
  it('says how to make a report where there is none', async () => {
    const { page } = await open(browser, served.base, '/console/#/evaluation')
    await page.getByText('No reports yet').waitFor()
    await page.getByText('palimpsest eval --data counterfact.json --limit 100').waitFor()
    await page.getByText(dir).waitFor()
  })

  it('lists reports, draws a measure over time, compares two, and opens one whole', async () => {
    await writeReports(dir)
    const { page, complaints } = await open(browser, served.base, '/console/#/evaluation')
    const reports = page.getByRole('region', { name: 'Reports' })
    await reports.getByRole('link', { name: 'tiny-20261120-080000' }).waitFor()
    expect(await reports.getByRole('row').count()).toBe(4)
    await page.getByText('cut-short').waitFor()
    await page.getByLabel('Measure').selectOption({ label: 'reliability' })
    await page
      .getByRole('img', { name: /^reliability in 2 reports over time; in the last: palimpsest 95.0 \(90.0–100.0\)/ })
      .waitFor()
    await page.getByRole('checkbox', { name: 'Compare tiny-20261101-080000' }).check()
    await page.getByRole('checkbox', { name: 'Compare tiny-20261120-080000' }).check()
    await page.getByRole('link', { name: 'Compare 2' }).click()
    const row = page.getByRole('row', { name: /^reliability/ })
    await row.getByText('apart').waitFor()
    expect(await row.textContent()).toContain('80.0 (75.0–85.0)95.0 (90.0–100.0)+15.0')
    expect(
      await page
        .getByRole('row', { name: /^locality/ })
        .getByText('apart')
        .count(),
    ).toBe(0)
    await page.getByLabel('Method').selectOption('base')
    await expect.poll(() => row.textContent()).toContain('2.0 (0.0–7.0)')
    await page.getByRole('link', { name: 'tiny-20261101-080000' }).click()
    await page.getByRole('heading', { name: 'Teacher-forced' }).waitFor()
    const [whole] = await Promise.all([
      page.context().waitForEvent('page'),
      page.getByRole('link', { name: 'Open the whole report' }).click(),
    ])
    await whole.getByRole('heading', { name: 'Evaluation on tiny.json, small' }).waitFor()
    expect(await whole.locator('svg').count()).toBeGreaterThan(0)
    expect(complaints).toEqual([])
  })
})
