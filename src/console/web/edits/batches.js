// @ts-check
// What landed together can be taken back together.
import { json } from '../shell/api.js'
import { Badge, Dialog, Empty, ErrorNote, PageHead, toast } from '../shell/ui.js'
import { html, useEffect, useState } from '../vendor/preact.js'
import { moment } from './parts.js'

const PAGE_BATCHES = 50

export function Batches() {
  const [page, setPage] = useState(/** @type {{data: any[], total: number, next: string | null} | null} */ (null))
  const [error, setError] = useState(/** @type {unknown} */ (null))
  const [asking, setAsking] = useState(/** @type {any} */ (null))
  const [busy, setBusy] = useState(false)
  /** @param {any[]} before @param {string | null} cursor */
  const load = (before, cursor) => {
    setError(null)
    setBusy(true)
    json(`/v1/batches?limit=${PAGE_BATCHES}${cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`}`)
      .then(({ data, total, next_cursor: next }) => setPage({ data: [...before, ...data], total, next }), setError)
      .then(() => setBusy(false))
  }
  useEffect(() => load([], null), [])
  /** @param {any} batch @param {'withdraw' | 'restore'} how */
  const change = async (batch, how) => {
    setAsking(null)
    setError(null)
    setBusy(true)
    try {
      const after = await changeBatch(batch.id, how)
      setPage((now) => now && { ...now, data: now.data.map((one) => (one.id === batch.id ? { ...one, live: after.live } : one)) })
    } catch (thrown) {
      setError(thrown)
    }
    setBusy(false)
  }
  return html`
    <p class="small"><a href="#/edits">All edits</a></p>
    <${PageHead} title="Batches" about="Every file, form and request that landed edits, latest first." />
    <${ErrorNote} error=${error} retry=${() => load([], null)} />
    ${page === null && !error && html`<p class="muted" role="status"><span class="spinner"></span> Loading</p>`}
    ${
      page?.total === 0 &&
      html`<${Empty} title="No batches yet"><p>Each landing is one: an edit from the form, or all edits of a file.</p>
      <a class="button" href="#/edits?view=import">Import a file</a><//>`
    }
    ${
      page &&
      page.total > 0 &&
      html`<ul class="edits" aria-label="Batches">${page.data.map(
        (batch) => html`<li key=${batch.id}>
          <a class="wrap" href="#/edits?${new URLSearchParams({ batch: batch.id })}"><strong>${batch.source}</strong></a>
          <span class="row">${
            batch.live > 0 &&
            html`<a class="button small" href="#/experiments?${new URLSearchParams({ new: 'rollout', batch: batch.id })}"
              aria-label="Roll out ${batch.source}, ${batch.id}, in stages">Roll out in stages</a>
            <button type="button" class="button small danger" disabled=${busy} aria-label="Roll back ${batch.source}, ${batch.id}" onClick=${() => setAsking(batch)}>Roll back</button>`
          }
            ${
              batch.live < batch.edits &&
              html`<button type="button" class="button small" disabled=${busy} aria-label="Restore ${batch.source}, ${batch.id}"
                onClick=${() => change(batch, 'restore')}>${batch.live > 0 ? 'Restore the rest' : 'Restore'}</button>`
            }</span>
          <span class="meta small muted wrap"><${Badge} tone=${batch.live > 0 ? 'good' : ''}>${count(batch.live)} of ${count(batch.edits)} live<//>
            <code>${batch.id}</code><time datetime=${batch.landed_at}>${moment(batch.landed_at)}</time></span></li>`,
      )}</ul>`
    }
    ${page?.next && html`<div class="row more-row"><button type="button" class="button" disabled=${busy} onClick=${() => load(page.data, page.next)}>Load more</button></div>`}
    ${asking && html`<${Confirm} batch=${asking} onYes=${() => change(asking, 'withdraw')} onClose=${() => setAsking(null)} />`}`
}

/** Rolls a batch back or takes that back, and says how many edits it was. @param {string} id @param {'withdraw' | 'restore'} how @returns {Promise<any>} */
export async function changeBatch(id, how) {
  const after = await json(`/v1/batches/${encodeURIComponent(id)}/${how}`, { method: 'POST' })
  if (how === 'withdraw')
    toast(`${edits(after.withdrawn)} of the batch ${after.withdrawn === 1 ? 'is' : 'are'} withdrawn.`, 'good')
  else if (after.restored > 0) toast(`${edits(after.restored)} restored.`, 'good')
  else toast('No edit of this batch is withdrawn: each is live, superseded by a later one, or came earlier in another batch.')
  return after
}

/** @param {number} many */
function count(many) {
  return many.toLocaleString('en')
}

/** @param {number} many */
function edits(many) {
  return many === 1 ? 'One edit' : `${count(many)} edits`
}

/** @param {{batch: any, onYes: () => void, onClose: () => void}} props */
function Confirm({ batch, onYes, onClose }) {
  return html`<${Dialog} title="Roll back ${batch.source}?" onClose=${onClose}>
    <p><strong>${batch.live === 1 ? 'One live edit is' : `${count(batch.live)} live edits are`} withdrawn</strong> at once, and no longer told
       to the model. What had given way to them is live again. The batch can be restored.</p>
    <div class="row"><button type="button" class="button danger" data-focus="true" onClick=${onYes}>Withdraw ${edits(batch.live).toLowerCase()}</button>
      <button type="button" class="button" onClick=${onClose}>Keep ${batch.live === 1 ? 'it' : 'them'}</button></div><//>`
}
