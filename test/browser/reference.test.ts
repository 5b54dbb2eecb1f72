import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import type { Served } from '../http/fakes.ts'
import { open, openBrowser, serve } from './browser.ts'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 })

let browser: Browser
let served: Served
beforeAll(async () => {
  browser = await openBrowser()
  served = await serve({})
})
afterAll(async () => {
  await browser.close()
  await served.close()
})

it('shows every operation of the gateway’s own document, tries one, and asks nothing of any other server', async () => {
  const document = (await (await fetch(`${served.base}/openapi.json`)).json()) as { paths: Record<string, object> }
  const operations = Object.values(document.paths).flatMap((methods) => Object.keys(methods))
  const { page, foreign, complaints } = await open(browser, served.base, '/docs')
  const tag = page.locator('.opblock-tag')
  await tag.first().waitFor({ timeout: 60_000 })
  for (let at = 0; at < (await tag.count()); at++) await tag.nth(at).click()
  await expect.poll(() => page.locator('.opblock').count(), { timeout: 60_000 }).toBe(operations.length)
  const live = page.locator('.opblock', { hasText: '/readyz' })
  await live.locator('.opblock-summary-control').click()
  await live.locator('button.execute').click()
  await live.locator('.live-responses-table .response-col_status', { hasText: '200' }).waitFor({ timeout: 60_000 })
  expect({ foreign, complaints }).toEqual({ foreign: [], complaints: [] })
  await page.context().close()
})
