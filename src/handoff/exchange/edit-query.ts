import { type Edit, isForModel } from '../../edit/edit.ts'
import { PalimpsestError } from '../../errors.ts'
import type { ListFilter } from '../../memory/memory.ts'
import type { MemoryStore } from '../../memory/memory-store.ts'
import { growsInPlace, type HandoffMethod } from '../job.ts'

/** Which edits are meant: these, or those that a filter finds. */
export type EditsQuery = { readonly ids: readonly string[] } | Omit<ListFilter, 'tenant' | 'limit' | 'cursor' | 'state'>

export interface Chosen {
  readonly edits: readonly Edit[]
  /** What was left out, and why. */
  readonly notes: readonly string[]
}

const PAGE = 1_000

/** Live edits for the served model, oldest first. Throws `edit_not_found`, and `invalid_value` where none or too many are left, or the method takes some not. */
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
  const { edits: refused, why } = notTaken(forModel, method)
  if (refused.length > 0) throw new PalimpsestError('invalid_value', `${why} ${refusalOf(refused)}`, { param: 'edits' })
  if (method === 'distil')
    for (const { id } of forModel.filter(isUntaught))
      notes.push(`rule ${id} has no examples: it is taught by one question made of when it applies; examples teach it better`)
  const named = growsInPlace(method)
    ? keep(forModel, (edit) => subjectIn(edit) !== null, `their prompt does not name their subject, whose place ${method} edits`)
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

/** Edits for the served model that are live, whatever takes them. */
export function liveEdits(memory: MemoryStore, tenant: string, query: EditsQuery, model: string): readonly Edit[] {
  const found = 'ids' in query ? byIds(memory, tenant, query.ids) : listed(memory, tenant, query, Number.POSITIVE_INFINITY)
  return found.filter((edit) => isForModel(edit, model))
}

/** Those of the edits that a method takes no way, and why. */
export function notTaken(
  edits: readonly Edit[],
  method: HandoffMethod,
): { readonly edits: readonly Edit[]; readonly why: string } {
  switch (method) {
    case 'memit':
    case 'alphaedit':
    case 'pmet':
      return {
        edits: edits.filter((edit) => !isPlaced(edit)),
        why: `${method} places one answer at one subject, so it takes facts with a subject; hand the others off with lora or distil.`,
      }
    case 'lora':
      return {
        edits: edits.filter(isUntaught),
        why: 'lora learns a rule from messages that need it: give each rule `examples`, or take distil.',
      }
    case 'distil':
      return { edits: [], why: '' }
    default:
      return method satisfies never
  }
}

/** A rule without a message that needs it. */
function isUntaught({ kind, examples = [], always }: Edit): boolean {
  return kind === 'rule' && examples.length === 0 && always !== true
}

/** A fact about a subject, at whose place an answer can be put. */
export function isPlaced({ kind, subject }: Edit): boolean {
  return kind === undefined && subject.trim() !== ''
}

/** A sentence that names each edit and what it is. */
export function refusalOf(edits: readonly Edit[]): string {
  const nameOf = ({ id, kind }: Edit) => `${id} (${kind === undefined ? 'a fact without a subject' : `a ${kind}`})`
  return `Not taken: ${edits.map(nameOf).join(', ')}.`
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
