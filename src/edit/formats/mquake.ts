import { nested } from './counterfact.ts'
import { type Draft, type Json, type Reader, take } from './draft.ts'

export const mquake: Reader = {
  about: {
    of: 'MQuAKE (Zhong et al. 2023)',
    takes: '`requested_rewrite` as a list of one to four edits, each with a cloze and a `question` that state it',
    leaves: '`questions`, `single_hops`',
  },
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
