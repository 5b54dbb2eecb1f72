import { nested } from './counterfact.ts'
import { type Draft, type Json, type Reader, take } from './draft.ts'

/**
 * MQuAKE (Zhong et al. 2023): `requested_rewrite` is a list, one to four edits a record. Each request states its fact twice, as a
 * cloze and as a `question`: both are the edit's own statement. The multi-hop `questions` and `single_hops` are probes.
 */
export const mquake: Reader = {
  recognises: (record) => Array.isArray(record.requested_rewrite),
  drafts: (record) => requests(record).map((_, index) => draft(record, `requested_rewrite.${index}.`)),
}

function requests(record: Json): readonly unknown[] {
  return Array.isArray(record.requested_rewrite) ? record.requested_rewrite : [undefined]
}

function draft(record: Json, at: string): Draft {
  const question = take(record, `${at}question`)
  return {
    ...nested(record, at),
    ...(question.value !== undefined && { paraphrases: { path: question.path, value: [question.value] } }),
  }
}
