import type { Page } from 'playwright-core'

/** Every page of the console, and how to get it into a state worth checking. */
export const PAGES: readonly { readonly name: string; readonly ready: (page: Page) => Promise<void> }[] = [
  {
    name: 'playground',
    ready: async (page) => {
      await page.getByLabel('Your question').fill('Who is the pope?')
      await page.getByRole('button', { name: 'Ask', exact: true }).click()
      await page.getByText('The two answers differ.').waitFor()
      await page.getByText('The exact prompt').last().click()
      await page.getByLabel('The prompt as the model gets it').waitFor()
    },
  },
  {
    name: 'edits',
    ready: async (page) => {
      await page.getByText('More filters').click()
      await page.getByRole('list', { name: 'Edits', exact: true }).getByRole('link').first().waitFor()
    },
  },
  {
    name: 'edits/e_pope',
    ready: async (page) => {
      await page.getByRole('heading', { name: 'History' }).waitFor()
    },
  },
  {
    name: 'edits?view=new',
    ready: async (page) => {
      await page.getByRole('button', { name: 'Give it as a question and its answer' }).click()
      await page.getByLabel('Prompt', { exact: true }).fill('The name of the current pope is')
      await page.getByLabel('Subject', { exact: true }).fill('pope')
      await page.getByLabel('Answer', { exact: true }).fill('Francis')
      await page.getByText('It would take the place of').waitFor()
    },
  },
  {
    name: 'edits?view=import',
    ready: async (page) => {
      const edits = [
        { subject: 'pope', prompt: 'The name of the current pope is', target_new: 'Francis' },
        { subject: 'pope', prompt: 'The name of the current pope is', target_new: 'Benedict' },
      ]
      const buffer = Buffer.from(JSON.stringify(edits))
      await page.getByLabel('File of edits').setInputFiles({ name: 'popes.json', mimeType: 'application/json', buffer })
      await page.getByText('Contradictions within the file').waitFor()
      await page.getByText('Ask the model before it lands').click()
    },
  },
  {
    name: 'edits?view=batches',
    ready: async (page) => {
      await page.getByRole('button', { name: 'Roll back' }).first().click()
      await page.getByRole('button', { name: /^Withdraw/ }).waitFor()
    },
  },
  {
    name: 'live',
    ready: async (page) => {
      await page.getByRole('heading', { name: 'Latest requests' }).waitFor()
    },
  },
  {
    name: 'experiments',
    ready: async (page) => {
      await declared(page)
      await page.getByRole('region', { name: 'Experiments' }).getByRole('link', { name: 'help' }).waitFor()
    },
  },
  {
    name: 'experiments?new=experiment',
    ready: async (page) => {
      await page.getByText('if you look whenever you like').waitFor()
      await page.getByText('Another template, threshold, tags or batches').last().click()
    },
  },
  {
    name: 'experiments?new=rollout',
    ready: async (page) => {
      await page.getByRole('button', { name: 'Start the rollout' }).waitFor()
    },
  },
  {
    name: 'experiments?then=one',
    ready: async (page) => {
      await declared(page)
      await page.getByRole('link', { name: 'help' }).click()
      await page.getByRole('heading', { name: 'Result' }).waitFor()
      await page.getByText('As a table').first().click()
      await page.getByText('Replay prompts').click()
      await page.getByText('Evidence on record').first().waitFor()
    },
  },
  {
    name: 'evaluation',
    ready: async (page) => {
      await page.getByRole('heading', { name: 'Over time' }).waitFor()
      await page.getByText('One report cannot be read').waitFor()
    },
  },
  {
    name: 'evaluation/tiny-20261120-080000',
    ready: async (page) => {
      await page.getByRole('heading', { name: 'Generated answers' }).waitFor()
    },
  },
  {
    name: 'evaluation?compare=tiny-20261101-080000,tiny-20261120-080000',
    ready: async (page) => {
      await page.getByText('apart', { exact: true }).first().waitFor()
    },
  },
]

/** An experiment with 60 users, once. */
async function declared(page: Page): Promise<void> {
  const post = (path: string, data: object) => page.request.post(new URL(path, page.url()).href, { data })
  const made = await post('/v1/experiments', { id: 'help', guardrails: { error: 0.2 }, planned_units: 60 })
  if (!made.ok()) return
  const messages = [{ role: 'user', content: 'Who is the pope?' }]
  for (let user = 0; user < 60; user++) await post('/v1/chat/completions', { model: 'scripted', user: `u${user}`, messages })
  await post('/v1/experiments/help/weights', { weights: { edited: 2 } })
}
