import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Served } from '../http/fakes.ts'
import { findings, land, open, openBrowser, serve } from './browser.ts'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 })

let browser: Browser
let served: Served
beforeAll(async () => {
  browser = await openBrowser()
})
afterEach(async () => {
  await Promise.all(browser.contexts().map((context) => context.close()))
  await served.close()
})
afterAll(() => browser.close())

async function ask(user: string): Promise<string> {
  const body = JSON.stringify({ model: 'scripted', user, messages: [{ role: 'user', content: 'Who is the pope?' }] })
  const response = await fetch(`${served.base}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body,
  })
  return ((await response.json()) as { choices: [{ message: { content: string } }] }).choices[0].message.content
}

async function sendTraffic(page: Page, requests: string, users: string): Promise<void> {
  await page.getByLabel('How many requests').fill(requests)
  await page.getByLabel('As how many users').fill(users)
  await page.getByRole('button', { name: `Send ${requests} requests` }).click()
  await page.getByText(`${requests} of ${requests} sent`).waitFor()
}

describe('an experiment, in the browser only', () => {
  it('is started, sent traffic, read, shipped and rolled back', async () => {
    served = await serve()
    const { page, complaints } = await open(browser, served.base, '/console/#/playground')
    await page.getByLabel('Your question').fill('Who programmed the Centaur rocket?')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Wrong? Make an edit' }).last().click()
    await page.getByLabel('The right answer').fill('Annie Easley')
    await page.getByRole('button', { name: 'Add the edit' }).click()
    await page.getByText('The edit is live').waitFor()
    await page.getByRole('button', { name: 'Close' }).click()

    await page.getByRole('navigation').getByRole('link', { name: 'Experiments' }).click()
    await page.getByText('Nothing is being tried out').waitFor()
    await page.getByRole('link', { name: 'New experiment' }).click()
    await page.getByText(/users if you look whenever you like/).waitFor()
    await page.getByLabel('In the other, as hoped').fill('0.9')
    const plan = page.getByRole('button', { name: /^Plan \d+ users$/ })
    await plan.waitFor()
    await expect.poll(async () => Number(/\d+/.exec((await plan.textContent()) ?? '')?.[0])).toBeLessThan(100)
    await plan.click()
    expect(Number(await page.getByLabel('Planned users').inputValue())).toBeLessThan(100)
    await page.getByRole('button', { name: 'Start the experiment' }).click()
    await page.locator('#new-id-fault').waitFor()
    await page.getByLabel('Name', { exact: true }).first().fill('easley')
    await page.getByRole('button', { name: 'Start the experiment' }).click()

    await page.getByRole('heading', { level: 1, name: 'easley' }).waitFor()
    await page.getByText('Nobody has been exposed yet.').waitFor()
    await expect.poll(() => page.getByLabel('Prompts, one a line').first().inputValue()).toContain('Centaur')
    await sendTraffic(page, '120', '120')
    await page.getByText('The arms are as full as their weights say').waitFor()
    const row = page.getByRole('region', { name: 'Result' }).getByRole('row', { name: /Target shown/ })
    await row.getByText('better').waitFor()
    expect(await row.textContent()).toMatch(/\+100\.0 pt.*\+\d+\.\d to \+100\.0 pt/)
    await page.getByRole('img', { name: /Target shown: the difference after/ }).waitFor()
    await page.getByRole('img', { name: /Users exposed over time/ }).waitFor()

    await page.getByRole('button', { name: 'Wrong', exact: true }).first().click()
    await page.getByText('wrong', { exact: true }).waitFor()
    await page.getByText('Replay prompts').click()
    await page.getByLabel('Prompts, one a line').last().fill('Who is the pope?\nWhat is two plus two?')
    await page.getByRole('button', { name: 'Start the replay' }).click()
    await page.getByText('1, 0 of 1').waitFor()
    await page.getByText('Prompts answered differently (1)').click()
    await page.getByText('The pope is Leo XIV.').last().waitFor()

    await page.getByRole('button', { name: 'Ship an arm' }).click()
    await page.getByRole('radio', { name: 'edited' }).check()
    expect(await findings(page)).toEqual([])
    await page.getByRole('button', { name: 'Ship edited' }).click()
    await page.getByText('Its audience is answered by arm').waitFor()
    await page.getByRole('button', { name: 'Roll back' }).click()
    await page.getByRole('button', { name: 'Roll back now' }).click()
    await page.getByText('stopped', { exact: true }).waitFor()
    const history = page.locator('.history')
    for (const said of ['Started', 'Shipped', 'Stopped']) await history.getByText(said, { exact: true }).waitFor()
    // One complaint: the form sent without a name was answered with status 400.
    expect(complaints.filter((one) => !one.includes('400'))).toEqual([])
  })

  it('of arms by form, is refused by field, and sends as each unit asks', async () => {
    served = await serve()
    const { page } = await open(browser, served.base, '/console/#/experiments?new=experiment')
    await page.getByLabel('Name', { exact: true }).first().fill('strict')
    await page.getByRole('button', { name: 'Add an arm' }).click()
    await page.getByText('Another template, threshold, tags or batches').last().click()
    await page.getByLabel('Threshold of the gate').last().fill('7')
    await page.getByLabel('What stays in one arm').selectOption('header')
    await page.getByLabel('Header', { exact: true }).fill('X-Visitor')
    await page.getByRole('button', { name: 'Start the experiment' }).click()
    await page.locator('#arm-2-threshold-fault').waitFor()
    await page.getByLabel('Threshold of the gate').last().fill('0.9')
    await page.getByLabel('More errors').fill('0.3')
    await page.getByRole('button', { name: 'Start the experiment' }).click()
    await page.getByRole('heading', { level: 1, name: 'strict' }).waitFor()
    const made = (await (await fetch(`${served.base}/v1/experiments/strict`)).json()) as Record<string, unknown>
    expect(made).toMatchObject({ unit: 'header:x-visitor', guardrails: [{ kind: 'error', mostMore: 0.3 }] })
    expect(made.arms).toMatchObject([{ edits: 'off' }, { edits: 'on' }, { name: 'arm-3', threshold: 0.9 }])
    await sendTraffic(page, '30', '30')
    await page.getByRole('region', { name: 'Guardrails' }).getByText('holds').first().waitFor()
    await page.getByRole('heading', { name: 'Exposures over time' }).waitFor()
  })

  it('can have its traffic stopped, and says when its result is blocked', async () => {
    served = await serve({ script: { delayMs: 30, reply: () => 'one two three' } })
    const { page } = await open(browser, served.base, '/console/#/experiments')
    await page.request.post(`${served.base}/v1/experiments`, {
      data: {
        id: 'lopsided',
        arms: [
          { name: 'base', edits: 'off', weight: 1 },
          { name: 'edited', weight: 1 },
        ],
      },
    })
    await page.goto(`${served.base}/console/#/experiments/lopsided`)
    await page.getByLabel('How many requests').fill('2000')
    await page.getByRole('button', { name: 'Send 2,000 requests' }).click()
    await page.getByText(/^\d+ of 2000 sent$/).waitFor()
    await page.getByRole('button', { name: 'Stop sending' }).click()
    await page.getByRole('button', { name: 'Send 2,000 requests' }).isEnabled()
    await expect.poll(() => served.gateway.engine.load().busy).toBe(0)
    // As though one arm lost nine in ten of its users.
    const registry = served.gateway.experiments?.registry
    const experiment = registry?.get('default', 'lopsided')
    if (registry === undefined || experiment === undefined) throw new Error('no ledger')
    for (let i = 0; i < 200; i++)
      await registry.ledger.expose({
        experiment,
        unit: `x${i}`,
        arm: i % 10 === 0 ? 1 : 0,
        completion: `c${i}`,
        at: Date.now(),
        messages: [],
      })
    await page.getByText('The result is blocked').waitFor()
    await page.getByText('sample ratio mismatch').waitFor()
    expect(await page.getByRole('region', { name: 'Result' }).count()).toBe(0)
    expect(await findings(page)).toEqual([])
  })
})

describe('a rollout, in the browser only', () => {
  it('goes by stages, shows its evidence, and is rolled back at once', async () => {
    served = await serve()
    const { page } = await open(browser, served.base, '/console/#/experiments?new=rollout&batch=easley')
    expect(await page.getByLabel('Batch', { exact: true }).inputValue()).toBe('easley')
    await page.getByLabel('Stages', { exact: true }).fill('0:1, 50:500')
    await page.getByLabel('Unrelated prompts answered the same').fill('2')
    await page.getByRole('button', { name: 'Start the rollout' }).click()
    await page.locator('#rollout-locality-fault').waitFor()
    await page.getByLabel('Unrelated prompts answered the same').fill('0.9')
    await page.getByRole('button', { name: 'Start the rollout' }).click()
    await page.getByText('Waits for batch easley to be imported.').waitFor()
    await fetch(`${served.base}/v1/edits?batch=easley`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify([{ subject: 'Centaur', prompt: 'The Centaur rocket was programmed by', target_new: 'Annie Easley' }]),
    })
    await page.getByText(/0 of 500 users exposed to the batch/).waitFor()
    const steps = page.locator('.steps li')
    expect(await steps.allTextContents()).toEqual(
      ['shadowpassed', '50 %now', 'liveto come'].map((one) => expect.stringMatching(one)),
    )
    await page.getByText('Next stage', { exact: true }).waitFor()
    await sendTraffic(page, '40', '40')
    await page.getByText(/\d\d of 500 users exposed to the batch/).waitFor()
    await page.getByRole('region', { name: 'Guardrails' }).getByText('holds').first().waitFor()
    expect(await findings(page)).toEqual([])
    await page.getByRole('button', { name: 'Roll back' }).click()
    await page.getByRole('button', { name: 'Roll back now' }).click()
    await page.getByText('rolled back here').waitFor()
    await page
      .getByText(/Rolled back: at 50 %; asked for; \d+ answers affected by then/)
      .first()
      .waitFor()
    const batch = (await (await fetch(`${served.base}/v1/edits?batch=easley`)).json()) as { data: { state: string }[] }
    expect(batch.data.map(({ state }) => state)).toEqual(['withdrawn'])
    await land(served, { id: 'e_other', subject: 'pope', prompt: 'The pope was born in', target_new: 'Chicago' })
    expect(await ask('u1')).toContain('pope')
  })

  it('that does not exist says so', async () => {
    served = await serve()
    const { page } = await open(browser, served.base, '/console/#/experiments/none')
    await page.getByText("There is no experiment or rollout 'none'").waitFor()
    await page.getByRole('link', { name: 'All experiments' }).click()
    await page.getByText('Nothing is being tried out').waitFor()
  })
})
