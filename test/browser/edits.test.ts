import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Served } from '../http/fakes.ts'
import { fakeEmbedder } from '../support/memory-fixture.ts'
import { findings, land, open, openBrowser, serve } from './browser.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

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

async function edits(path = '', options: Parameters<typeof serve>[0] = {}): Promise<Page> {
  served = await serve(options)
  return (await open(browser, served.base, `/console/#/edits${path}`)).page
}

async function held(query: string): Promise<Record<string, unknown>[]> {
  return ((await (await fetch(`${served.base}/v1/edits?${query}`)).json()) as { data: Record<string, unknown>[] }).data
}

const rows = (page: Page) => page.getByRole('list', { name: 'Edits', exact: true }).getByRole('listitem')

const file = (name: string, content: string) => ({ name, mimeType: '', buffer: Buffer.from(content) })

/** Two records in CounterFact's shape. */
const COUNTERFACT = JSON.stringify(
  ['Alba', 'Berta'].map((subject, i) => ({
    case_id: i,
    requested_rewrite: {
      prompt: '{} was born in',
      relation_id: 'P19',
      target_new: { str: `Oslo ${i}`, id: 'Q1' },
      target_true: { str: 'Rome', id: 'Q2' },
      subject,
    },
    paraphrase_prompts: [`The birthplace of ${subject} is`],
    neighborhood_prompts: ['Carla was born in'],
    attribute_prompts: [],
    generation_prompts: [],
  })),
)

describe('the form', () => {
  it('adds an edit: faults at their fields, what would give way first, then the edit itself', async () => {
    const page = await edits()
    await page.getByRole('link', { name: 'Add an edit' }).click()
    await page.getByRole('button', { name: 'Give it as a question and its answer' }).click()
    await page.getByRole('button', { name: 'Add the edit' }).click()
    await page.locator('#edit-prompt-fault').waitFor()
    expect(await page.getByLabel('Prompt', { exact: true }).getAttribute('aria-invalid')).toBe('true')
    await page.getByLabel('Prompt', { exact: true }).fill('The name of the current {} is')
    await page.getByLabel('Subject', { exact: true }).fill('pope')
    await page.getByLabel('Answer', { exact: true }).fill('Pius XIII')
    await page.getByLabel('Other wordings of the prompt').fill('Who is the pope?\nWho leads the Church?')
    await page.getByLabel('Tags').fill('news, church')
    await page.getByText('Source, validity, models').click()
    await page.getByLabel('Valid from').fill('tomorrow')
    await page.locator('#edit-valid_from-fault').waitFor()
    await page.getByLabel('Valid from').fill('2026-01-01')
    const preview = page.getByRole('region', { name: 'Preview' })
    expect(await preview.textContent()).toContain('The name of the current pope is Pius XIII')
    expect(await preview.locator('mark').textContent()).toBe('pope')
    await page.getByText('It would take the place of').waitFor()
    expect(await held('q=Pius')).toEqual([])
    await page.getByRole('button', { name: 'Land it all the same' }).click()
    await page.getByRole('heading', { level: 1, name: 'The name of the current pope is Pius XIII' }).waitFor()
    expect(await held('q=Pius')).toMatchObject([
      {
        tags: ['news', 'church'],
        paraphrases: ['Who is the pope?', 'Who leads the Church?'],
        valid_from: '2026-01-01T00:00:00.000Z',
      },
    ])
    await page.getByRole('region', { name: 'Others about the same' }).getByText('superseded').waitFor()
  })

  it('revises an edit, whose history tells the words that changed', async () => {
    const page = await edits('/e_pope')
    await page.getByRole('link', { name: 'Revise' }).click()
    await page.getByLabel('Answer', { exact: true }).fill('Leo the Great')
    await page.getByRole('button', { name: 'Land' }).click()
    const again = page.getByRole('button', { name: 'Land it all the same' })
    if (await again.isVisible()) await again.click()
    const history = page.getByRole('region', { name: 'History' })
    await history.getByText('Revised').waitFor()
    expect(await history.locator('del').allTextContents()).toEqual(['XIV'])
    expect(await history.locator('ins').allTextContents()).toEqual(['the Great'])
  })
})

describe('one edit', () => {
  it('is withdrawn, restored, and tried in the Playground; an unknown one says so', async () => {
    const page = await edits('/e_pope')
    await page.getByRole('button', { name: 'Withdraw' }).click()
    await page.getByText('It was taken back').waitFor()
    expect(await held('state=withdrawn')).toHaveLength(1)
    await page.getByRole('button', { name: 'Restore' }).click()
    await page.getByRole('region', { name: 'History' }).getByText('Restored').waitFor()
    expect(await held('state=live')).toHaveLength(1)
    await page.getByRole('link', { name: 'Try it in the Playground' }).click()
    expect(await page.getByLabel('Your question').inputValue()).toBe('The name of the current pope is')
    await page.goto(`${served.base}/console/#/edits/e_none`)
    await page.getByText('There is no edit “e_none”').waitFor()
  })

  it('says what superseded it', async () => {
    const page = await edits()
    await land(served, { id: 'e_new', subject: 'pope', prompt: 'The name of the current pope is', target_new: 'Pius XIII' })
    await page.goto(`${served.base}/console/#/edits/e_pope`)
    const link = page.getByRole('region', { name: 'Content' }).getByRole('link', { name: /Pius XIII/ })
    expect(await link.getAttribute('href')).toBe('#/edits/e_new')
  })
})

describe('the list', () => {
  const many = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      id: `e_${i}`,
      subject: `City ${i}`,
      prompt: `The mayor of City ${i} is`,
      target_new: `Ida ${i}`,
      tags: [`t${i % 2}`],
    }))

  it('finds as one types, filters, keeps the address, and pages', async () => {
    const page = await edits()
    await land(served, many(120))
    await page.reload()
    await page.getByText('121 edits, the latest 50 shown').waitFor()
    await page.getByRole('button', { name: 'Load more' }).click()
    await expect.poll(() => rows(page).count()).toBe(100)
    expect(await page.evaluate('document.activeElement.textContent')).toBe('The mayor of City 69 is Ida 69')
    await page.getByRole('button', { name: 'Load more' }).click()
    await expect.poll(() => rows(page).count()).toBe(121)
    expect(await page.getByRole('button', { name: 'Load more' }).count()).toBe(0)
    await page.getByLabel('Search').fill('city 118')
    await page.getByText('One edit found').waitFor()
    await page.getByLabel('Search').fill('popes')
    await page.getByText('No edit is like that').waitFor()
    await page.getByLabel('Search').fill('pop')
    await page.getByText('One edit found').waitFor()
    expect(page.url()).toContain('#/edits?q=pop')
    await page.getByRole('link', { name: 'Clear all' }).click()
    await page.getByText('121 edits, the latest 50 shown').waitFor()
    await page.getByText('More filters').click()
    await page.getByLabel('Tag').fill('t1')
    await page.getByText('60 edits found').waitFor()
    await page.reload()
    await page.getByText('60 edits found').waitFor()
    await page.getByLabel('State').selectOption('withdrawn')
    await page.getByText('No edit is like that').waitFor()
    await page.getByRole('navigation').getByRole('link', { name: 'Edits' }).click()
    await page.getByText('121 edits, the latest 50 shown').waitFor()
  })

  it('says what to do where there are none, and what went wrong', async () => {
    const page = await edits()
    await page.route('**/v1/edits?*', (route) => route.abort())
    await page.reload()
    await page.getByText('The gateway cannot be reached').waitFor()
    await page.unroute('**/v1/edits?*')
    await page.route('**/v1/edits?*', (route) => route.fulfill({ json: { data: [], total: 0, next_cursor: null } }))
    await page.getByRole('button', { name: 'Try again' }).click()
    await page.getByRole('link', { name: 'Add the first' }).waitFor()
  })
})

describe('an import', () => {
  const choose = (page: Page, name: string, content: string) =>
    page.getByLabel('File of edits').setInputFiles(file(name, content))

  it('of CounterFact records is shown, rehearsed, landed, undone, and restored', async () => {
    const page = await edits('?view=import')
    await page.getByLabel('Tags for every edit').fill('trial')
    await choose(page, 'cf.json', COUNTERFACT)
    await page.getByRole('region', { name: 'Preview' }).getByText('counterfact').waitFor()
    const first = page.getByRole('region', { name: 'First edits of the file' })
    expect(await first.getByRole('row').count()).toBe(3)
    expect(await first.getByRole('row').nth(1).textContent()).toContain('Alba was born in')
    await page.getByText('Ask the model before it lands').click()
    expect(await page.getByLabel('Command').textContent()).toBe('palimpsest edits check cf.json --tags trial')
    expect(await held('q=born')).toEqual([])
    await page.getByRole('button', { name: 'Land 2 edits' }).click()
    await page.getByText('cf.json has landed').waitFor()
    expect(await held('q=born')).toMatchObject([{ tags: ['trial'] }, { tags: ['trial'] }])
    await page.getByRole('button', { name: 'Undo the import' }).click()
    await page.getByText('cf.json is rolled back').waitFor()
    expect(await held('q=born&state=withdrawn')).toHaveLength(2)
    await page.getByRole('button', { name: 'Restore' }).click()
    await expect.poll(() => held('q=born&state=live')).toHaveLength(2)
  })

  it('by drop shows contradictions with both ids and lines, duplicates, and what gives way', async () => {
    const page = await edits('?view=import')
    const lines = [
      { id: 'a', subject: 'pope', prompt: 'The name of the current pope is', target_new: 'Pius' },
      { id: 'b', subject: 'pope', prompt: 'The name of the current pope is', target_new: 'John' },
    ]
    const content = lines.map((line) => JSON.stringify(line)).join('\n')
    const transfer = await page.evaluateHandle(
      `(() => { const data = new DataTransfer(); data.items.add(new File([${JSON.stringify(content)}], 'popes.jsonl')); return data })()`,
    )
    await page.locator('.drop').dispatchEvent('dragenter', { dataTransfer: transfer })
    await page.locator('.drop.over').waitFor()
    await page.locator('.drop').dispatchEvent('drop', { dataTransfer: transfer })
    const conflicts = page.getByRole('region', { name: 'Contradictions within the file' })
    await conflicts.waitFor()
    const told = await conflicts.getByRole('row').nth(1).textContent()
    expect(told).toMatch(/^2.*Pius.*b.*a.*line 1$/)
    await page.getByText('Edits in memory that would be superseded').click()
    expect(await page.getByRole('link', { name: 'e_pope' }).getAttribute('href')).toBe('#/edits/e_pope')
    expect(await held('q=pius')).toEqual([])
  })

  it('with a bad line names it and its field, and nothing lands', async () => {
    const page = await edits('?view=import')
    await choose(
      page,
      'bad.jsonl',
      '{"subject":"A","prompt":"A is","target_new":"b"}\n{"subject":"A","promt":"A is","target_new":"b"}',
    )
    const faults = page.getByRole('region', { name: 'Faults' })
    await faults.waitFor()
    expect(await faults.getByRole('row').nth(1).textContent()).toMatch(/^2promt/)
    await page.getByText('Nothing was imported').waitFor()
    expect(await findings(page)).toEqual([])
    expect(await held('q=b')).toEqual([])
    await page.getByRole('button', { name: 'Another file' }).click()
    await choose(page, 'good.csv', 'subject,prompt,target_new\nA,A is,b\n')
    await page.getByRole('button', { name: 'Land 1 edit' }).click()
    await page.getByText('good.csv has landed').waitFor()
  })

  it('that landed before says so', async () => {
    const page = await edits('?view=import')
    for (const round of [1, 2]) {
      await choose(page, 'cf.json', COUNTERFACT)
      if (round === 2) await page.getByText('This very file has landed before').waitFor()
      else {
        await page.getByRole('button', { name: 'Land 2 edits' }).click()
        await page.getByText('cf.json has landed').waitFor()
        await page.getByRole('button', { name: 'Another file' }).click()
      }
    }
    expect(await page.getByRole('button', { name: /^Land/ }).count()).toBe(0)
  })

  it('shows its progress', async () => {
    const embedder = fakeEmbedder()
    const slow: typeof embedder = {
      ...embedder,
      embed: async (...asked) => {
        await new Promise((done) => setTimeout(done, 150))
        return embedder.embed(...asked)
      },
    }
    const page = await edits('?view=import', { embedder: slow, limits: { progressMs: 20 } })
    const seen = page.getByText(/of 200 edits indexed/).waitFor()
    const csv = ['subject,prompt,target_new', ...Array.from({ length: 200 }, (_, i) => `C${i}x,C${i}x is,b`)].join('\n')
    await choose(page, 'many.csv', csv)
    await page.getByRole('button', { name: 'Land 200 edits' }).click()
    await seen
    await page.getByText('many.csv has landed').waitFor()
  })
})

describe('the batches', () => {
  it('are rolled back after a word of how many, and restored as they were', async () => {
    const page = await edits()
    const three = ['A', 'B', 'C'].map((subject) => ({ id: subject, subject, prompt: `${subject} is`, target_new: 'x' }))
    await land(served, three)
    await fetch(`${served.base}/v1/edits/C/withdraw`, { method: 'POST' })
    await page.getByRole('link', { name: 'Batches' }).click()
    const batch = page.getByRole('list', { name: 'Batches' }).getByRole('listitem').first()
    await batch.getByText('2 of 3 live').waitFor()
    await batch.getByRole('button', { name: 'Roll back' }).click()
    await page.getByText('2 live edits are withdrawn').waitFor()
    await page.getByRole('button', { name: 'Keep them' }).click()
    expect(await held('state=live')).toHaveLength(3)
    await batch.getByRole('button', { name: 'Roll back' }).click()
    await page.getByRole('button', { name: 'Withdraw 2 edits' }).click()
    await batch.getByText('0 of 3 live').waitFor()
    expect((await held('state=live')).map(({ id }) => id)).toEqual(['e_pope'])
    await batch.getByRole('button', { name: 'Restore' }).click()
    await batch.getByText('2 of 3 live').waitFor()
    expect((await held('state=withdrawn')).map(({ id }) => id)).toEqual(['C'])
  })
})
