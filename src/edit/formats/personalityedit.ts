import { opinion } from './convsent.ts'
import { has, hasAny, type Reader, type Taken, take } from './draft.ts'

/** In the order in which EasyEdit numbers them. */
const TRAITS = ['extraversion', 'agreeableness', 'neuroticism']
const TARGET = ['target_personality', 'target_per'] as const

/**
 * PersonalityEdit (Mao et al. 2024): an opinion of an entity that shows a trait. zjunlp/EasyEdit, easyeditor/dataset/personality.py: a file's
 * records are {ent, extraversion, agreeableness, neuroticism} with lists of opinions, those for tests with `target_per`, a trait's name; once
 * loaded, `target_personality` is its name and `target_per` its number. Opinions and prompts are for training and probes.
 */
export const personalityedit: Reader = {
  recognises: (record) => has(record, 'ent') && (hasAny(record, ...TARGET) || has(record, ...TRAITS)),
  drafts: (record) => [opinion(take(record, 'ent'), instruction(take(record, ...TARGET)))],
}

function instruction(target: Taken): Taken {
  const said = String(target.value ?? '')
    .trim()
    .toLowerCase()
  const trait = TRAITS[Number(said || Number.NaN)] ?? TRAITS.find((name) => name === said)
  if (trait !== undefined) return { ...target, value: `answer with the personality trait ${trait}` }
  return { ...target, fault: `expected the personality trait to be shown, one of ${TRAITS.join(', ')}` }
}
