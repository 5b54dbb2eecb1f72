import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Served } from '../http/fakes.ts'
import { findings, LOOKS, open, openBrowser, serve } from './browser.ts'
import { PAGES } from './pages.ts'
import { writeReports } from './reports.ts'

// A browser on two busy cores is slow to start.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const JSON_TYPE = { 'Content-Type': 'application/json' }

let browser: Browser
let served: Served
let reports: string
beforeAll(async () => {
  browser = await openBrowser()
  reports = mkdtempSync(join(tmpdir(), 'palimpsest-reports-'))
  await writeReports(reports)
  served = await serve({ gateway: { reportsDir: reports } })
  // Live has something to show.
  const body = JSON.stringify({ model: 'scripted', messages: [{ role: 'user', content: 'Who is the pope?' }] })
  await fetch(`${served.base}/v1/chat/completions`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })
})
afterEach(() => Promise.all(browser.contexts().map((context) => context.close())))
afterAll(async () => {
  await browser.close()
  await served.close()
  rmSync(reports, { recursive: true, force: true })
})

describe('the console', () => {
  it('is where the gateway is, under a strict policy, and its files may be kept for good', async () => {
    const { page } = await open(browser, served.base)
    expect(page.url()).toBe(`${served.base}/console/`)
    const response = await fetch(`${served.base}/console/`)
    expect(response.headers.get('content-security-policy')).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    )
    const html = await response.text()
    expect(html).not.toMatch(/<script>|<style|style=|\son\w+=/)
    const file = html.match(/src="([^"]+app\.js)"/)?.[1] ?? ''
    const script = await fetch(`${served.base}${file}`)
    expect(script.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
    const again = await fetch(`${served.base}${file}`, {
      headers: { 'If-None-Match': script.headers.get('etag') ?? '', 'Cache-Control': 'max-age=0' },
    })
    expect(again.status).toBe(304)
    const old = await fetch(`${served.base}${file.replace(/assets\/\w+/, 'assets/0000')}`)
    expect([old.status, old.headers.get('cache-control')]).toEqual([200, 'no-cache'])
    expect((await fetch(`${served.base}${file.replace('app.js', '..%2Froutes.ts')}`)).status).toBe(404)
  })

  it('counts the edits that are live for who looks', async () => {
    const land = (tenant: string, count: number) => {
      const edits = Array.from({ length: count }, (_, i) => ({ id: `count${i}`, text: `Town ${i} has ${i} bells.` }))
      return fetch(`${served.base}/v1/edits?tenant=${tenant}`, {
        method: 'POST',
        body: JSON.stringify(edits),
        headers: JSON_TYPE,
      })
    }
    const { total } = (await (await fetch(`${served.base}/v1/edits?state=live&limit=1`)).json()) as { readonly total: number }
    await land('other', 3)
    await land('default', 2)
    await fetch(`${served.base}/v1/edits/count0/withdraw`, { method: 'POST' })
    const { page } = await open(browser, served.base)
    await page.getByText(`· ${total + 1} edit`, { exact: false }).waitFor()
    await fetch(`${served.base}/v1/edits/count1/withdraw`, { method: 'POST' })
  })

  it('lets nobody in who may not use the gateway', async () => {
    const response = await fetch(`${served.base}/v1/requests`, { headers: { Origin: 'https://elsewhere.example' } })
    expect(response.status).toBe(403)
  })

  it('is led by keyboard: skip link, pages, and the focus follows', async () => {
    const { page } = await open(browser, served.base)
    await page.getByRole('heading', { level: 1, name: 'Playground' }).waitFor()
    await page.keyboard.press('Tab')
    expect(await page.evaluate('document.activeElement.textContent')).toBe('Skip to the page')
    await page.keyboard.press('Enter')
    expect(await page.evaluate('document.activeElement.id')).toBe('main')
    await page.getByRole('link', { name: 'Live' }).focus()
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { level: 1, name: 'Live' }).waitFor()
    expect(await page.evaluate('document.activeElement.id')).toBe('main')
    await expect.poll(() => page.title()).toBe('Live · Palimpsest')
    expect(await page.getByRole('link', { name: 'Live' }).getAttribute('aria-current')).toBe('page')
  })

  it('keeps the theme that was chosen', async () => {
    const { page } = await open(browser, served.base)
    await page.getByRole('button', { name: 'Dark' }).click()
    await page.reload()
    expect(await page.evaluate('document.documentElement.dataset.theme')).toBe('dark')
    await page.getByRole('button', { name: 'Light' }).waitFor()
  })

  it('asks once for a key where the gateway wants one, and says so when it is gone', async () => {
    const { page } = await open(browser, served.base, '/console/#/live')
    const sent: (string | undefined)[] = []
    await page.route('**/v1/models', async (route) => {
      sent.push(route.request().headers().authorization)
      if (sent.length === 1) await route.fulfill({ status: 401, json: { error: { message: 'A key is needed.' } } })
      else await route.continue()
    })
    await page.getByRole('navigation').getByRole('link', { name: 'Playground' }).click()
    await page.getByRole('textbox', { name: 'API key' }).fill('sk-test')
    await page.getByRole('button', { name: 'Use this key' }).click()
    await page.getByLabel('Left').waitFor()
    expect(sent).toEqual([undefined, 'Bearer sk-test'])
    await page.route('**/v1/chat/completions', (route) => route.abort())
    await page.getByLabel('Your question').fill('Who is the pope?')
    await page.keyboard.press('Enter')
    await page.getByText('The gateway cannot be reached').first().waitFor()
  })
})

describe.each(PAGES)('the page $name', ({ name, ready }) => {
  it.each(LOOKS)('has no serious finding in $scheme at $width px, and asks nothing of another host', async (look) => {
    const { page, foreign, complaints } = await open(browser, served.base, `/console/#/${name}`, look)
    await ready(page)
    expect(await findings(page)).toEqual([])
    expect(foreign).toEqual([])
    expect(complaints).toEqual([])
  })
})
