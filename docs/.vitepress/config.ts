import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type DefaultTheme, defineConfig } from 'vitepress'

const DOCS = join(import.meta.dirname, '..')

const base = process.env.PALIMPSEST_DOCS_BASE ?? '/'

type Item = DefaultTheme.SidebarItem

const page = (text: string, link: string): Item => ({ text, link })

function decisions(): Item[] {
  return readdirSync(join(DOCS, 'decisions'))
    .filter((file) => file.endsWith('.md'))
    .map((file) => {
      const title = /^# (.+)$/m.exec(readFileSync(join(DOCS, 'decisions', file), 'utf8'))?.[1] ?? file
      return page(title, `/decisions/${file.replace(/\.md$/, '')}`)
    })
}

const sidebar: Item[] = [
  {
    text: 'Guide',
    items: [
      page('Getting started', '/guide/getting-started'),
      page('Edits and rules', '/guide/edits'),
      page('Clients', '/guide/clients'),
      page('Experiments', '/guide/experiments'),
      page('Rollouts', '/guide/rollouts'),
      page('Adapters', '/guide/adapters'),
      page('Hand-off', '/guide/hand-off'),
      page('Keys and budgets', '/guide/keys'),
      page('Engines', '/guide/engines'),
      page('Console', '/guide/console'),
      page('Evaluation', '/guide/evaluation'),
      page('Operations', '/guide/operations'),
      page('Many gateways', '/guide/many-gateways'),
      page('Deploying', '/guide/deploying'),
    ],
  },
  {
    text: 'Reference',
    items: [
      page('Command line', '/reference/command-line'),
      page('Configuration', '/reference/configuration'),
      page('Edit formats', '/reference/edit-formats'),
      page('Metrics', '/reference/metrics'),
      page('Errors', '/reference/errors'),
      page('HTTP', '/reference/http'),
    ],
  },
  {
    text: 'Concepts',
    items: [
      page('Architecture', '/concepts/architecture'),
      page('Selection', '/concepts/selection'),
      page('Multi-hop questions', '/concepts/multi-hop'),
      page('Statistics of experiments', '/concepts/statistics'),
      page('Terms', '/concepts/terms'),
    ],
  },
  {
    text: 'Results',
    items: [
      page('Selection', '/results/selection'),
      page('The gate before the reader', '/results/first-gate'),
      page('Hand-off', '/results/hand-off'),
      page('Scale', '/results/scale'),
      page('Speed', '/results/speed'),
      page('Speed over an upstream', '/results/proxy'),
      page('Many gateways', '/results/many-gateways'),
      page('Hostile load', '/results/hostile-load'),
      page('Statistics', '/results/statistics'),
      page('Suites of others', '/results/suites'),
      page('Limits', '/results/limits'),
    ],
  },
  {
    text: 'Project',
    items: [
      page('Contributing', '/project/contributing'),
      page('Conformance', '/project/conformance'),
      page('Incidents elsewhere', '/project/incidents'),
      page('Log', '/LOG'),
      { text: 'Decisions', collapsed: true, items: decisions() },
    ],
  },
]

/** Characters from which a cell of a table may be broken into lines; by the class `long` the style knows it. */
const LONG_CHARS = 18

export default defineConfig({
  title: 'Palimpsest',
  description: 'An OpenAI-compatible gateway that changes what a language model knows, now, without training.',
  // Where the site is served, for a host that serves it in a folder: PALIMPSEST_DOCS_BASE=/palimpsest/ npm run docs
  base,
  head: [['link', { rel: 'icon', href: `${base}icon.svg` }]],
  // A page tells nothing about when and by whom it was built.
  lastUpdated: false,
  markdown: {
    config: ({ renderer }) => {
      renderer.rules.td_open = (tokens, i, options, _, self) => {
        if ((tokens[i + 1]?.content.length ?? 0) >= LONG_CHARS) tokens[i]?.attrJoin('class', 'long')
        return self.renderToken(tokens, i, options)
      }
    },
  },
  themeConfig: {
    sidebar,
    outline: [2, 3],
    search: { provider: 'local' },
    nav: [
      { text: 'Guide', link: '/guide/getting-started' },
      { text: 'Reference', link: '/reference/command-line' },
      { text: 'Concepts', link: '/concepts/architecture' },
      { text: 'Results', link: '/results/selection' },
    ],
  },
})
