import { type Draft, has, isJson, type Json, oldAnswer, type Reader, take } from './draft.ts'

/** CounterFact words one relation_id in several ways for a subject, so the id, not the prompt, is the relation. */
export const counterfact: Reader = {
  about: {
    of: 'CounterFact (Meng et al. 2022)',
    takes:
      '`requested_rewrite`: `prompt` with `{}`, `subject`, `relation_id`, `target_new.str`, `target_true.str`; also without the envelope, or flat',
    leaves: 'paraphrase, neighbourhood, generation and attribute prompts',
  },
  recognises: (record) => isJson(record.requested_rewrite) || isJson(record.target_new) || isFlat(record),
  drafts: (record) => [isFlat(record) ? flat(record) : nested(record, isJson(record.target_new) ? '' : 'requested_rewrite.')],
}

function isFlat(record: Json): boolean {
  return has(record, 'prompt', 'target_new', 'locality_prompt') && !isJson(record.target_new)
}

/** `at` is the path before the fields, dot included; MQuAKE's requests have the same fields. */
export function nested(record: Json, at: string): Draft {
  return {
    subject: take(record, `${at}subject`),
    prompt: take(record, `${at}prompt`),
    target_new: take(record, `${at}target_new.str`),
    target_true: take(record, `${at}target_true.str`),
    relation: take(record, `${at}relation_id`),
  }
}

function flat(record: Json): Draft {
  return {
    subject: take(record, 'subject'),
    prompt: take(record, 'prompt'),
    target_new: take(record, 'target_new'),
    target_true: oldAnswer(take(record, 'ground_truth')),
    relation: take(record, 'relation_id'),
  }
}
