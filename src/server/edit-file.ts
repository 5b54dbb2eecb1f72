import { parseBatch } from '../edit/batch.ts'
import type { Edit } from '../edit/edit.ts'
import { PalimpsestError } from '../errors.ts'

/** Tenant of edits in a file that names none. */
const TENANT = 'default'

/** A file of the folder `edits/`. A file without records is no fault: the edits that it held before are withdrawn. */
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
