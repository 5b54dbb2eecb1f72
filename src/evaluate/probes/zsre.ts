import { inScopeProbe, oneHop, outOfScope, type ProbeReader, reliability } from './reader.ts'

/** MEND's mark in front of its out-of-scope questions, for the T5 it was made for: scored as published, never asked. */
const MARK = /^nq question:\s*/i

/** zsRE as MEND and EasyEdit lay it out. */
export const zsre: ProbeReader = (fields, [edit]) => {
  const loc = fields.text('loc')
  return [
    reliability(edit),
    inScopeProbe('generalization', 'rephrase', fields.text('rephrase'), edit),
    { ...outOfScope('natural_questions', loc.replace(MARK, ''), fields.answers('loc_ans')), forcedText: loc },
    ...oneHop(fields, edit),
  ]
}
