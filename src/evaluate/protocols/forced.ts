/**
 * The teacher-forced protocol: how likely given answers are on raw text, without a chat template. Success and magnitude as in ROME and
 * MEMIT (kmeng01/memit, `eval_utils_counterfact.py`: mean log-probability over the answer's tokens), token accuracy as in EasyEdit
 * (`evaluate_utils.py`: argmax of each token of "PROMPT TARGET"). Edits stand before the text as plain sentences.
 */
import type { Edit } from '../../edit/edit.ts'
import type { Scorer, TokenScore } from '../../engine/engine.ts'
import { viewOf } from '../../prompt/turn.ts'
import type { Probe } from '../data/probe.ts'
import { cosineSelects } from '../methods/cosine.ts'
import { ikeText } from '../methods/ike.ts'
import type { Compared } from '../methods/methods.ts'
import { ownEdits, ownRecord, type Trial } from '../trial.ts'
import type { Aids } from './generated.ts'
import { select } from './select.ts'

/** One answer's tokens. */
export interface Scored {
  /** Natural logarithms. */
  readonly logProbabilities: readonly number[]
  /** The argmax at each token: what locality compares with the base's. */
  readonly best: readonly number[]
  /** Tokens that are the argmax. */
  readonly hits: number
}

export interface Forced {
  readonly edits: readonly string[]
  readonly answer: Scored
  /** Of the probe's `rival`. */
  readonly rival: Scored | null
  /** The text was the base's, so the scores are. */
  readonly reused: boolean
}

/** Template for raw text: `templates/raw-completion.hbs`. */
export const RAW_TEMPLATE = 'raw-completion'

export type Force = (method: Compared, probe: Probe) => Promise<Forced>

/** Scores each text once, whatever the method that made it. */
export function forcing(trial: Trial, aids: Aids, scorer: Scorer): Force {
  const known = new Map<string, readonly Scored[]>()
  return async (method, probe) => {
    const { text, edits } = await textOf(method, probe, trial, aids)
    const continuations = [probe.answers[0] ?? '', ...(probe.rival === undefined ? [] : [probe.rival])].map((one) => ` ${one}`)
    const key = JSON.stringify([text, continuations])
    const had = known.get(key)
    const scores = had ?? (await scorer.score(text, continuations)).map(scored)
    known.set(key, scores)
    const [answer, rival = null] = scores
    if (answer === undefined) throw new Error(`probe ${probe.id} was not scored`)
    return { edits, answer, rival, reused: had !== undefined }
  }
}

export function scored(tokens: readonly TokenScore[]): Scored {
  return {
    logProbabilities: tokens.map(({ logProbability }) => logProbability),
    best: tokens.map(({ best }) => best),
    hits: tokens.filter(({ hit }) => hit).length,
  }
}

async function textOf(
  method: Compared,
  probe: Probe,
  trial: Trial,
  aids: Aids,
): Promise<{ readonly text: string; readonly edits: readonly string[] }> {
  const question = probe.forcedText ?? probe.turns.at(-1) ?? ''
  switch (method) {
    case 'base':
      return { text: question, edits: [] }
    case 'ice':
      return written(question, ownEdits(probe, trial), trial)
    case 'cosine':
      return written(
        question,
        cosineSelects(probe, aids.cosine).flatMap((id) => trial.edits.get(id) ?? []),
        trial,
      )
    case 'palimpsest':
      return written(question, (await select(probe, trial.gateway)).selected, trial)
    case 'ike': {
      const [edit] = ownEdits(probe, trial)
      if (edit === undefined) throw new Error(`probe ${probe.id}: its record has no live edit`)
      const context = await aids.ike.context(ownRecord(probe, trial), edit)
      return { text: ikeText(context, question), edits: [edit.id] }
    }
    case 'mello':
      throw new Error('MeLLo generates its steps, so that nothing can be forced')
    default:
      return method satisfies never
  }
}

function written(question: string, edits: readonly Edit[], { gateway: { engine, templates } }: Trial) {
  if (edits.length === 0) return { text: question, edits: [] }
  const template = templates.get(RAW_TEMPLATE, engine.model.family)
  const text = template.render({ question, unfinished: false, edits: edits.map(viewOf), demonstrations: [] })
  return { text, edits: edits.map(({ id }) => id) }
}
