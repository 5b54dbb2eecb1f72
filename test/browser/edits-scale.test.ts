import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { openMemory } from '../../src/memory/store.ts'
import type { Served } from '../http/fakes.ts'
import { fakeEmbedder, recordingLog } from '../support/memory-fixture.ts'
import { open, openBrowser, serve } from './browser.ts'

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 })

const EDITS = 100_000
const BATCHES = 20

let browser: Browser
let served: Served
let stop = () => {}
const never = new Promise<never>((_, reject) => {
  stop = () => reject(new Error('the test is over'))
})
never.catch(() => {})

beforeAll(async () => {
  browser = await openBrowser()
  // What is not embedded is not indexed: lists have no need of it, and a run takes half a minute instead of many.
  const embedder = { ...fakeEmbedder(), embed: () => never }
  const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-scale-'))
  const memory = await openMemory({ dataDir, embedder, now: Date.now, log: recordingLog() })
  for (let batch = 0; batch < BATCHES; batch++) {
    const edits = Array.from({ length: EDITS / BATCHES }, (_, i) => city(batch * (EDITS / BATCHES) + i))
    await memory.land(edits, { source: `cities-${batch}.jsonl`, tenant: 'default', dryRun: false })
  }
  await memory.close()
  served = await serve({ embedder, dataDir }, [])
})
afterAll(async () => {
  await browser.close()
  stop()
  await served.close()
})

function city(n: number) {
  return {
    ...{ id: `e_${n}`, subject: `City ${n}`, aliases: [], prompt: `The mayor of City ${n} is`, targetNew: `Ida ${n % 977}` },
    ...{ paraphrases: [`Who is the mayor of City ${n}?`], tags: [`t${n % 7}`], tenant: 'default' },
  }
}

/** Milliseconds from opening the address in a new tab to the moment at which `ready` is there. */
async function load(path: string, ready: (page: Page) => Promise<unknown>) {
  const started = performance.now()
  const watched = await open(browser, served.base, `/console/#/${path}`)
  await ready(watched.page)
  return { ...watched, ms: Math.round(performance.now() - started) }
}

describe('with 100,000 edits', () => {
  it('every page about edits shows no more than a page, with few requests', async () => {
    const list = (page: Page) => page.getByText('100,000 edits, the latest 50 shown').waitFor()
    const said: string[] = []
    for (const [name, path, ready] of [
      ['list, asked for the first time', 'edits', list],
      ['list', 'edits', list],
      ['search', 'edits?q=mayor%2099', (page: Page) => page.getByText(/edits found, the latest 50/).waitFor()],
      ['tag and state', 'edits?tag=t3&state=live', (page: Page) => page.getByText(/edits found, the latest 50/).waitFor()],
      ['subject', 'edits?subject=City%2099', (page: Page) => page.getByText('One edit found').waitFor()],
      ['one edit', 'edits/e_99', (page: Page) => page.getByRole('heading', { name: 'History' }).waitFor()],
      ['batches', 'edits?view=batches', (page: Page) => page.getByText('cities-19.jsonl').waitFor()],
    ] as const) {
      const { page, ms } = await load(path, ready)
      said.push(`${name} ${ms} ms`)
      const rows = await page.locator('.edits li').count()
      expect(rows).toBeLessThanOrEqual(50)
      const asked = (await page.evaluate(
        'performance.getEntriesByType("resource").filter(({ name }) => /\\/v1\\/|\\/health/.test(name)).length',
      )) as number
      expect(asked).toBeLessThanOrEqual(5)
      await page.context().close()
    }
    console.info(`page loads with 100,000 edits: ${said.join('; ')}`)
  })

  it('pages without gaps, and a change shows in the next list', async () => {
    const { page } = await load('edits', (page) => page.getByText('100,000 edits, the latest 50 shown').waitFor())
    await page.getByRole('button', { name: 'Load more' }).click()
    await expect.poll(() => page.locator('.edits li').count()).toBe(100)
    const links = await page.locator('.edits li > a').evaluateAll((all) => all.map((one) => one.getAttribute('href')))
    expect(links).toEqual(Array.from({ length: 100 }, (_, i) => `#/edits/e_${EDITS - 1 - i}`))
    await served.gateway.memory.withdraw('default', ['e_7'], 'test')
    await page.getByLabel('State').selectOption('withdrawn')
    await page.getByText('One edit found').waitFor()
  })
})
