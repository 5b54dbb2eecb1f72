// @ts-check
// Parts that pages are built from; their looks are in components.css.

import { html, useEffect, useRef, useState } from '../vendor/preact.js'
import { json } from './api.js'
import { statementOf } from './statement.js'

/** @typedef {import('preact').ComponentChildren} Children */

/** One line of an icon set of our own, 20 × 20. @type {Record<string, string>} */
const ICONS = {
  playground: 'M3 4.500h14v9H9l-4 3v-3H3z',
  edits: 'M4 16l.8-3.500L13.5 3.800a1.6 1.6 0 0 1 2.3 0l.4.4a1.6 1.6 0 0 1 0 2.300L7.5 15.2 4 16zM11.5 6l2.5 2.5',
  experiments: 'M8 3h4M9 3v5l-4.5 7.500A1 1 0 0 0 5.4 17h9.200a1 1 0 0 0 .9-1.500L11 8V3M6.5 13h7',
  evaluation: 'M4 17V9M8 17V4M12 17v-6M16 17V7',
  handoff: 'M3 6h7v8H3zM12 10h5M14.5 7.5L17 10l-2.5 2.5',
  live: 'M2.5 10h3l2-5.5 4.5 11 2.5-5.500h3',
  sun: 'M10 6.500a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 2v1.500M10 16.500V18M2 10h1.500M16.5 10H18M4.3 4.300l1.1 1.100M14.6 14.600l1.1 1.100M4.3 15.700l1.1-1.100M14.6 5.400l1.1-1.1',
  moon: 'M16.5 11.800A7 7 0 0 1 8.2 3.500a7 7 0 1 0 8.3 8.300z',
  close: 'M5.5 5.500l9 9M14.5 5.500l-9 9',
  stop: 'M6 6h8v8H6z',
  plus: 'M10 4.500v11M4.5 10h11',
  search: 'M9 3.500a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM13 13l4 4',
  upload: 'M10 13.500V4M6 7.500L10 3.500l4 4M4 13.500V16h12v-2.5',
  undo: 'M4 8h8a4 4 0 0 1 0 8H8M4 8l3.5-3.500M4 8l3.5 3.5',
}

/** @param {{name: string}} props */
export function Icon({ name }) {
  return html`<svg width="18" height="18" viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="1.6"
    stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${ICONS[name]} /></svg>`
}

/** Title of a page, one sentence about it, and its actions. @param {{title: string, about?: Children, children?: Children}} props */
export function PageHead({ title, about, children }) {
  useEffect(() => {
    document.title = `${title} · Palimpsest`
  }, [title])
  return html`<header class="page-head"><div><h1>${title}</h1>${about && html`<p>${about}</p>`}</div><div class="row">${children}</div></header>`
}

/** @param {{tone?: '' | 'accent' | 'good' | 'warn' | 'bad', title?: string, children?: Children}} props */
export function Badge({ tone = '', title, children }) {
  return html`<span class="badge ${tone}" title=${title}>${children}</span>`
}

/**
 * A labelled input. `fault` is shown beneath and announced.
 * @param {{id: string, label: string, hint?: Children, fault?: string | undefined, inline?: boolean, children: (attributes: object) => Children}} props
 *   `children`: given the attributes that tie the input to its label
 */
export function Field({ id, label, hint, fault, inline = false, children }) {
  const said = [hint && `${id}-hint`, fault && `${id}-fault`].filter(Boolean).join(' ')
  const attributes = { id, 'aria-describedby': said || undefined, 'aria-invalid': fault ? 'true' : undefined }
  return html`<div class="field ${inline ? 'inline' : ''}"><label for=${id}>${label}</label>${children(attributes)}
    ${hint && html`<span class="hint" id="${id}-hint">${hint}</span>`}
    ${fault && html`<span class="fault" id="${id}-fault" role="alert">${fault}</span>`}</div>`
}

/** What went wrong and what to do. @param {{error: unknown, retry?: () => void}} props */
export function ErrorNote({ error, retry }) {
  if (!error) return null
  const problems = /** @type {{problems?: {field: string | null, message: string}[]}} */ (error).problems ?? []
  return html`<div class="notice bad" role="alert"><strong>That did not work</strong><p>${messageOf(error)}</p>
    ${problems.length > 0 && html`<ul>${problems.slice(0, 20).map((one) => html`<li>${one.field && html`<code>${one.field}</code> `}${one.message}</li>`)}</ul>`}
    ${retry && html`<div><button type="button" class="button small" onClick=${retry}>Try again</button></div>`}</div>`
}

/** @param {unknown} error */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error)
}

/** Edits that are being asked for, so that many links to one ask once. @type {Map<string, Promise<any>>} */
const asked = new Map()

/** @param {string} path */
function askOnce(path) {
  const asking = asked.get(path) ?? json(path).finally(() => asked.delete(path))
  asked.set(path, asking)
  return asking
}

/** An edit by what it says, once that is known. @param {{id: string}} props */
export function EditLink({ id }) {
  const [said, setSaid] = useState(id)
  const path = encodeURIComponent(id)
  useEffect(() => {
    askOnce(`/v1/edits/${path}`).then(
      (edit) => setSaid(statementOf(edit)),
      () => {},
    )
  }, [id])
  return html`<a href="#/edits/${path}">${said}</a>`
}

/** Nothing here yet, and what would change that. @param {{title: string, children?: Children}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2>${children}</div>`
}

/** One number with its name. @param {{name: string, note?: Children, children: Children}} props */
export function Figure({ name, note, children }) {
  return html`<dl class="figure"><dt>${name}</dt><dd>${children}${note && html` <span class="note">${note}</span>`}</dd></dl>`
}

/** A share, 0 to 1. @param {{share: number, label: string, tone?: string}} props */
export function Bar({ share, label, tone = 'c1' }) {
  return html`<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=${label}>
    <rect class=${tone} width=${Math.max(0, Math.min(1, share)) * 100} height="8" /></svg>`
}

/** Parts of a whole beside each other. @param {{parts: {name: string, value: number, tone: string}[], label: string}} props */
export function StackedBar({ parts, label }) {
  const whole = parts.reduce((sum, { value }) => sum + value, 0) || 1
  let x = 0
  return html`<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=${label}>
    ${parts.map(({ value, tone }) => {
      const at = x
      x += (value / whole) * 100
      return html`<rect class=${tone} x=${at} width=${x - at} height="8" />`
    })}</svg>`
}

/**
 * A modal dialog: Escape and the button close it, focus goes back where it was. It begins in the first input, or the one with `data-focus`.
 * @param {{title: string, onClose: () => void, children: Children}} props
 */
export function Dialog({ title, onClose, children }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null))
  useEffect(() => {
    const dialog = /** @type {HTMLDialogElement} */ (ref.current)
    dialog.showModal()
    const first = dialog.querySelector('[data-focus="true"]') ?? dialog.querySelector('input')
    if (first instanceof HTMLElement) first.focus()
  }, [])
  return html`<dialog ref=${ref} aria-label=${title} onClose=${onClose}>
    <div class="stack"><div class="card-head"><h2>${title}</h2>
      <button type="button" class="button quiet small" aria-label="Close" onClick=${() => ref.current?.close()}><${Icon} name="close" /></button></div>
    ${children}</div></dialog>`
}

/** @type {Set<(toast: {id: number, text: string, tone: string}) => void>} */
const listeners = new Set()
let toasts = 0

/** Says something for some seconds, to screen readers too. @param {string} text @param {'' | 'good' | 'bad'} [tone] */
export function toast(text, tone = '') {
  for (const listen of listeners) listen({ id: ++toasts, text, tone })
}

const TOAST_MS = 6_000

export function Toasts() {
  const [shown, setShown] = useState(/** @type {{id: number, text: string, tone: string}[]} */ ([]))
  /** @param {number} id */
  const drop = (id) => setShown((all) => all.filter((one) => one.id !== id))
  useEffect(() => {
    /** @param {{id: number, text: string, tone: string}} one */
    const listen = (one) => {
      setShown((all) => [...all.slice(-3), one])
      setTimeout(drop, TOAST_MS, one.id)
    }
    listeners.add(listen)
    return () => void listeners.delete(listen)
  }, [])
  return html`<div class="toasts" role="status" aria-live="polite">${shown.map(
    ({ id, text, tone }) => html`<div class="toast ${tone}" key=${id}><span>${text}</span>
      <button type="button" class="button quiet small" aria-label="Dismiss" onClick=${() => drop(id)}><${Icon} name="close" /></button></div>`,
  )}</div>`
}

/** Runs `work` every `everyMs` while the page is to be seen. @param {() => Promise<void>} work @param {number} everyMs */
export function usePolling(work, everyMs) {
  useEffect(() => {
    let on = true
    /** @type {number | undefined} */
    let timer
    const turn = async () => {
      if (!document.hidden) await work()
      if (on) timer = setTimeout(turn, everyMs)
    }
    turn()
    return () => {
      on = false
      clearTimeout(timer)
    }
  }, [])
}

/** Milliseconds as people read them. @param {number | null | undefined} ms */
export function duration(ms) {
  if (ms === null || ms === undefined) return '–'
  if (ms >= 10_000) return `${(ms / 1_000).toFixed(1)} s`
  if (ms >= 1_000) return `${(ms / 1_000).toFixed(2)} s`
  if (ms > 0 && ms < 0.05) return '< 0.1 ms'
  return ms >= 10 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`
}
