import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import express from 'express'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { open, openBrowser } from './browser.ts'

/** The site of the documents is built, which finds dead links, and looked at: nothing comes from elsewhere, and no page is wider than a phone. */
const ROOT = resolve(import.meta.dirname, '../..')
const WIDTHS = [1200, 360]

const folder = mkdtempSync(join(tmpdir(), 'palimpsest-site-'))
let browser: Browser
let base: string
const undo: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })]
beforeAll(async () => {
  await promisify(execFile)(join(ROOT, 'node_modules/.bin/vitepress'), ['build', 'docs', '--outDir', folder], { cwd: ROOT })
  const server = express().use(express.static(folder)).listen(0, '127.0.0.1')
  undo.push(() => server.close())
  await new Promise((listening) => server.once('listening', listening))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  browser = await openBrowser()
  undo.push(() => browser.close())
}, 300_000)
afterAll(async () => {
  for (const close of undo.reverse()) await close()
})

describe('the site of the documents', { timeout: 300_000 }, () => {
  test('asks no other host for anything, complains of nothing, and fits a phone', async () => {
    const built = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    const pages = built.filter((file) => file.endsWith('.html') && file !== '404.html' && !file.startsWith('decisions/'))
    expect(pages.length).toBeGreaterThan(20)
    const { page, foreign, complaints } = await open(browser, base, '/index.html')
    const faults: string[] = []
    for (const path of pages) {
      await page.goto(`${base}/${path}`)
      for (const width of WIDTHS) {
        await page.setViewportSize({ width, height: 900 })
        const wide = await page.evaluate<number>('document.documentElement.scrollWidth')
        if (wide > width) faults.push(`${path} is ${wide} of ${width} px wide`)
      }
    }
    faults.push(...foreign, ...complaints)
    expect(faults).toEqual([])
  })

  test('is searched where it is', async () => {
    const { page, foreign } = await open(browser, base, '/index.html')
    await page.getByRole('button', { name: 'Search' }).click()
    await page.getByPlaceholder('Search').fill('counterexample')
    expect(await page.getByRole('option').first().textContent()).toMatch(/\S/)
    expect(foreign).toEqual([])
  })
})
