import { has, oldAnswer, type Reader, take } from './draft.ts'

/** WikiFactDiff (Ammar Khodja et al. 2024), flattened: cloze `src`, new value `alt`, old value `old`. `rephrase` and `loc` are probes. */
export const wikifactdiff: Reader = {
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
