import type { Experiment } from '../experiment.ts'
import { comparePairs, type PairedResult } from '../statistics/paired.ts'
import type { Pair, PairAnswer } from './replay.ts'

export interface EditEffect {
  readonly id: string
  readonly pairs: number
  readonly changed: number
  readonly gained: number
  readonly lost: number
}

/** What replaying showed of one arm against the first. */
export interface ReplayResult {
  readonly arm: string
  readonly pairs: number
  readonly failed: number
  readonly changed: number
  /** Pairs in which an edit was put in front of either arm. */
  readonly exposed: number
  /** Of those in which such an edit has a target: has the answer it? */
  readonly targetShown: PairedResult
  /** Gained: judged better than the first arm's. */
  readonly judged: PairedResult
  readonly edits: readonly EditEffect[]
  /** Answers that an edit with a target changed without its target showing. */
  readonly collateral: { readonly n: number; readonly changed: number }
  /** Prompts that the edits are not about. */
  readonly locality: { readonly n: number; readonly identical: number }
}

/** `untold`: ids of edits that no answer can be seen to hold, such as rules: what they alone changed is no collateral damage. */
export function replayResult(
  experiment: Experiment,
  pairs: readonly Pair[],
  arm: number,
  untold: ReadonlySet<string> = new Set(),
): ReplayResult {
  const whole = pairs.flatMap((pair) => {
    const [base, other] = [pair.answers[0], pair.answers[arm]]
    return base === undefined || other === undefined ? [] : [{ base, other, pair, changed: base.text !== other.text }]
  })
  const inScope = whole.filter(({ pair }) => pair.origin !== 'locality')
  const fired = inScope.filter(({ base, other }) => base.edits.length + other.edits.length > 0)
  const told = fired.filter(
    ({ base, other }) => other.targetShown !== null && [...base.edits, ...other.edits].some((id) => !untold.has(id)),
  )
  const verdicts = inScope.map(({ pair }) => pair.verdicts[arm - 1])
  const judged = {
    n: verdicts.filter((verdict) => verdict !== undefined).length,
    gained: verdicts.filter((verdict) => verdict === 'other').length,
    lost: verdicts.filter((verdict) => verdict === 'base').length,
  }
  const planned = Math.max(20, experiment.plannedUnits)
  const local = whole.filter(({ pair }) => pair.origin === 'locality')
  return {
    arm: experiment.arms[arm]?.name ?? '',
    pairs: whole.length,
    failed: pairs.length - whole.length,
    changed: inScope.filter(({ changed }) => changed).length,
    exposed: fired.length,
    targetShown: comparePairs(flips(told), experiment.alpha, planned),
    judged: comparePairs(judged, experiment.alpha, planned),
    edits: effects(fired),
    collateral: { n: told.length, changed: told.filter(({ other, changed }) => changed && !other.targetShown).length },
    locality: { n: local.length, identical: local.filter(({ changed }) => !changed).length },
  }
}

interface Compared {
  readonly base: PairAnswer
  readonly other: PairAnswer
  readonly changed: boolean
}

function flips(pairs: readonly Compared[]) {
  return {
    n: pairs.length,
    gained: pairs.filter(({ base, other }) => other.targetShown && !base.targetShown).length,
    lost: pairs.filter(({ base, other }) => base.targetShown && !other.targetShown).length,
  }
}

/** Each edit's share in it, those that changed most first. */
function effects(pairs: readonly Compared[]): EditEffect[] {
  const byEdit = new Map<string, Compared[]>()
  for (const pair of pairs)
    for (const id of new Set([...pair.base.edits, ...pair.other.edits])) byEdit.set(id, [...(byEdit.get(id) ?? []), pair])
  return [...byEdit]
    .map(([id, own]) => {
      const { gained, lost } = flips(own)
      return { id, pairs: own.length, changed: own.filter(({ changed }) => changed).length, gained, lost }
    })
    .sort((a, b) => b.changed - a.changed)
}
