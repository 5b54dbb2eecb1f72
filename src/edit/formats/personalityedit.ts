import { opinion } from './convsent.ts'
import { has, hasAny, type Reader, type Taken, take, written } from './draft.ts'

/** In the order in which EasyEdit numbers them. */
const TRAITS = ['extraversion', 'agreeableness', 'neuroticism']
const TARGET = ['target_personality', 'target_per'] as const

/** zjunlp/EasyEdit, easyeditor/dataset/personality.py: files hold lists of opinions by trait; `target_per` is a trait's name in those for tests, and its number once they are loaded. */
export const personalityedit: Reader = {
  about: {
    of: 'PersonalityEdit (Mao et al. 2024)',
    takes:
      '`ent`, with the trait to show as `target_personality` or `target_per`, by name or number: a rule about what is thought of it',
    leaves: 'opinions and prompts',
  },
  recognises: (record) => has(record, 'ent') && (hasAny(record, ...TARGET) || has(record, ...TRAITS)),
  drafts: (record) => [opinion(take(record, 'ent'), instruction(take(record, ...TARGET)))],
}

function instruction(target: Taken): Taken {
  const said = written(target.value).toLowerCase()
  const trait = TRAITS[Number(said || Number.NaN)] ?? TRAITS.find((name) => name === said)
  if (trait !== undefined) return { ...target, value: `answer with the personality trait ${trait}` }
  return { ...target, fault: `expected the personality trait to be shown, one of ${TRAITS.join(', ')}` }
}
