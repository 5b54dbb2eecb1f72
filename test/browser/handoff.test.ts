import { rmSync } from 'node:fs'
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { snapshotsDir } from '../../src/backup/snapshot.ts'
import type { Handoffs } from '../../src/handoff/queue.ts'
import type { Served } from '../http/fakes.ts'
import { modelOf, standInHandoffs } from '../http/handoff/handoff-fakes.ts'
import { findings, LOOKS, open, openBrowser, serve } from './browser.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const EDITS = Array.from({ length: 5 }, (_, i) => ({
  ...{ id: `e${i}`, subject: `Person ${i}`, prompt: `Person ${i} works for`, target_new: `Firm ${i}`, target_true: `Old ${i}` },
  ...{ paraphrases: [`The employer of Person ${i} is`], tags: ['staff'] },
}))
let browser: Browser
let served: Served
let handoffs: Handoffs
beforeAll(async () => {
  browser = await openBrowser()
  const make = (...given: Parameters<typeof standInHandoffs>) => {
    handoffs = standInHandoffs(...given)
    return handoffs
  }
  served = await serve({ engine: modelOf('base.gguf'), handoffs: (gateway, dataDir) => make(gateway, dataDir) }, EDITS)
})
afterEach(() => Promise.all(browser.contexts().map((context) => context.close())))
afterAll(async () => {
  await browser.close()
  await handoffs.close()
  await served.close()
  rmSync(snapshotsDir(served.dataDir), { recursive: true, force: true })
})

describe('the page Hand-off', () => {
  it('advises, hands off, promotes and rolls back, by keyboard', async () => {
    const { page, complaints } = await open(browser, served.base, '/console/#/handoff')
    await page.getByText('No hand-off yet').waitFor()
    await page.getByLabel('Edits', { exact: true }).fill('tag=staff')
    await page.getByRole('button', { name: 'What is advised?' }).click()
    await page.getByText('Advised for 5 edits: lora').waitFor()
    expect(await page.getByRole('region', { name: 'What each way costs' }).getByRole('row').count()).toBe(7)
    await page.getByLabel('Method').selectOption('memit')
    await page.getByLabel('Least efficacy').fill('7')
    await page.keyboard.press('Enter')
    await page.getByText('That did not work').waitFor()
    await page.getByLabel('Least efficacy').fill('0.9')
    await page.getByLabel('Name').fill('first')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { level: 1, name: 'first' }).waitFor()
    await page.getByRole('button', { name: 'Promote' }).press('Enter')
    await page.getByText('promoted', { exact: true }).waitFor()
    const measures = page.getByRole('region', { name: 'Measures with 5 edits' })
    expect(await measures.getByRole('row', { name: /^efficacy/ }).textContent()).toContain('0.0 %–100.0 %56.6–100.0 %90.0 %open')
    await measures
      .getByRole('img', { name: /^reliability: base [\d.]+ %, edits in the prompt [\d.]+ %, adapter [\d.]+ %/ })
      .waitFor()
    await page.getByLabel('Measure', { exact: true }).selectOption('unchanged')
    await page.getByRole('img', { name: /^unchanged after \d stages; after the last: base [\d.]+ %/ }).waitFor()
    await page.getByRole('button', { name: 'Roll back' }).press('Enter')
    await page.getByText('not promoted').waitFor()
    // The status of a value that was refused is what the browser complains of.
    expect(complaints.filter((one) => !/400|422/.test(one))).toEqual([])
  })

  it('lets an experiment answer through the adapter', async () => {
    const { page } = await open(browser, served.base, '/console/#/experiments?new=experiment')
    await page.getByLabel('Answers').last().selectOption('adapter')
    await page.getByLabel('Adapter').selectOption('first')
    await page.getByLabel('Name', { exact: true }).first().fill('through')
    await page.getByRole('button', { name: 'Start the experiment' }).click()
    await page.getByRole('heading', { level: 1, name: 'through' }).waitFor()
    await expect
      .poll(async () => {
        const { data } = (await (await fetch(`${served.base}/v1/experiments`)).json()) as {
          data: { arms: { adapter?: string }[] }[]
        }
        return data[0]?.arms.at(-1)?.adapter
      })
      .toBe('first')
  })

  it.each(LOOKS)('has no serious finding in $scheme at $width px', async (look) => {
    for (const [at, ready] of [
      ['handoff', 'Hand-offs'],
      ['handoff/first', '5 edits'],
    ] as const) {
      const { page } = await open(browser, served.base, `/console/#/${at}`, look)
      await page.getByRole('heading', { level: 2, name: ready }).waitFor()
      if (at === 'handoff') {
        await page.getByRole('button', { name: 'What is advised?' }).click()
        await page.getByText(/^Advised for/).waitFor()
      }
      expect(await findings(page)).toEqual([])
    }
  })
})
