import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { type Access, accessBy } from '../../src/access/access.ts'
import { SCOPES } from '../../src/access/key.ts'
import type { KeyStore } from '../../src/access/key-store.ts'
import { openKeys } from '../../src/server/access.ts'
import type { Served } from '../http/fakes.ts'
import { open, openBrowser, serve } from './browser.ts'

// A browser on two busy cores is slow to start.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const dir = mkdtempSync(join(tmpdir(), 'palimpsest-keys-'))
let browser: Browser
let served: Served
let store: KeyStore
let access: Access
beforeAll(async () => {
  browser = await openBrowser()
  store = await openKeys(dir)
  access = await accessBy(store, 'auto', true, Date.now)
  served = await serve({ gateway: { access } })
})
afterAll(async () => {
  await browser.close()
  await served.close()
  await access.close()
  await store.database.close()
  rmSync(dir, { recursive: true, force: true })
})

it('the console asks for a key, keeps it in the tab, and works with it on every page', async () => {
  const { token } = await store.create({ name: 'console', tenant: null, scopes: SCOPES }, Date.now())
  const { page, foreign } = await open(browser, served.base)
  const box = page.getByRole('textbox', { name: 'API key' })
  const use = page.getByRole('button', { name: 'Use this key' })
  await box.fill('pk_wrong')
  await use.click()
  await page.getByText('The API key is not one of this gateway.').first().waitFor()
  await page.getByRole('navigation').getByRole('link', { name: 'Live' }).click()
  await box.fill(token)
  await use.click()
  await page.getByRole('heading', { name: 'No requests yet' }).waitFor()
  await page.getByRole('navigation').getByRole('link', { name: 'Playground' }).click()
  await page.getByLabel('Your question').fill('Who is the pope?')
  await page.getByRole('button', { name: 'Ask', exact: true }).click()
  await page.getByText('The two answers differ.').waitFor()
  expect(await page.evaluate('[Object.values(sessionStorage), JSON.stringify(localStorage), document.cookie]')).toEqual([
    [token],
    expect.not.stringContaining('pk_'),
    '',
  ])
  await page.reload()
  await page.getByLabel('Left').waitFor()
  expect(await box.count()).toBe(0)
  expect([page.url().includes('pk_'), foreign]).toEqual([false, []])
})

it('a page that was given no key says so, and does not ask again while it polls', async () => {
  await store.create({ name: 'another', tenant: null, scopes: SCOPES }, Date.now())
  const { page } = await open(browser, served.base, '/console/#/live')
  const box = page.getByRole('textbox', { name: 'API key' })
  await box.waitFor()
  await page.keyboard.press('Escape')
  await page.getByText('No API key was sent.').first().waitFor()
  await page.waitForTimeout(5_000)
  expect(await box.count()).toBe(0)
  await page.getByRole('navigation').getByRole('link', { name: 'Playground' }).click()
  await box.waitFor()
})
