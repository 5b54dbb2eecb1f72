import { type Edit, isForModel, words } from '../edit/edit.ts'
import { PalimpsestError } from '../errors.ts'
import type { LiveView } from './live.ts'
import type { HeldEdit, ListFilter, Page } from './memory.ts'

const searchable = new WeakMap<Edit, string>()

/** The edit's words between single spaces, so that " word " finds whole words only. */
function textOf(edit: Edit): string {
  const known = searchable.get(edit)
  if (known !== undefined) return known
  const text = ` ${words([edit.subject, ...edit.aliases, edit.prompt, edit.targetNew].join(' ')).join(' ')} `
  searchable.set(edit, text)
  return text
}

function encodeCursor(seq: number): string {
  return Buffer.from(`s${seq}`).toString('base64url')
}

function decodeCursor(cursor: string): number {
  const seq = /^s(\d{1,15})$/.exec(Buffer.from(cursor, 'base64url').toString())?.[1]
  if (seq === undefined) {
    throw new PalimpsestError(
      'invalid_value',
      `The cursor "${cursor.slice(0, 64)}" is none that this server gave out. Leave it away to start from the first page.`,
      {
        param: 'cursor',
      },
    )
  }
  return Number(seq)
}

function matcher(filter: ListFilter): (held: HeldEdit) => boolean {
  const subject = filter.subject === undefined ? undefined : words(filter.subject).join(' ')
  const wanted = words(filter.text ?? '').map((word) => ` ${word} `)
  return ({ edit, batchId, state }) =>
    (filter.state === undefined || state === filter.state) &&
    (filter.batchId === undefined || batchId === filter.batchId) &&
    (filter.model === undefined || isForModel(edit, filter.model)) &&
    (filter.tag === undefined || edit.tags.includes(filter.tag)) &&
    (subject === undefined || words(edit.subject).join(' ') === subject) &&
    wanted.every((word) => textOf(edit).includes(word))
}

/** One page, latest landing first; `total` counts all pages. An edit that lands between two pages shifts neither. */
export function listEdits(view: LiveView, filter: ListFilter, at: number): Page {
  const matches = matcher(filter)
  const before = filter.cursor === undefined ? Number.POSITIVE_INFINITY : decodeCursor(filter.cursor)
  const found: HeldEdit[] = []
  for (const id of view.ids()) {
    const held = view.held(id, at)
    if (held !== undefined && matches(held)) found.push(held)
  }
  found.sort((a, b) => b.seq - a.seq)
  const rest = found.filter((held) => held.seq < before)
  const edits = rest.slice(0, Math.max(1, filter.limit))
  const last = edits.at(-1)
  return {
    edits,
    nextCursor: last !== undefined && rest.length > edits.length ? encodeCursor(last.seq) : null,
    total: found.length,
  }
}
