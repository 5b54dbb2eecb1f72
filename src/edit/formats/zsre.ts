import { has, hasAny, oldAnswer, type Reader, take } from './draft.ts'

/** zsRE as MEND and EasyEdit lay it out: question `src`, new answer `alt`, old `answers`. `rephrase`, `loc` and `portability` are probes, `pred` a model's guess. */
export const zsre: Reader = {
  recognises: (record) => has(record, 'src', 'alt') && !hasAny(record, 'old'),
  drafts: (record) => [
    {
      subject: take(record, 'subject'),
      prompt: take(record, 'src'),
      target_new: take(record, 'alt'),
      target_true: oldAnswer(take(record, 'answers')),
    },
  ],
}
