import { parseBatch } from '../edit/batch.ts'
import type { Edit } from '../edit/edit.ts'
import { PalimpsestError } from '../errors.ts'

/** Tenant of edits in a file that names none. */
const TENANT = 'default'

/** A file of the folder `edits/`. One that holds no record is no fault here: it takes back what it said before. */
export function parseEditFile(content: Uint8Array, file: string): readonly Edit[] {
  try {
    return parseBatch(content, { tenant: TENANT, tenants: 'any', file }).edits
  } catch (error) {
    if (holdsNothing(error)) return []
    throw error
  }
}

/** Told from other faults by its words, for one that is mistaken for this would withdraw edits. */
function holdsNothing(error: unknown): boolean {
  if (!(error instanceof PalimpsestError) || error.code !== 'invalid_batch') return false
  const [problem, ...others] = error.problems
  return others.length === 0 && problem?.field === null && problem.message.startsWith('the batch is empty')
}
