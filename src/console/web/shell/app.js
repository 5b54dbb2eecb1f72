// @ts-check
/*
 * The shell: navigation, theme, key dialog, and the page that the address names (`#/live`, `#/edits/e_1?state=live`).
 *
 * To add a page: write web/NAME/NAME.js that exports `function Page({ rest, query })` (`rest`: what stands behind `#/NAME/`, `query`:
 * URLSearchParams), give its entry in PAGES below a `load` like the others', and add the page to
 * test/browser/pages.ts, which checks it with axe in light, dark and at 360 px. CSS of one page goes into web/NAME/NAME.css, linked in index.html.
 *
 * There are (ui.js) PageHead, Badge, Field, EditLink, ErrorNote, Empty, Figure, Bar, StackedBar, Dialog, Icon, toast(), usePolling(), duration();
 * (plot.js) Plot; (api.js) json(), request(), events(), lines(), ApiError. Classes (components.css): card, card-head, stack, row, spread,
 * grid-2, grid-4, button [primary danger quiet small], field, input, badge [accent good warn bad], table-wrap > table [num], notice [bad good
 * warn], more (on <details>), code, muted, small, wrap. Colours and steps are custom properties (base.css); a series of a plot takes --c1 to --c8.
 * The policy forbids inline styles: widths and colours of drawn things are SVG attributes or classes. No preact `style` attribute as text.
 */

import { html, render, useEffect, useRef, useState } from '../vendor/preact.js'
import { json, keys } from './api.js'
import { Dialog, Empty, ErrorNote, Field, Icon, PageHead, Toasts } from './ui.js'

/** @typedef {{Page: (props: {rest: string, query: URLSearchParams}) => any}} PageModule */

/** @type {{name: string, title: string, load?: () => Promise<any>}[]} */
const PAGES = [
  { name: 'playground', title: 'Playground', load: () => import('../playground/playground.js') },
  { name: 'edits', title: 'Edits', load: () => import('../edits/edits.js') },
  { name: 'experiments', title: 'Experiments', load: () => import('../experiments/experiments.js') },
  { name: 'evaluation', title: 'Evaluation', load: () => import('../evaluation/evaluation.js') },
  { name: 'handoff', title: 'Hand-off', load: () => import('../handoff/handoff.js') },
  { name: 'live', title: 'Live', load: () => import('../live/live.js') },
]

/** What the address names. */
function place() {
  const [path = '', search = ''] = location.hash.replace(/^#\/?/, '').split('?')
  const [name = '', ...rest] = path.split('/')
  return { name: name || 'playground', rest: rest.map(decodeURIComponent).join('/'), query: new URLSearchParams(search) }
}

function App() {
  const [at, setAt] = useState(place())
  const main = useRef(/** @type {HTMLElement | null} */ (null))
  useEffect(() => {
    const go = () => {
      setAt(place())
      main.current?.focus()
      scrollTo(0, 0)
    }
    addEventListener('hashchange', go)
    // The address may have changed since the first drawing, before anybody listened.
    setAt(place())
    return () => removeEventListener('hashchange', go)
  }, [])
  const page = PAGES.find(({ name }) => name === at.name)
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => {
      event.preventDefault()
      main.current?.focus()
    }}>Skip to the page</a>
    <div class="frame">
      <header class="side">
        <a class="brand" href="#/playground"><${Mark} />Palimpsest</a>
        <nav aria-label="Pages"><ul class="nav">${PAGES.map(
          ({ name, title }) =>
            html`<li key=${name}><a href="#/${name}" aria-current=${name === at.name ? 'page' : undefined}><${Icon} name=${name} />${title}</a></li>`,
        )}</ul></nav>
        <div class="side-foot"><${About} page=${at.name} /><${Theme} /></div>
      </header>
      <main class="page" id="main" tabindex="-1" ref=${main}>
        ${page === undefined ? html`<${Unknown} name=${at.name} />` : html`<${Shown} key=${page.name} page=${page} rest=${at.rest} query=${at.query} />`}
      </main>
    </div>
    <${KeyDialog} /><${Toasts} />`
}

/** @param {{page: {title: string, load?: () => Promise<PageModule>}, rest: string, query: URLSearchParams}} props */
function Shown({ page, rest, query }) {
  const [loaded, setLoaded] = useState(/** @type {{Page?: PageModule['Page'], error?: unknown}} */ ({}))
  useEffect(() => {
    page.load?.().then(setLoaded, (error) => setLoaded({ error }))
  }, [page])
  if (page.load === undefined)
    return html`<${PageHead} title=${page.title} /><${Empty} title="Not here yet">
      <p>This page is still being made. The API and the command line already do its work.</p><//>`
  if (loaded.error)
    return html`<${PageHead} title=${page.title} /><${ErrorNote} error=${loaded.error} retry=${() => location.reload()} />`
  return loaded.Page
    ? html`<${loaded.Page} rest=${rest} query=${query} />`
    : html`<h1>${page.title}</h1><p class="muted" role="status"><span class="spinner"></span> Loading</p>`
}

/** @param {{name: string}} props */
function Unknown({ name }) {
  return html`<${PageHead} title="No such page" /><${Empty} title="There is no page “${name.slice(0, 60)}”"><p>
    <a href="#/playground">Go to the Playground</a></p><//>`
}

function Mark() {
  return html`<svg viewBox="0 0 32 32" fill="none" stroke-width="2.6" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
    <rect width="32" height="32" rx="8" fill="#4f46e5" /><path d="M9 22.5V9.5h8.2a4.6 4.6 0 0 1 0 9.2H9" stroke="#a5b4fc" />
    <path d="M13 25.5V12.5h6.200a4.6 4.6 0 0 1 0 9.2H13" stroke="#fff" /></svg>`
}

/** What is served here, asked again with every page. @param {{page: string}} props */
function About({ page }) {
  const [health, setHealth] = useState(/** @type {any} */ (null))
  // Of the tenant whose key this is; null for a key that may not read edits.
  const [live, setLive] = useState(/** @type {number | null} */ (null))
  useEffect(() => {
    json('/health').then(setHealth, () => {})
    json('/v1/edits?state=live&limit=1').then(
      ({ total }) => setLive(total),
      () => setLive(null),
    )
  }, [page])
  if (health === null) return null
  const { model, version } = health
  return html`<div class="about"><strong>${model.name}</strong>
    <br />on ${model.device}${live !== null && ` · ${live.toLocaleString('en')} ${live === 1 ? 'edit' : 'edits'}`}<br />Palimpsest ${version} · <a href="/docs">HTTP API</a></div>`
}

function Theme() {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? (dark ? 'dark' : 'light'))
  const other = theme === 'dark' ? 'light' : 'dark'
  const change = () => {
    document.documentElement.dataset.theme = other
    localStorage.setItem('palimpsest-theme', other)
    setTheme(other)
  }
  return html`<div><button type="button" class="button quiet small" onClick=${change}>
    <${Icon} name=${other === 'dark' ? 'moon' : 'sun'} />${other === 'dark' ? 'Dark' : 'Light'}</button></div>`
}

/** Asks for an API key when the gateway wants one; it stays in this tab's session. */
function KeyDialog() {
  const [answer, setAnswer] = useState(/** @type {{give: (key: string | null) => void} | null} */ (null))
  const [key, setKey] = useState('')
  useEffect(() => {
    keys.ask = () => new Promise((give) => setAnswer({ give }))
  }, [])
  if (answer === null) return null
  /** @param {string | null} value */
  const done = (value) => {
    answer.give(value)
    setAnswer(null)
  }
  return html`<${Dialog} title="This gateway asks for an API key" onClose=${() => done(null)}>
    <form onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault()
      done(key.trim() || null)
    }}>
      <${Field} id="key" label="API key" hint="Kept in this tab until it is closed, and sent to this gateway only.">${(
        /** @type {object} */ attributes,
      ) =>
        html`<input class="input" type="password" autocomplete="off" ...${attributes} value=${key} onInput=${(/** @type {any} */ event) => setKey(event.target.value)} />`}<//>
      <div class="row"><button class="button primary">Use this key</button></div>
    </form><//>`
}

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('app')))
