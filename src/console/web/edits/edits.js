// @ts-check
// All edits: search, filters, pages; and the way to one of them, to a new one, to a file of them and to their batches.
import { json } from '../shell/api.js'
import { Empty, ErrorNote, Field, Icon, PageHead } from '../shell/ui.js'
import { html, useEffect, useRef, useState } from '../vendor/preact.js'
import { Batches } from './batches.js'
import { EditDetail } from './detail.js'
import { EditForm } from './form.js'
import { Import } from './import.js'
import { Indexing, Rows, STATES } from './parts.js'

const PAGE_EDITS = 50
/** A pause in typing that is long enough to ask. */
const TYPING_MS = 180

/** @typedef {{q: string, state: string, tag: string, batch: string, subject: string, model: string}} Filters */

/** @param {{rest: string, query: URLSearchParams}} props */
export function Page({ rest, query }) {
  if (rest !== '') return html`<${EditDetail} key=${rest} id=${rest} />`
  switch (query.get('view')) {
    case 'new':
      return html`<${EditForm} key=${query.get('revise') ?? ''} revise=${query.get('revise')} example=${query.get('example') ?? ''} />`
    case 'import':
      return html`<${Import} />`
    case 'batches':
      return html`<${Batches} />`
    default:
      return html`<${List} query=${query} />`
  }
}

/** @param {URLSearchParams} query @returns {Filters} */
function filtersOf(query) {
  const of = (/** @type {string} */ name) => query.get(name) ?? ''
  return { q: of('q'), state: of('state'), tag: of('tag'), batch: of('batch'), subject: of('subject'), model: of('model') }
}

/** Those that are set, as a query. @param {Filters} filters */
function queryOf(filters) {
  return new URLSearchParams(Object.entries(filters).filter(([, value]) => value.trim() !== ''))
}

/** The word that is still being typed may go on. @param {string} q */
function open(q) {
  return /[\p{L}\p{N}]$/u.test(q) ? `${q}*` : q
}

/** @param {{query: URLSearchParams}} props */
function List({ query }) {
  const [filters, setFilters] = useState(filtersOf(query))
  const [page, setPage] = useState(/** @type {{data: any[], total: number, next: string | null} | null} */ (null))
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const [loading, setLoading] = useState(true)
  const [round, setRound] = useState(0)
  const typing = useRef(false)
  const list = useRef(/** @type {HTMLElement | null} */ (null))

  useEffect(() => setFilters(filtersOf(query)), [query])

  const asked = queryOf(filters).toString()
  /** @param {string | null} cursor @param {AbortSignal} [signal] */
  const fetchPage = (cursor, signal) => {
    const wanted = queryOf({ ...filters, q: open(filters.q) })
    wanted.set('limit', String(PAGE_EDITS))
    if (cursor !== null) wanted.set('cursor', cursor)
    return json(`/v1/edits?${wanted}`, signal ? { signal } : {})
  }
  useEffect(() => {
    const controller = new AbortController()
    const load = async () => {
      setLoading(true)
      setError(null)
      try {
        const { data, total, next_cursor: next } = await fetchPage(null, controller.signal)
        setPage({ data, total, next })
        setLoading(false)
      } catch (thrown) {
        if (controller.signal.aborted) return
        setError(thrown)
        setLoading(false)
      }
    }
    const timer = setTimeout(load, typing.current ? TYPING_MS : 0)
    typing.current = false
    return () => {
      clearTimeout(timer)
      controller.abort()
    }
  }, [asked, round])

  /** @param {string} name @param {string} value */
  const filter = (name, value) => {
    typing.current = true
    const next = { ...filters, [name]: value }
    setFilters(next)
    history.replaceState(null, '', `#/edits${queryOf(next).size > 0 ? `?${queryOf(next)}` : ''}`)
  }
  const more = async () => {
    if (page === null) return
    setLoading(true)
    try {
      const { data, total, next_cursor: next } = await fetchPage(page.next)
      const from = page.data.length
      setPage({ data: [...page.data, ...data], total, next })
      // The button that was pressed may be gone: reading goes on with the first of the new edits.
      setTimeout(() => /** @type {HTMLElement | null} */ (list.current?.querySelectorAll('li > a')[from])?.focus())
    } catch (thrown) {
      setError(thrown)
    }
    setLoading(false)
  }
  const again = () => setRound(round + 1)

  return html`
    <${PageHead} title="Edits" about="What the model has been told, and what it has been told before.">
      <a class="button" href="#/edits?view=batches">Batches</a>
      <a class="button" href="#/edits?view=import"><${Icon} name="upload" />Import</a>
      <a class="button primary" href="#/edits?view=new"><${Icon} name="plus" />Add an edit</a><//>
    <${Filter} filters=${filters} onChange=${filter} onClear=${() => setFilters(filtersOf(new URLSearchParams()))} />
    <${Indexing} />
    <${ErrorNote} error=${error} retry=${again} />
    ${
      page &&
      html`<div class="row spread"><p class="muted small" role="status">${
        page.total === 1 ? 'One edit' : `${page.total.toLocaleString('en')} edits`
      }${asked === '' ? '' : ' found'}${page.data.length < page.total ? `, the latest ${page.data.length.toLocaleString('en')} shown` : ''}</p>
        ${loading && html`<span class="spinner" aria-hidden="true"></span>`}</div>`
    }
    ${page === null && loading && html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`}
    ${page?.total === 0 && html`<${Nothing} filtered=${asked !== ''} />`}
    ${page && page.total > 0 && html`<${Rows} edits=${page.data} listRef=${list} />`}
    ${page?.next && html`<div class="row more-row"><button type="button" class="button" disabled=${loading} onClick=${more}>Load more</button></div>`}`
}

/** @param {{filters: Filters, onChange: (name: string, value: string) => void, onClear: () => void}} props */
function Filter({ filters, onChange, onClear }) {
  const { q, state, ...others } = filters
  /** @param {string} name @param {string} label @param {string} value @param {string} placeholder */
  const input = (name, label, value, placeholder) =>
    html`<${Field} key=${name} id="filter-${name}" label=${label}>${(/** @type {object} */ attributes) =>
      html`<input class="input" autocomplete="off" placeholder=${placeholder} ...${attributes} value=${value}
        onInput=${(/** @type {any} */ event) => onChange(name, event.target.value)} />`}<//>`
  const many = Object.values(others).filter(Boolean).length
  return html`<form class="card edit-filter" role="search" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
    <div class="edit-search">
      <${Field} id="filter-q" label="Search">${(/** @type {object} */ attributes) =>
        html`<input class="input" type="search" autocomplete="off" placeholder="Words of the edit" ...${attributes} value=${q}
          onInput=${(/** @type {any} */ event) => onChange('q', event.target.value)} />`}<//>
      <${Field} id="filter-state" label="State">${(/** @type {object} */ attributes) =>
        html`<select class="input" ...${attributes} value=${state} onChange=${(/** @type {any} */ event) => onChange('state', event.target.value)}>
          <option value="">any</option>${Object.entries(STATES).map(([name, { label }]) => html`<option key=${name} value=${name}>${label}</option>`)}</select>`}<//>
    </div>
    <details class="more" open=${many > 0}><summary>More filters${many > 0 ? ` (${many})` : ''}</summary>
      <div class="grid-4">${input('subject', 'Subject', others.subject, 'France')}${input('tag', 'Tag', others.tag, 'news')}
        ${input('batch', 'Batch', others.batch, 'b_…')}${input('model', 'For the model', others.model, 'name as served')}</div></details>
    ${queryOf(filters).size > 0 && html`<div><a class="button small" href="#/edits" onClick=${onClear}>Clear all</a></div>`}</form>`
}

/** @param {{filtered: boolean}} props */
function Nothing({ filtered }) {
  return filtered
    ? html`<${Empty} title="No edit is like that"><p>Search finds whole words and their beginnings, in any order. Use fewer words, or clear a filter.</p>
        <a class="button" href="#/edits">Show all edits</a><//>`
    : html`<${Empty} title="No edits yet"><p>An edit is one sentence, such as “Our refund window is 30 days”, or a rule for certain messages. From the next request on, the model goes by it.</p>
        <div class="row"><a class="button primary" href="#/edits?view=new">Add the first</a><a class="button" href="#/edits?view=import">Import a file</a></div><//>`
}
