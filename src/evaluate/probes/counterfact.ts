import type { Edit } from '../../edit/edit.ts'
import type { Fields } from './fields.ts'
import { inScopeProbe, oneHop, outOfScope, type ProbeReader, reliability } from './reader.ts'

/**
 * CounterFact (Meng et al. 2022), with or without EasyEdit's `portability`, and its flat variant. A neighbour shares the old answer, an
 * attribute prompt's subject has had the new one all along; both stay as they are.
 */
export const counterfact: ProbeReader = (fields, [edit]) => [
  reliability(edit),
  ...(fields.has('requested_rewrite') ? nested(fields, edit) : fields.has('locality_prompt') ? flat(fields, edit) : []),
]

function nested(fields: Fields, edit: Edit) {
  const truth = edit.targetTrue === undefined ? [] : [edit.targetTrue]
  const generation = [...new Set(fields.optionalTexts('generation_prompts'))]
  return [
    ...fields.texts('paraphrase_prompts').map((text) => inScopeProbe('generalization', 'paraphrase', text, edit)),
    ...fields.texts('neighborhood_prompts').map((text) => outOfScope('neighbourhood', text, truth, edit.targetNew)),
    ...fields.optionalTexts('attribute_prompts').map((text) => outOfScope('attribute', text, [edit.targetNew], edit.targetTrue)),
    ...oneHop(fields, edit),
    ...generation.map((text) => ({ kind: 'fluency' as const, sub: 'generation', text: paragraph(text), wants: [], answers: [] })),
  ]
}

/** ROME lets a base model run on for 100 tokens; a chat model would end after a few words, whose n-grams say nothing. */
function paragraph(opening: string): string {
  return `Write a short paragraph that begins with these words: ${opening}`
}

function flat(fields: Fields, edit: Edit) {
  const truth = fields.answers('locality_ground_truth')
  return [
    ...(fields.has('rephrase_prompt') ? [inScopeProbe('generalization', 'rephrase', fields.text('rephrase_prompt'), edit)] : []),
    outOfScope('neighbourhood', fields.text('locality_prompt'), truth, edit.targetNew),
  ]
}
