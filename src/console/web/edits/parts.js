// @ts-check
// What the pages about edits share.
import { json } from '../shell/api.js'
import { kindOf, Statement } from '../shell/statement.js'
import { Badge, Bar, usePolling } from '../shell/ui.js'
import { html, useState } from '../vendor/preact.js'

const INDEX_POLL_MS = 3_000

/** @type {Record<string, {label: string, tone: '' | 'good' | 'warn' | 'bad'}>} */
export const STATES = {
  live: { label: 'live', tone: 'good' },
  superseded: { label: 'superseded', tone: 'warn' },
  withdrawn: { label: 'withdrawn', tone: 'bad' },
  not_yet_valid: { label: 'not yet valid', tone: '' },
  expired: { label: 'expired', tone: '' },
}

/** @param {{edits: any[], listRef?: any}} props */
export function Rows({ edits, listRef }) {
  return html`<ul class="edits" ref=${listRef} aria-label="Edits">${edits.map(
    (edit) => html`<li key=${edit.id}>
      <a class="wrap" href="#/edits/${encodeURIComponent(edit.id)}"><${Statement} edit=${edit} /></a>
      <${StateBadge} state=${edit.state} />
      <span class="meta small muted wrap">${edit.subject && html`<span>${edit.subject}</span>`}
        ${kindOf(edit) === 'rule' && html`<${Badge} tone="accent">rule<//>`}
        ${(edit.tags ?? []).map((/** @type {string} */ tag) => html`<a key=${tag} class="badge" href="#/edits?${new URLSearchParams({ tag })}">${tag}</a>`)}
        <time datetime=${edit.landed_at}>${moment(edit.landed_at)}</time></span></li>`,
  )}</ul>`
}

/** @param {{state: string}} props */
export function StateBadge({ state }) {
  const { label, tone } = STATES[state] ?? { label: state, tone: '' }
  return html`<${Badge} tone=${tone}>${label}<//>`
}

/** A time as its reader's clock says it. @param {string} iso */
export function moment(iso) {
  return new Date(iso).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' })
}

/** How far the search indexes are, while they are behind. */
export function Indexing() {
  const [memory, setMemory] = useState({ indexed: 0, pending: 0 })
  usePolling(
    () =>
      json('/health').then(
        (health) => setMemory(health.memory),
        () => {},
      ),
    INDEX_POLL_MS,
  )
  const { indexed, pending } = memory
  if (pending === 0) return null
  const share = indexed / Math.max(1, indexed + pending)
  return html`<div class="notice"><strong>${pending.toLocaleString('en')} edits are still being indexed</strong>
    <p class="small">What names its subject is found already; other words are found once this is done.</p>
    <${Bar} share=${share} label="${Math.floor(share * 100)} % indexed" /></div>`
}
