import { words } from '../../edit/words.ts'
import type { ProbeDraft } from '../data/probe.ts'
import type { Fields } from './fields.ts'
import { inScopeProbe, outOfScope, type ProbeReader, reliability } from './reader.ts'

/**
 * MQuAKE (Zhong et al. 2023): several wordings of one multi-hop question; a record counts as right when any of them is answered rightly.
 * Hops that no edit of the record states are questions whose answer stays.
 */
export const mquake: ProbeReader = (fields, edits) => {
  const hops = fields.entries('new_single_hops').map((at) => hop(fields, at))
  const stated = new Set(edits.flatMap((edit) => [edit.prompt, ...edit.paraphrases]).map(plain))
  const edited = (one: Hop) => stated.has(plain(one.question)) || stated.has(plain(one.cloze))
  const accepted = (target: string) => [target, ...hops.filter((one) => one.answers[0] === target).flatMap((one) => one.answers)]
  return [
    ...edits.flatMap((edit) => {
      const answers = [...new Set(accepted(edit.targetNew))]
      const questions = edit.paraphrases.map((text) => inScopeProbe('reliability', 'question', text, edit, answers))
      return [reliability(edit, answers), ...questions]
    }),
    ...fields.texts('questions').map((text): ProbeDraft => {
      const answers = [fields.text('new_answer'), ...fields.answers('new_answer_alias')]
      return { kind: 'multi_hop', sub: `${hops.length || '?'}_hops`, text, wants: edits.map(({ id }) => id), answers }
    }),
    ...hops.filter((one) => !edited(one)).map((one) => outOfScope('single_hop', one.question, one.answers)),
  ]
}

interface Hop {
  readonly question: string
  readonly cloze: string
  readonly answers: readonly string[]
}

function hop(fields: Fields, at: string): Hop {
  const answers = [fields.text(`${at}.answer`), ...fields.answers(`${at}.answer_alias`)]
  return { question: fields.text(`${at}.question`), cloze: fields.text(`${at}.cloze`), answers }
}

const plain = (text: string): string => words(text).join(' ')
