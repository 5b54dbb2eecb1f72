import type { Edit } from '../../edit/edit.ts'
import { supersessionKey } from '../../edit/relation.ts'
import { inScopeProbe, type ProbeReader, reliability } from './reader.ts'

/** ConflictEdit (Li et al. 2024): of several edits of one fact the last must win; in the other kinds of conflict, the last of all. */
export const conflictedit: ProbeReader = (fields, edits) => {
  const coverage = !fields.has('type') || fields.text('type') === 'coverage'
  const last = new Map<string, { edit: Edit; index: number; before?: Edit }>()
  for (const [index, edit] of edits.entries()) {
    const key = coverage ? supersessionKey(edit) : ''
    const before = last.get(key)?.edit
    last.set(key, { edit, index, ...(before !== undefined && coverage && { before }) })
  }
  return [...last.values()].flatMap(({ edit, index, before }) => {
    const wanted: Edit = before === undefined ? edit : { ...edit, targetTrue: before.targetNew }
    const query = `edits.${index}.relation.query`
    if (!fields.has(query)) return [reliability(wanted)]
    const text = fields.text(query).replace('{}', () => edit.subject)
    return [reliability(wanted), inScopeProbe('generalization', 'query', text, wanted)]
  })
}
