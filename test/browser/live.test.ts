import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { open, openBrowser, serve } from './browser.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let browser: Browser
beforeAll(async () => {
  browser = await openBrowser()
})
afterEach(() => Promise.all(browser.contexts().map((context) => context.close())))
afterAll(() => browser.close())

async function ask(base: string, content: string, headers: Record<string, string> = {}): Promise<void> {
  const body = JSON.stringify({ model: 'scripted', messages: [{ role: 'user', content }] })
  await (
    await fetch(`${base}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body,
    })
  ).text()
}

const recent = async (base: string, query = '', headers: Record<string, string> = {}) =>
  (await (await fetch(`${base}/v1/requests${query}`, { headers })).json()) as {
    data: Record<string, unknown>[]
    latest: number
    prompts_kept: boolean
  }

describe('the latest requests', () => {
  it('are bounded, go by number, keep tenants apart and no words', async () => {
    const served = await serve({ limits: { recentRequests: 3 } })
    for (let i = 0; i < 5; i++) await ask(served.base, `Who is the pope? ${i}`)
    const { data, latest, prompts_kept } = await recent(served.base)
    expect([data.map(({ seq }) => seq), latest, prompts_kept]).toEqual([[3, 4, 5], 5, false])
    expect(JSON.stringify(data)).not.toMatch(/Who is|Leo/)
    expect((await recent(served.base, '?after=4')).data.map(({ seq }) => seq)).toEqual([5])
    await ask(served.base, 'Who is the pope?', { 'Palimpsest-Tenant': 'other' })
    expect((await recent(served.base, '?after=5')).data).toEqual([])
    expect((await recent(served.base, '', { 'Palimpsest-Tenant': 'other' })).data.map(({ seq }) => seq)).toEqual([6])
    await served.close()
  })

  it('have their question where prompts may be logged', async () => {
    const served = await serve({ gateway: { logPrompts: true } })
    await ask(served.base, 'Who is the pope?')
    expect((await recent(served.base)).data[0]?.question).toBe('Who is the pope?')
    await served.close()
  })
})

describe('the page Live', () => {
  it('is empty at first and shows requests as they come', async () => {
    const served = await serve()
    const { page } = await open(browser, served.base, '/console/#/live')
    await page.getByText('No requests yet').waitFor()
    await ask(served.base, 'Who is the pope?')
    const table = page.getByRole('region', { name: 'Latest requests' })
    await table.getByRole('link', { name: 'pope' }).waitFor()
    expect(await table.getByRole('row').count()).toBe(2)
    await page.getByText('in 1 of 1 requests').waitFor()
    expect(await page.locator('canvas').count()).toBe(1)
    await served.close()
  })
})
