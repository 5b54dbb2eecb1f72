import { has, oldAnswer, type Reader, take } from './draft.ts'

export const wikifactdiff: Reader = {
  about: {
    of: 'WikiFactDiff (Ammar Khodja et al. 2024), flattened',
    takes: 'cloze `src`, new value `alt`, old value `old`, `subject`',
    leaves: '`rephrase`, `loc`',
  },
  recognises: (record) => has(record, 'src', 'alt', 'old'),
  drafts: (record) => [
    {
      subject: take(record, 'subject'),
      prompt: take(record, 'src'),
      target_new: take(record, 'alt'),
      target_true: oldAnswer(take(record, 'old')),
    },
  ],
}
