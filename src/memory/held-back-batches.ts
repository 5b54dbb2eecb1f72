import { LRUCache } from 'lru-cache'
import type { Edit } from '../edit/edit.ts'
import type { ChatRequest } from '../request.ts'
import type { Memory } from './memory.ts'

/**
 * The memory as though some batches had never landed, for one request: the candidates without those batches' edits; where one of these
 * replaced an edit, that one in its place.
 */
export type Withholding = <C extends { readonly edit: Edit }>(candidates: readonly C[]) => readonly C[]

/** Edits whose predecessor is remembered, for each memory. */
const REMEMBERED = 1_000
/** Superseded edits of one subject looked through. */
const OF_ONE_SUBJECT = 100

const predecessors = new WeakMap<Memory, LRUCache<string, { readonly edit: Edit | null }>>()

export function withholding({ tenant, withoutBatches = [] }: ChatRequest, memory: Memory): Withholding {
  if (withoutBatches.length === 0) return (candidates) => candidates
  const batches = new Set(withoutBatches)
  const isWithheld = (id: string) => batches.has(memory.get(tenant, id)?.batchId ?? '')
  const known = predecessors.get(memory) ?? new LRUCache({ max: REMEMBERED })
  predecessors.set(memory, known)
  const before = (edit: Edit): Edit | null => {
    const key = JSON.stringify([memory.version(tenant), tenant, edit.id, withoutBatches])
    const found = known.get(key) ?? { edit: predecessor(edit, batches, memory) }
    known.set(key, found)
    return found.edit
  }
  return <C extends { readonly edit: Edit }>(candidates: readonly C[]): readonly C[] => {
    if (!candidates.some(({ edit }) => isWithheld(edit.id))) return candidates
    return candidates.flatMap((candidate): C[] => {
      const edit = isWithheld(candidate.edit.id) ? before(candidate.edit) : candidate.edit
      return edit === null ? [] : [{ ...candidate, edit }]
    })
  }
}

/** What held in the edit's place before those batches: its own earlier content, or an edit that it superseded. */
function predecessor({ tenant, id, subject }: Edit, batches: ReadonlySet<string>, memory: Memory): Edit | null {
  const earlier = memory.history(tenant, id).findLast((record) => record.edit !== undefined && !batches.has(record.batchId))?.edit
  if (earlier !== undefined) return earlier
  const { edits } = memory.list({ tenant, subject, state: 'superseded', limit: OF_ONE_SUBJECT })
  return edits.find((held) => held.supersededBy === id && !batches.has(held.batchId))?.edit ?? null
}
