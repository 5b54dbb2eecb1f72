import { type Edit, isForModel } from '../edit/edit.ts'
import { PalimpsestError } from '../errors.ts'
import type { ListFilter } from '../memory/memory.ts'
import type { MemoryStore } from '../memory/memory-store.ts'
import { growsInPlace, type HandoffMethod } from './job.ts'

/** Which edits are meant: these, or those that a filter finds. */
export type EditsQuery = { readonly ids: readonly string[] } | Omit<ListFilter, 'tenant' | 'limit' | 'cursor' | 'state'>

export interface Chosen {
  readonly edits: readonly Edit[]
  /** What was left out, and why. */
  readonly notes: readonly string[]
}

const PAGE = 1_000

/** Live edits for the served model, oldest first. Throws `edit_not_found`, and `invalid_value` where none or too many are left. */
export function chooseEdits(
  memory: MemoryStore,
  tenant: string,
  query: EditsQuery,
  method: HandoffMethod,
  model: string,
  limitEdits: number,
): Chosen {
  const found = 'ids' in query ? byIds(memory, tenant, query.ids) : listed(memory, tenant, query, limitEdits)
  const notes: string[] = []
  const keep = (some: readonly Edit[], test: (edit: Edit) => boolean, why: string) => {
    const kept = some.filter(test)
    if (kept.length < some.length) notes.push(`${some.length - kept.length} edits are left out: ${why}`)
    return kept
  }
  const forModel = keep(found, (edit) => isForModel(edit, model), `they are not for ${model}`)
  const named = growsInPlace(method)
    ? keep(
        forModel,
        (edit) => subjectIn(edit) !== null,
        'their prompt does not name their subject, whose place MEMIT and PMET edit',
      )
    : forModel
  if (named.length === 0)
    throw new PalimpsestError(
      'invalid_value',
      `No edit is left to hand off${notes.length > 0 ? ` (${notes.join('; ')})` : ': none is live that was asked for'}.`,
      { param: 'edits' },
    )
  if (named.length > limitEdits)
    throw new PalimpsestError(
      'invalid_value',
      `${named.length} edits are more than the ${limitEdits} of one hand-off: name fewer.`,
      {
        param: 'edits',
      },
    )
  return { edits: named, notes }
}

function byIds(memory: MemoryStore, tenant: string, ids: readonly string[]): Edit[] {
  return [...new Set(ids)].map((id) => {
    const held = memory.get(tenant, id)
    if (held === undefined)
      throw new PalimpsestError('edit_not_found', `There is no edit '${id}' in tenant '${tenant}'.`, { param: 'edits' })
    if (held.state !== 'live')
      throw new PalimpsestError('invalid_value', `Edit '${id}' is ${held.state}: only live edits are handed off.`, {
        param: 'edits',
      })
    return held.edit
  })
}

function listed(memory: MemoryStore, tenant: string, query: Omit<EditsQuery, 'ids'>, limitEdits: number): Edit[] {
  const out: Edit[] = []
  let cursor: string | null = null
  do {
    const page = memory.list({ ...query, tenant, state: 'live', limit: PAGE, ...(cursor !== null && { cursor }) })
    out.push(...page.edits.map(({ edit }) => edit))
    cursor = page.nextCursor
  } while (cursor !== null && out.length <= limitEdits)
  // The list is latest first.
  return out.reverse()
}

/** The subject as the prompt writes it: by its name, an alias, or without its article; null: the prompt does not name it. */
export function subjectIn({ subject, aliases, prompt }: Pick<Edit, 'subject' | 'aliases' | 'prompt'>): string | null {
  const lower = prompt.toLowerCase()
  for (const name of [subject, ...aliases, subject.replace(/^(?:the|an?)\s+/i, '')]) {
    const at = lower.lastIndexOf(name.trim().toLowerCase())
    if (name.trim() !== '' && at !== -1 && lower.length === prompt.length) return prompt.slice(at, at + name.trim().length)
  }
  return null
}
