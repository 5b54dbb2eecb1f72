import { PalimpsestError } from '../errors.ts'
import type { Batch } from './log/edit-log.ts'

export function otherBatch(id: string, known: Batch): PalimpsestError {
  const when = new Date(known.at).toISOString()
  return new PalimpsestError(
    'invalid_value',
    `The batch id "${id}" was used at ${when} for other content. Give this batch another id, or send the same edits.`,
    {
      param: 'batch',
    },
  )
}

/** Ids named in one message. */
const IDS_SHOWN = 10

export function noSuchEdits(ids: readonly string[]): PalimpsestError {
  const named = ids.slice(0, IDS_SHOWN).map((id) => `"${id}"`)
  const more = ids.length > IDS_SHOWN ? ` and ${ids.length - IDS_SHOWN} more` : ''
  return new PalimpsestError(
    'edit_not_found',
    `No such edit: ${named.join(', ')}${more}. Nothing was changed. List the edits to see their ids.`,
    { param: 'id' },
  )
}
