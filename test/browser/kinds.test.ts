import type { Browser, Page, Route } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Served } from '../http/fakes.ts'
import { findings, open, openBrowser, serve } from './browser.ts'

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

const HELD = {
  aliases: [],
  paraphrases: [],
  tags: [],
  state: 'live',
  batch: 'b_1',
  version: 1,
  landed_at: '2026-11-28T12:00:00.000Z',
}
const SENTENCE = { ...HELD, id: 'e_sentence', text: 'Our refund window is 30 days.' }
const RULE = {
  ...HELD,
  id: 'e_rule',
  when: 'someone asks for a refund',
  instruction: 'Name the form.',
  examples: ['I want my money back'],
  counterexamples: ['How do I pay?'],
}
const ALWAYS = { ...HELD, id: 'e_always', always: true, instruction: 'Answer in German.' }
const FACT = { ...HELD, id: 'e_fact', prompt: 'Who leads sales?', target_new: 'Ida' }
const ALL = [SENTENCE, RULE, ALWAYS, FACT]

const SAID = [
  'Our refund window is 30 days.',
  'When someone asks for a refund: Name the form.',
  'Always: Answer in German.',
  'Who leads sales? Ida',
]

/** What the landing of `edits` says, with what a dry run would find. */
function landing(edits: readonly object[], found: readonly { kind: string; message?: string }[] = [], format = 'palimpsest') {
  const counts: Record<string, number> = {}
  for (const { kind } of found) counts[kind] = (counts[kind] ?? 0) + 1
  const many = edits.length
  return {
    object: 'edit.batch',
    id: 'b_1',
    version: 7,
    replayed: false,
    counts: { edits: many, added: many, revised: 0, restored: 0, unchanged: 0, superseded: 0, duplicates: 0, conflicts: 0 },
    format,
    first_edits: edits,
    report: {
      counts,
      findings: found.map((one) => ({ message: '', ...one, edit: { id: 'e_1', index: 0, line: 1 }, other: null })),
      pairs_left: 0,
      fault: null,
    },
    results: edits.map((_, index) => ({
      ...{ index, id: 'e_sentence', outcome: 'added', state: 'live' },
      ...{ supersedes: [], duplicate_of: null, conflicts_with: [] },
    })),
  }
}

/** Answers of the API for these kinds; what is posted to it is written down. */
async function kinds(hash: string, found: Parameters<typeof landing>[1] = [], width = 1200) {
  const { page } = await open(browser, served.base, '/health', { scheme: 'light', width })
  const posted: { url: string; body: string; type: string }[] = []
  const answer = (route: Route) => {
    const request = route.request()
    const { pathname, searchParams } = new URL(request.url())
    if (request.method() === 'POST') {
      posted.push({ url: request.url(), body: request.postData() ?? '', type: request.headers()['content-type'] ?? '' })
      const dry = searchParams.get('dry_run') === 'true'
      return route.fulfill({ json: { ...landing(ALL, found), dry_run: dry } })
    }
    const one = ALL.find(({ id }) => pathname.endsWith(`/${id}`))
    if (one === undefined) return route.fulfill({ json: { data: ALL, total: ALL.length, next_cursor: null } })
    const { state: _, batch, version, landed_at: at, ...edit } = one
    return route.fulfill({ json: { ...one, history: [{ version, at, kind: 'add', batch, edit }] } })
  }
  await page.route(/\/v1\/edits(?:\?|$|\/e_)/, answer)
  await page.goto(`${served.base}/console/#/${hash}`)
  return { page, posted }
}

const bodies = (posted: readonly { body: string }[]) => posted.map(({ body }) => JSON.parse(body))
const text = (page: Page) => page.locator('main').textContent()

describe('the form', () => {
  it('takes one sentence as it is', async () => {
    const { page, posted } = await kinds('edits?view=new')
    await page.getByLabel('What should it know or do?').fill('Our refund window is 30 days.')
    await page.getByText('Nothing speaks against it').waitFor()
    await page.getByRole('button', { name: 'Add the edit' }).click()
    await page.getByRole('heading', { level: 1, name: 'Our refund window is 30 days.' }).waitFor()
    expect(bodies(posted)).toEqual([SENTENCE, SENTENCE].map(({ text }) => ({ text })))
  })

  it('carries what is typed into a fact and a rule, and asks for what is missing', async () => {
    const { page, posted } = await kinds('edits?view=new')
    await page.getByLabel('What should it know or do?').fill('Who leads sales?')
    await page.getByRole('button', { name: 'Give it as a question and its answer' }).click()
    expect(await page.getByLabel('Prompt', { exact: true }).inputValue()).toBe('Who leads sales?')
    await expect.poll(() => page.evaluate('document.activeElement.id')).toBe('edit-target_new')
    await page.keyboard.type('Ida')
    await page.getByRole('button', { name: 'Write it as one sentence' }).click()
    expect(await page.getByLabel('What should it know or do?').inputValue()).toBe('Who leads sales? Ida')
    await page.getByLabel('What should it know or do?').fill('Name the form.')
    await page.getByRole('button', { name: 'Make it a rule' }).click()
    expect(await page.getByLabel('What to do').inputValue()).toBe('Name the form.')
    await expect.poll(() => page.evaluate('document.activeElement.id')).toBe('edit-when')
    await page.keyboard.type('someone asks for a refund')
    await page.getByLabel('Messages that need it').fill('I want my money back\nRefund, please')
    await page.getByLabel('Messages that look like it and do not').fill('How do I pay?')
    await page.getByLabel('Tags').fill('shop')
    const preview = page.getByRole('region', { name: 'Preview' })
    expect(await preview.textContent()).toContain('When someone asks for a refund: Name the form.')
    expect(await findings(page)).toEqual([])
    await page.getByText('Nothing speaks against it').waitFor()
    const more = { examples: ['I want my money back', 'Refund, please'], counterexamples: ['How do I pay?'], tags: ['shop'] }
    expect(bodies(posted).at(-1)).toEqual({ when: 'someone asks for a refund', instruction: 'Name the form.', ...more })
    await page.getByLabel('Always').check()
    expect(await page.getByLabel('When it applies').count()).toBe(0)
    expect(await preview.textContent()).toContain('Always: Name the form.')
    await expect.poll(() => bodies(posted).at(-1)).toEqual({ always: true, instruction: 'Name the form.', ...more })
  })

  it('gives a fact without a subject, and shows what a rehearsal finds', async () => {
    const { page, posted } = await kinds('edits?view=new', [{ kind: 'fires_on_everyday' }])
    await page.getByRole('button', { name: 'Give it as a question and its answer' }).click()
    await page.getByLabel('Prompt', { exact: true }).fill('Who leads sales?')
    await page.getByLabel('Answer', { exact: true }).fill('Ida')
    await page.getByText('A message about something else entirely brings the edit up.').waitFor()
    expect(bodies(posted).at(-1)).toEqual({ prompt: 'Who leads sales?', target_new: 'Ida' })
  })

  it('revises a rule as a rule', async () => {
    const { page, posted } = await kinds('edits?view=new&revise=e_rule', [], 360)
    expect(await page.getByLabel('When it applies').inputValue()).toBe(RULE.when)
    expect(await page.getByLabel('Messages that look like it and do not').inputValue()).toBe('How do I pay?')
    await page.getByLabel('What to do').fill('Name the new form.')
    await expect
      .poll(() => bodies(posted).at(-1))
      .toEqual({
        ...{ id: 'e_rule', when: RULE.when, instruction: 'Name the new form.' },
        ...{ examples: RULE.examples, counterexamples: RULE.counterexamples },
      })
    expect(await findings(page)).toEqual([])
  })
})

describe('every kind', () => {
  it('is listed by what it says', async () => {
    const { page } = await kinds('edits')
    const links = page.getByRole('list', { name: 'Edits', exact: true }).locator('li > a')
    await expect.poll(() => links.allTextContents()).toEqual(SAID)
    expect(await text(page)).not.toMatch(/undefined|null/)
  })

  it.each(ALL.map(({ id }, i) => [id, SAID[i] ?? '']))('%s is shown by itself', async (id, said) => {
    const { page } = await kinds(`edits/${id}`)
    await page.getByRole('heading', { level: 1, name: said }).waitFor()
    expect(await page.getByRole('region', { name: 'History' }).textContent()).toContain(said)
    expect(await page.getByRole('region', { name: 'Others about the same' }).count()).toBe(0)
    expect(await text(page)).not.toMatch(/undefined|null/)
    expect(await findings(page)).toEqual([])
    const asked = id === 'e_rule' ? 'I want my money back' : id === 'e_fact' ? 'Who leads sales?' : ''
    await page.getByRole('link', { name: 'Try it in the Playground' }).click()
    expect(await page.getByLabel('Your question').inputValue()).toBe(asked)
  })
})

describe('an import', () => {
  const LINES = '# Shop\nOur refund window is 30 days.\n\n- We ship on "Mondays".\n'
  const AS_RECORDS = '\n{"text":"Our refund window is 30 days."}\n\n{"text":"We ship on \\"Mondays\\"."}\n'

  it('of pasted text takes a sentence a line, and tells every kind and finding', async () => {
    const kindsOfFinding = [
      'misses_own_prompt misses_paraphrase subject_not_in_prompt fires_on_other fires_on_everyday',
      'conflict_in_other_words outdates something_new',
    ]
    const found = kindsOfFinding.flatMap((some) => some.split(' ')).map((kind) => ({ kind, message: `About ${kind}` }))
    const { page, posted } = await kinds('edits?view=import', found)
    await page.getByLabel('Or paste here').fill(LINES)
    await page.getByRole('button', { name: 'Check the text' }).click()
    const first = page.getByRole('region', { name: 'First edits of the file' })
    await first.waitFor()
    expect(posted.map(({ body, type }) => [body, type])).toEqual([[AS_RECORDS, 'application/x-ndjson']])
    expect(await first.getByRole('row').allTextContents()).toEqual([
      'EditKindExamples',
      ...[`${SAID[0]}sentence0`, `${SAID[1]}rule2`, `${SAID[2]}rule0`, `${SAID[3]}fact0`],
    ])
    expect(await page.locator('.findings > summary').allTextContents()).toEqual([
      '1 Contradictions in other words',
      '1 Missed by their own words',
      '1 Brought up by everyday messages',
      '1 Brought up by messages for other edits',
      '1 Missed by another wording',
      '1 Edits in memory that are outdated',
      '1 Prompts that do not name their subject',
      '1 Something new',
    ])
    expect(await page.getByText('Ask the model before it lands').count()).toBe(0)
    expect(await text(page)).not.toMatch(/undefined|null/)
    expect(await findings(page)).toEqual([])
    await page.getByRole('button', { name: 'Change the text' }).click()
    expect(await page.getByLabel('Or paste here').inputValue()).toBe(LINES)
  })

  it('of a .txt file takes a sentence a line, and records as they are', async () => {
    const { page, posted } = await kinds('edits?view=import')
    const records = '- prompt: Who leads sales?\n  target_new: Ida\n'
    for (const [i, content] of [LINES, records, 'subject,prompt,target_new\nA,A is,b\n', '[{"text":"A."}]'].entries()) {
      const buffer = Buffer.from(content)
      await page.getByLabel('File of edits').setInputFiles({ name: `notes${i}.txt`, mimeType: 'text/plain', buffer })
      await page.getByText(`notes${i}.txt`).first().waitFor()
      await page.getByRole('button', { name: 'Another file' }).click()
      expect(posted[i]?.body).toBe(i === 0 ? AS_RECORDS : content)
    }
  })
})

describe('an answer', () => {
  const EVIDENCE = { reader: 1.25, named: 0 }
  const near = (id: string, reason: string, more: object = {}) => ({
    ...{ id, subject: '', statement: `Statement of ${id}`, score: 0.01, similarity: 0.7, reason, evidence: EVIDENCE, key: null },
    ...more,
  })
  const considered = [
    near('e_sentence', 'selected', { statement: SENTENCE.text, score: 0.97, key: 'How long is the refund window?' }),
    near('e_always', 'always', { statement: 'Answer in German.', score: 1, similarity: null, evidence: {} }),
    near('e_second', 'below_threshold', { score: 0.41, key: 'Who refunds?' }),
    ...['not_read', 'counterexample', 'over_limit', 'in_adapter', 'budget', 'brand_new'].map((reason) =>
      near(`e_${reason}`, reason),
    ),
    near('e_old', 'outdated', { outdated_by: 'e_fact' }),
  ]

  it('says which edits were used and why, the runner-up by name, and why the others were not', async () => {
    const { page } = await kinds('playground')
    await page.route('**/v1/chat/completions', async (route) => {
      const response = await route.fetch()
      const edited = (route.request().postDataJSON() as { model: string }).model.endsWith('@edited')
      const edits = edited ? ['e_sentence', 'e_always'].map((id) => ({ id, score: 0.97, turn: 0 })) : []
      const lines = (await response.text()).split('\n').map((line) => {
        const chunk = line.startsWith('data: {') ? JSON.parse(line.slice(6)) : {}
        if (!chunk.palimpsest) return line
        const trace = { ...chunk.palimpsest.trace, turns: [{ turn: 0, considered: edited ? considered : [] }] }
        return `data: ${JSON.stringify({ ...chunk, palimpsest: { ...chunk.palimpsest, edits, trace } })}`
      })
      await route.fulfill({ response, body: lines.join('\n') })
    })
    await page.getByLabel('Your question').fill('When can I return it?')
    await page.keyboard.press('Enter')
    const edited = page.getByRole('article', { name: 'Edited answer' })
    await edited.getByText('2 edits that fired').waitFor()
    const fired = await edited.locator('.fired li').allTextContents()
    expect(fired[0]).toMatch(/30 days.*97\.0 %.*needs it.*“How long is the refund window\?”/s)
    expect(fired[1]).toMatch(/^Always: Answer in German\..*always.*holds for every message/s)
    await edited.getByRole('heading', { name: 'Learnt by the adapter' }).waitFor()
    expect(fired[2]).toMatch(/^Statement of e_in_adapter.*knows it without being told/s)
    const runnerUp = edited.locator('.near').first()
    expect(await runnerUp.textContent()).toMatch(/^Statement of e_second.*41\.0 %.*not likely enough.*“Who refunds\?”/s)
    await edited.getByText('6 more edits were considered').click()
    await edited.getByRole('button', { name: 'Show all 6' }).click()
    const others = await edited.locator('.near').last().textContent()
    for (const words of ['too far from', 'is like one that', 'than one prompt', 'to fit the context', 'brand new'])
      expect(others).toContain(words)
    await edited.getByText('a later edit says otherwise: Who leads sales? Ida').waitFor()
    await edited.getByText('Evidence').first().click()
    expect(await text(page)).not.toMatch(/undefined|null|NaN/)
    expect(await findings(page)).toEqual([])
  })
})
