import { type Edit, isForModel } from '../../edit/edit.ts'
import { words } from '../../edit/words.ts'
import { PalimpsestError } from '../../errors.ts'
import type { HeldEdit, ListFilter, Page } from '../memory.ts'
import type { LiveView } from './timeline.ts'

const NOT_ASCII = /[^\0-\x7f]/
const searchable = new WeakMap<Edit, string>()

const subjects = new WeakMap<Edit, string>()

function subjectOf(edit: Edit): string {
  const known = subjects.get(edit)
  if (known !== undefined) return known
  const subject = words(edit.subject).join(' ')
  subjects.set(edit, subject)
  return subject
}

/** The edit's text, lower-cased; its folded words where it is not plain ASCII. Either way words end at what is no letter or digit. */
function textOf(edit: Edit): string {
  const known = searchable.get(edit)
  if (known !== undefined) return known
  const raw = [edit.subject, ...edit.aliases, edit.prompt, edit.targetNew].join('\n')
  const text = NOT_ASCII.test(raw) ? words(raw).join(' ') : raw.toLowerCase()
  searchable.set(edit, text)
  return text
}

interface Sought {
  readonly word: string
  /** True for "fran*": the beginning of a word will do. */
  readonly begins: boolean
}

function soughtIn(text: string): Sought[] {
  return text.split(/\s+/).flatMap((token) => {
    const own = words(token)
    return own.map((word, i) => ({ word, begins: token.endsWith('*') && i === own.length - 1 }))
  })
}

const LETTER = /[\p{L}\p{N}\p{M}]/u
const isLetter = (char: string): boolean => char !== '' && LETTER.test(char)

/** Whether the word stands in the text, not inside a longer one. In scripts without spaces every character is a word. */
function stands(text: string, { word, begins }: Sought): boolean {
  const spaceless = word.length === 1 && NOT_ASCII.test(word)
  for (let at = text.indexOf(word); at !== -1; at = text.indexOf(word, at + 1)) {
    if (spaceless) return true
    if (isLetter(text.charAt(at - 1))) continue
    if (begins || !isLetter(text.charAt(at + word.length))) return true
  }
  return false
}

/** All edits of a view as held now, kept from one list to the next: only what records or time have touched is judged again. */
class Listing {
  readonly #view: LiveView
  readonly #touched: Set<string>
  /** In the order in which they landed. */
  readonly #held = new Map<string, HeldEdit>()
  #latestFirst: readonly HeldEdit[] | undefined
  #at = Number.POSITIVE_INFINITY
  /** The first moment at which the passing of time alone changes a state. */
  #until = Number.POSITIVE_INFINITY

  constructor(view: LiveView) {
    this.#view = view
    this.#touched = view.watch()
  }

  latestFirst(at: number): readonly HeldEdit[] {
    if (at < this.#at || at >= this.#until) this.#judgeAll(at)
    else if (this.#touched.size > 0) this.#judge(new Set([...this.#touched].flatMap((key) => [...this.#view.sharing(key)])), at)
    this.#touched.clear()
    this.#at = at
    this.#latestFirst ??= [...this.#held.values()].reverse()
    return this.#latestFirst
  }

  #judgeAll(at: number): void {
    this.#held.clear()
    this.#until = Number.POSITIVE_INFINITY
    this.#judge(this.#view.ids(), at)
  }

  #judge(ids: Iterable<string>, at: number): void {
    this.#latestFirst = undefined
    const landed: HeldEdit[] = []
    for (const id of ids) {
      const held = this.#view.held(id, at)
      if (held !== undefined && this.#held.get(id)?.seq === held.seq) this.#held.set(id, held)
      else this.#held.delete(id)
      if (held === undefined) continue
      if (!this.#held.has(id)) landed.push(held)
      for (const moment of [held.edit.validFrom, held.edit.validTo])
        if (moment !== undefined && moment > at) this.#until = Math.min(this.#until, moment)
    }
    landed.sort((a, b) => a.seq - b.seq)
    for (const held of landed) this.#held.set(held.edit.id, held)
  }
}

const listings = new WeakMap<LiveView, Listing>()

/** Every edit as held at `at`, which is now: latest landing first. Quick unless much has changed since it was last asked. */
export function latestFirst(view: LiveView, at: number): readonly HeldEdit[] {
  const listing = listings.get(view) ?? new Listing(view)
  listings.set(view, listing)
  return listing.latestFirst(at)
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
  const sought = soughtIn(filter.text ?? '')
  return ({ edit, batchId, state }) =>
    (filter.state === undefined || state === filter.state) &&
    (filter.batchId === undefined || batchId === filter.batchId) &&
    (filter.model === undefined || isForModel(edit, filter.model)) &&
    (filter.tag === undefined || edit.tags.includes(filter.tag)) &&
    (subject === undefined || subjectOf(edit) === subject) &&
    sought.every((one) => stands(textOf(edit), one))
}

/** One page, latest landing first; `total` counts all pages. An edit that lands between two pages shifts neither. */
export function listEdits(view: LiveView, filter: ListFilter, at: number): Page {
  const matches = matcher(filter)
  const before = filter.cursor === undefined ? Number.POSITIVE_INFINITY : decodeCursor(filter.cursor)
  const found = latestFirst(view, at).filter(matches)
  const rest = found.filter((held) => held.seq < before)
  const edits = rest.slice(0, Math.max(1, filter.limit))
  const last = edits.at(-1)
  return {
    edits,
    nextCursor: last !== undefined && rest.length > edits.length ? encodeCursor(last.seq) : null,
    total: found.length,
  }
}
