import { isJson, type Json, type Reader, take } from './draft.ts'

export const conflictedit: Reader = {
  about: {
    of: 'ConflictEdit (Li et al. 2024)',
    takes:
      '`edits` in the order in which they happen: `relation.id`, `relation.prompt` with `{}`, `subject.label`, `object.label`, `new_object.label`',
    leaves: '`relation.query`',
  },
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
