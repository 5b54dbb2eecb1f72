import { isJson, type Json, type Reader, take } from './draft.ts'

/**
 * ConflictEdit (Li et al. 2024): `edits` in the order in which they happen, each {relation {id, prompt with `{}`}, subject {label},
 * object {label}, new_object {label}}; a later edit of the same subject and relation must win. `relation.query` is what it asks, a probe.
 */
export const conflictedit: Reader = {
  recognises: (record) => list(record).some((edit) => isJson(edit) && Object.hasOwn(edit, 'new_object')),
  drafts: (record) =>
    list(record).map((_, index) => {
      const at = `edits.${index}.`
      return {
        subject: take(record, `${at}subject.label`),
        prompt: take(record, `${at}relation.prompt`),
        target_new: take(record, `${at}new_object.label`),
        target_true: take(record, `${at}object.label`),
        relation: take(record, `${at}relation.id`),
      }
    }),
}

function list(record: Json): readonly unknown[] {
  return Array.isArray(record.edits) ? record.edits : []
}
