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
    name: 'live',
    ready: async (page) => {
      await page.getByRole('heading', { name: 'Latest requests' }).waitFor()
    },
  },
]
