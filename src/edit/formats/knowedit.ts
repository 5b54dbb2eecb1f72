import { first, has, hasAny, isJson, type Json, oldAnswer, type Reader, take } from './draft.ts'

const PROBES = ['portability', 'locality']

/** `portability` has Subject_Aliasing questions, which are probes too, so they give no aliases. */
export const knowedit: Reader = {
  about: {
    of: 'KnowEdit (Zhang et al. 2024)',
    takes:
      '`subject` or `concept`, `prompt` or `text`, `target_new` or `labels`, `ground_truth` as a text or a list of equivalents',
    leaves: '`rephrase_prompt`, `portability`, `locality`',
  },
  recognises: (record) =>
    (hasAny(record, 'concept', 'subject') && has(record, 'text', 'labels')) ||
    (has(record, 'prompt', 'target_new') && hasAny(record, ...PROBES) && PROBES.every((group) => holdsLists(record, group))),
  drafts: (record) => [
    {
      subject: take(record, 'subject', 'concept'),
      prompt: take(record, 'prompt', 'text'),
      target_new: first(take(record, 'target_new', 'labels')),
      target_true: oldAnswer(take(record, 'ground_truth')),
    },
  ],
}

/** KnowEdit's groups of probes are lists, some groups being left out; EasyEdit's own requests hold {prompt, ground_truth} there. */
function holdsLists(record: Json, group: string): boolean {
  const groups = Object.hasOwn(record, group) ? record[group] : {}
  return isJson(groups) && Object.values(groups).every(Array.isArray)
}
