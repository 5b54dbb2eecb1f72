import { inScopeProbe, outOfScope, type ProbeReader, reliability } from './reader.ts'

/** WikiFactDiff (Ammar Khodja et al. 2024), flattened. A neighbour has the same relation, so the new value is its rival. */
export const wikifactdiff: ProbeReader = (fields, [edit]) => [
  reliability(edit),
  ...(fields.has('rephrase') ? [inScopeProbe('generalization', 'rephrase', fields.text('rephrase'), edit)] : []),
  ...(fields.has('loc') ? [outOfScope('neighbourhood', fields.text('loc'), fields.answers('loc_ans'), edit.targetNew)] : []),
]
