import type { Edit } from '../../edit/edit.ts'
import type { ProbeDraft } from '../data/probe.ts'
import type { Fields } from './fields.ts'

/**
 * Takes the probes of one record; `edits` are those the record's own reader made of it (src/edit/formats), in their order. The edits' own
 * statements are probes too (reliability).
 */
export type ProbeReader = (fields: Fields, edits: readonly [Edit, ...Edit[]]) => readonly ProbeDraft[]

/** The edit asked back, word for word. */
export function reliability(edit: Edit, answers: readonly string[] = [edit.targetNew]): ProbeDraft {
  return inScopeProbe('reliability', 'prompt', edit.prompt, edit, answers)
}

/** A probe that should fire `edit`. */
export function inScopeProbe(
  kind: 'reliability' | 'generalization' | 'portability',
  sub: string,
  text: string,
  edit: Edit,
  answers: readonly string[] = [edit.targetNew],
): ProbeDraft {
  const rival = kind === 'portability' || edit.targetTrue === undefined ? {} : { rival: edit.targetTrue }
  return { kind, sub, text, wants: [edit.id], answers, ...rival }
}

/** A probe that no edit should touch. */
export function outOfScope(sub: string, text: string, answers: readonly string[], rival?: string): ProbeDraft {
  return { kind: 'locality', sub, text, wants: [], answers, ...(rival !== undefined && { rival }) }
}

/** The one-hop questions that EasyEdit added to CounterFact and zsRE: {"New Question", "New Answer"}. */
export function oneHop(fields: Fields, edit: Edit): readonly ProbeDraft[] {
  if (!fields.has('portability')) return []
  const [question, answer] = [fields.text('portability.New Question'), fields.text('portability.New Answer')]
  return [inScopeProbe('portability', 'one_hop', question, edit, [answer])]
}
