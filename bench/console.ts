/**
 * The console as a newcomer uses it, in a real Chromium against a running gateway: an edit from a wrong answer, both sides again, a file of
 * records, why an edit fired, an experiment with traffic, its result, shipped and rolled back. Says how long each step took, and takes
 * pictures: of each step, and of every page as it is before the shipping, light, dark and as wide as a phone.
 * `npm run bench:console -- --records FILE [--url http://127.0.0.1:8080] [--users 120] [--out FOLDER] [--pages FOLDER]`
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'

const { values: flags } = parseArgs({
  options: {
    records: { type: 'string' },
    url: { type: 'string', default: 'http://127.0.0.1:8080' },
    users: { type: 'string', default: '120' },
    subject: { type: 'string', default: 'Vellmar' },
    out: { type: 'string', default: 'bench/results/console' },
    pages: { type: 'string' },
  },
})
if (flags.records === undefined) throw new Error('Expected --records FILE, a file of edits in any format that the gateway reads.')
/** The longest any one step may take: an import of a thousand records is embedded meanwhile. */
const STEP_MS = 120_000

mkdirSync(flags.out, { recursive: true })
const executablePath = execFileSync(process.execPath, ['scripts/chromium.mjs'], { encoding: 'utf8' }).trim()
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
const page = await (await browser.newContext({ viewport: { width: 1200, height: 1000 } })).newPage()
page.setDefaultTimeout(STEP_MS)
const foreign: string[] = []
const complaints: string[] = []
page.on('request', (request) => {
  if (!request.url().startsWith(flags.url) && !request.url().startsWith('data:')) foreign.push(request.url())
})
page.on('console', (message) => void (message.type() === 'error' && complaints.push(message.text())))

let number = 0
async function step(what: string, work: () => Promise<string>): Promise<void> {
  const start = performance.now()
  const found = await work()
  const seconds = (performance.now() - start) / 1000
  await page.screenshot({ path: join(flags.out, `${++number}.png`) })
  console.log(`${number}. ${what} (${seconds.toFixed(1)} s): ${found}`)
}
const edited = () => page.getByRole('article', { name: 'Edited answer' }).last()
const base = () => page.getByRole('article', { name: 'Base answer' }).last()
const said = async (side: typeof edited) => (await side().locator('.said, .answer-text, p').first().textContent())?.trim() ?? ''
async function ask(question: string): Promise<string> {
  await page.getByLabel('Your question').fill(question)
  await page.keyboard.press('Enter')
  await page.getByText(question).last().waitFor()
  await page.getByRole('button', { name: 'Ask', exact: true }).waitFor()
  await page.getByText(VERDICT).last().waitFor()
  return `base “${await said(base)}”, edited “${await said(edited)}”`
}

const VERDICT = /The two answers differ|Both sides say/
const question = `Who is the mayor of ${flags.subject}?`
/** Every page as it is now, light, dark and as wide as a phone. `running`: where the experiment is, once there is one; before that only the import. */
async function pictures(running: string | null): Promise<void> {
  if (flags.pages === undefined) return
  mkdirSync(flags.pages, { recursive: true })
  const pages =
    running === null
      ? [['import', '/edits?view=import']]
      : [
          ['playground', '/playground'],
          ['edits', '/edits'],
          ['new-edit', '/edits?view=new'],
          ['experiments', '/experiments'],
          ['new-experiment', '/experiments?new=experiment'],
          ['new-rollout', '/experiments?new=rollout'],
          ['experiment', running],
          ['evaluation', '/evaluation'],
          ['handoff', '/handoff'],
          ['live', '/live'],
        ]
  for (const [look, colorScheme, width] of [
    ['light', 'light', 1200],
    ['dark', 'dark', 1200],
    ['phone', 'light', 360],
  ] as const) {
    const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 }, reducedMotion: 'reduce' })
    const shown = await context.newPage()
    for (const [name, hash] of pages) {
      await shown.goto(`${flags.url}/#${hash}`)
      await shown.getByRole('heading', { level: 1 }).waitFor()
      if (name === 'playground') {
        await shown.getByLabel('Your question').fill(question)
        await shown.keyboard.press('Enter')
        await shown.getByText(VERDICT).last().waitFor()
      }
      if (name === 'import') {
        await shown.getByLabel('File of edits').setInputFiles(flags.records as string)
        await shown.getByRole('button', { name: /^Land [\d,]+ edits/ }).waitFor()
      }
      // Live draws a point a second.
      await shown.waitForTimeout(name === 'live' ? 6_000 : 1_000)
      const length = (await shown.evaluate('document.documentElement.scrollHeight')) as number
      const clip = { x: 0, y: 0, width, height: Math.min(length, 1_800) }
      await shown.screenshot({ path: join(flags.pages, `${name}-${look}.png`), fullPage: true, clip })
    }
    await context.close()
  }
}

await step('opens the console and asks', async () => {
  await page.goto(`${flags.url}/`)
  return ask(question)
})
await step('makes an edit of the wrong answer', async () => {
  await page.getByRole('button', { name: 'Wrong? Make an edit' }).last().click()
  await page.getByLabel('The right answer').fill('Annie Easley')
  await page.getByRole('button', { name: 'Add the edit' }).click()
  await page.getByText('The edit is live').waitFor()
  return (await page.getByText('The edit is live').textContent()) ?? ''
})
await step('asks again: base and edited side by side', async () => {
  await page.getByRole('button', { name: 'Close' }).click()
  await page.getByRole('button', { name: 'New conversation' }).click()
  return ask(question)
})
await pictures(null)
await step('imports a file of records', async () => {
  await page.getByRole('navigation').getByRole('link', { name: 'Edits' }).click()
  await page
    .getByRole('link', { name: /Import/ })
    .first()
    .click()
  await page.getByLabel('File of edits').setInputFiles(flags.records as string)
  const land = page.getByRole('button', { name: /^Land [\d,]+ edits/ })
  await land.waitFor()
  const label = (await land.textContent()) ?? ''
  await page.screenshot({ path: join(flags.out, 'import.png') })
  await land.click()
  const again = page.getByRole('button', { name: 'Land it all the same' })
  await again
    .or(page.getByText(/has landed/))
    .first()
    .waitFor()
  if (await again.isVisible()) await again.click()
  await page
    .getByText(/has landed/)
    .first()
    .waitFor()
  return label
})
await step('waits until all is in the index', async () => {
  for (;;) {
    const { memory } = (await (await page.request.get(`${flags.url}/health`)).json()) as {
      memory: { pending: number; indexed: number }
    }
    if (memory.pending === 0) return `${memory.indexed} edits`
    await page.waitForTimeout(500)
  }
})
await step('finds why an edit fired', async () => {
  await page.getByRole('navigation').getByRole('link', { name: 'Playground' }).click()
  await page.getByRole('button', { name: 'New conversation' }).click()
  const answer = await ask(question)
  return `${answer}; ${(await edited().textContent())?.replace(/\s+/g, ' ').slice(0, 400)}`
})
await step('starts a 50/50 experiment', async () => {
  await page.getByRole('navigation').getByRole('link', { name: 'Experiments' }).click()
  await page.getByRole('link', { name: 'New experiment' }).click()
  await page.getByLabel('Name', { exact: true }).first().fill('mayor')
  await page.getByRole('button', { name: 'Start the experiment' }).click()
  await page.getByRole('heading', { level: 1, name: 'mayor' }).waitFor()
  return 'mayor'
})
await step('sends it traffic', async () => {
  await page.getByLabel('Prompts, one a line').first().fill(question)
  await page.getByLabel('How many requests').fill(flags.users)
  await page.getByLabel('As how many users').fill(flags.users)
  await page.getByRole('button', { name: `Send ${flags.users} requests` }).click()
  await page.getByText(`${flags.users} of ${flags.users} sent`).waitFor()
  return `${flags.users} users`
})
await step('reads the result', async () => {
  const row = page.getByRole('region', { name: 'Result' }).getByRole('row', { name: /Target shown/ })
  await row.getByText('better').waitFor()
  return (await row.textContent())?.replace(/\s+/g, ' ') ?? ''
})
await pictures(page.url().split('#')[1] ?? '')
await step('ships the edited arm', async () => {
  await page.getByRole('button', { name: 'Ship an arm' }).click()
  await page.getByRole('radio', { name: 'edited' }).check()
  await page.getByRole('button', { name: 'Ship edited' }).click()
  await page.getByText('Its audience is answered by arm').waitFor()
  return 'its audience is answered by arm edited'
})
await step('rolls it back', async () => {
  await page.getByRole('button', { name: 'Roll back' }).click()
  await page.getByRole('button', { name: 'Roll back now' }).click()
  await page.getByText('stopped', { exact: true }).waitFor()
  return 'stopped'
})
console.log(`asked of other hosts: ${foreign.length}; the browser complained ${complaints.length} times ${complaints.join('; ')}`)
await browser.close()
