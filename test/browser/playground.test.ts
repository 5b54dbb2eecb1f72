import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Served } from '../http/fakes.ts'
import { findings, land, open, openBrowser, serve } from './browser.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let browser: Browser
let served: Served
beforeAll(async () => {
  browser = await openBrowser()
  served = await serve()
})
afterEach(() => Promise.all(browser.contexts().map((context) => context.close())))
afterAll(async () => {
  await browser.close()
  await served.close()
})

describe('the playground', () => {
  it('answers side by side and says why', async () => {
    const { page } = await open(browser, served.base)
    await page.getByLabel('Your question').fill('Who is the pope?')
    await page.keyboard.press('Enter')
    const base = page.getByRole('article', { name: 'Base answer' })
    const edited = page.getByRole('article', { name: 'Edited answer' })
    await edited.getByText('The pope is Leo XIV.').waitFor()
    await base.getByText('The pope is Francis.').waitFor()
    const link = edited.getByRole('link', { name: 'The name of the current pope is Leo XIV' })
    expect(await link.getAttribute('href')).toBe('#/edits/e_pope')
    await edited.getByText('The exact prompt').click()
    expect(await edited.getByLabel('The prompt as the model gets it').textContent()).toContain('Leo XIV')
    await base.getByText('The exact prompt').click()
    expect(await base.getByLabel('The prompt as the model gets it').textContent()).toBe('user: Who is the pope?\n')
    await edited.getByText('Time by stage').click()
    await edited.getByText('decode').waitFor()
  })

  it('keeps a question that is asked before the models are known', async () => {
    const { page } = await open(browser, served.base, '/health')
    let known = () => {}
    await page.route('**/v1/models', async (route) => {
      await new Promise<void>((resolve) => {
        known = resolve
      })
      await route.continue()
    })
    await page.goto(`${served.base}/`)
    await page.getByLabel('Your question').fill('Who is the pope?')
    await page.keyboard.press('Enter')
    expect(await page.getByRole('article').count()).toBe(0)
    known()
    await page.getByRole('article', { name: 'Edited answer' }).getByText('The pope is Leo XIV.').waitFor()
  })

  it('says why two answers to one prompt can differ', async () => {
    let asked = 0
    const uneven = await serve({ script: { reply: () => `Answer ${++asked}.` } }, [])
    const { page } = await open(browser, uneven.base)
    await page.getByLabel('Your question').fill('How many legs does a spider have?')
    await page.keyboard.press('Enter')
    await page.getByText('The two answers differ, though no edit fired').waitFor()
    await uneven.close()
  })

  it('keeps each side to its own answers in the next turn', async () => {
    const { page } = await open(browser, served.base)
    const bodies: { model: string; messages: { content: string }[] }[] = []
    page.on('request', (request) => {
      if (request.url().endsWith('/v1/chat/completions')) bodies.push(request.postDataJSON())
    })
    for (const question of ['Who is the pope?', 'And before?']) {
      await page.getByLabel('Your question').fill(question)
      await page.keyboard.press('Enter')
      await page.getByRole('button', { name: 'Ask', exact: true }).waitFor()
      await page
        .getByText(/The two answers differ|Both sides say/)
        .last()
        .waitFor()
    }
    await expect.poll(() => bodies.length).toBe(4)
    const said = bodies.slice(2).map(({ model, messages }) => [model.split('@')[1], messages[1]?.content])
    expect(said.sort()).toEqual([
      ['base', 'The pope is Francis.'],
      ['edited', 'The pope is Leo XIV.'],
    ])
  })

  it('stops', async () => {
    const slow = await serve({ script: { delayMs: 50, reply: () => 'word '.repeat(400) } })
    const { page } = await open(browser, slow.base)
    await page.getByLabel('Your question').fill('Who is the pope?')
    await page.keyboard.press('Enter')
    await page.getByText('word word').first().waitFor()
    await page.getByRole('button', { name: 'Stop' }).click()
    await page.getByText('stopped').first().waitFor()
    await expect.poll(() => slow.gateway.engine.load().busy).toBe(0)
    await slow.close()
  })

  it('makes an edit of a wrong answer: prefilled, faults by field, checked, landed, asked again, undone', async () => {
    const { page } = await open(browser, served.base)
    await page.getByLabel('Your question').fill('Who programmed the Centaur rocket?')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Wrong? Make an edit' }).last().click()
    expect(await page.getByLabel('Prompt', { exact: true }).inputValue()).toBe('Who programmed the Centaur rocket?')
    expect(await page.getByLabel('Subject', { exact: true }).inputValue()).toBe('Centaur')
    await page.getByRole('button', { name: 'Add the edit' }).click()
    await page.locator('#edit-target_new-fault').waitFor()
    expect(await page.getByLabel('The right answer').getAttribute('aria-invalid')).toBe('true')
    await page.getByLabel('The right answer').fill('Annie Easley')
    await page.getByRole('button', { name: 'Check first' }).click()
    await page.getByText('Nothing speaks against it').waitFor()
    expect(await findings(page)).toEqual([])
    await page.getByRole('button', { name: 'Add the edit' }).click()
    await page.getByRole('button', { name: 'Ask again' }).click()
    await page.getByRole('article', { name: 'Edited answer' }).getByText('It was Annie Easley.').waitFor()
    expect(await page.getByRole('article').count()).toBe(2)
    await page.getByRole('button', { name: 'Wrong? Make an edit' }).last().click()
    await page.getByLabel('The right answer').fill('Annie J. Easley')
    await page.getByRole('button', { name: 'Add the edit' }).click()
    await page.getByText('It takes the place of Who programmed the Centaur rocket? Annie Easley').waitFor()
    await page.getByRole('button', { name: 'Undo' }).click()
    await page.getByText('The edit is withdrawn.').waitFor()
    const held = (await (await fetch(`${served.base}/v1/edits?subject=Centaur`)).json()) as { data: { state: string }[] }
    expect(held.data.filter(({ state }) => state === 'live')).toEqual([expect.objectContaining({ target_new: 'Annie Easley' })])
  })

  it.each([
    ['Who is the pope?', 'pope'],
    ['Who is the chancellor of Germany?', 'Germany'],
    ['What is the capital of the United Arab Emirates?', 'United Arab Emirates'],
    ['Who wrote "the next day"?', 'the next day'],
    ["What is Ada Lovelace's birthplace?", 'Ada Lovelace'],
    ['what is the boiling point of lead', 'lead'],
    ['What is his first name?', ''],
  ])('guesses what "%s" is about', async (question, subject) => {
    const { page } = await open(browser, served.base)
    const guess = `import(document.querySelector('script[type=module]').src.replace('shell/app.js', 'playground/new-edit.js')).then((m) => m.guessSubject(${JSON.stringify(question)}))`
    expect(await page.evaluate(guess)).toBe(subject)
  })

  it('shows markup in edits and answers as text', async () => {
    await land(served, { subject: 'Zeta', prompt: 'Zeta is', target_new: '<img src=x onerror=alert(1)>' })
    const { page, complaints } = await open(browser, served.base)
    await page.getByLabel('Your question').fill('What is Zeta? <b>bold</b>')
    await page.keyboard.press('Enter')
    await page.getByRole('link', { name: 'Zeta is <img src=x onerror=alert(1)>' }).waitFor()
    expect(await page.locator('main img, main b').count()).toBe(0)
    expect(complaints).toEqual([])
  })
})
