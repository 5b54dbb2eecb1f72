import { has, hasAny, oldAnswer, type Reader, take } from './draft.ts'

export const zsre: Reader = {
  about: {
    of: 'zsRE, as MEND and EasyEdit lay it out',
    takes: 'question `src`, new answer `alt`, old `answers`, `subject`',
    leaves: "`rephrase`, `loc`, `portability`, and `pred`, a model's guess",
  },
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
