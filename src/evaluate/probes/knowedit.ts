import type { Fields } from './fields.ts'
import { inScopeProbe, outOfScope, type ProbeReader, reliability } from './reader.ts'

/**
 * KnowEdit (Zhang et al. 2024) and single requests of EasyEdit: `portability` {Reasoning, Subject_Aliasing, Logical_Generalization} and
 * `locality` {Relation_Specificity, Forgetfulness}, each a list of {prompt, ground_truth} or one such object with texts or lists in it.
 */
export const knowedit: ProbeReader = (fields, [edit]) => [
  reliability(edit, fields.answers('target_new', 'labels')),
  ...fields
    .answers('rephrase_prompt', 'rephrase_prompts', 'rephrase')
    .map((text) => inScopeProbe('generalization', 'rephrase', text, edit)),
  ...group(fields, 'portability').map(({ sub, text, answers }) => inScopeProbe('portability', sub, text, edit, answers)),
  ...group(fields, 'locality').map(({ sub, text, answers }) => outOfScope(sub, text, answers)),
]

interface KnowEditRecord {
  readonly sub: string
  readonly text: string
  readonly answers: readonly string[]
}

function group(fields: Fields, name: 'portability' | 'locality'): KnowEditRecord[] {
  return fields.keys(name).flatMap((key) => {
    const path = `${name}.${key}`
    const sub = key.toLowerCase().replace(/\W+/g, '_')
    if (fields.isList(path)) return fields.entries(path).map((at) => entry(fields, sub, `${at}.prompt`, `${at}.ground_truth`))
    if (!fields.isList(`${path}.prompt`)) return [entry(fields, sub, `${path}.prompt`, `${path}.ground_truth`)]
    return fields.entries(`${path}.prompt`).map((at, i) => entry(fields, sub, at, `${path}.ground_truth.${i}`))
  })
}

function entry(fields: Fields, sub: string, prompt: string, answer: string): KnowEditRecord {
  return { sub, text: fields.text(prompt), answers: fields.answers(answer) }
}
