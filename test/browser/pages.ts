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
]
