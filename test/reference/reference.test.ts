import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { serveEverything } from '../http/contract/everything.ts'
import { commandLinePage } from './command-line.ts'
import { configurationPage } from './configuration.ts'
import { editFormatsPage } from './edit-formats.ts'
import { errorsPage } from './errors.ts'
import { type Document, httpPage } from './http.ts'
import { metricsPage } from './metrics.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

/** The pages of docs/reference equal what the code says; `npm run docs:reference` writes them. */
let served: Awaited<ReturnType<typeof serveEverything>>
beforeAll(async () => {
  served = await serveEverything()
})
afterAll(() => served.close())

const PAGES: Readonly<Record<string, () => string | Promise<string>>> = {
  http: async () => httpPage((await (await fetch(`${served.base}/openapi.json`)).json()) as Document),
  'command-line': commandLinePage,
  configuration: configurationPage,
  'edit-formats': editFormatsPage,
  metrics: () => metricsPage(served.gateway),
  errors: errorsPage,
}

test.each(Object.keys(PAGES))('docs/reference/%s.md is what the code says', async (name) => {
  await expect(await PAGES[name]?.()).toMatchFileSnapshot(join(import.meta.dirname, `../../docs/reference/${name}.md`))
})
