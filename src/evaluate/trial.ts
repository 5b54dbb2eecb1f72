import type { Edit } from '../edit/edit.ts'
import type { Embedder } from '../engine/engine.ts'
import type { Gateway } from '../gateway.ts'
import type { DataRecord } from './data/dataset.ts'
import type { Probe } from './data/probe.ts'
import type { RememberingEngine } from './methods/remember.ts'
import { randomFrom, sample } from './metrics/random.ts'

/** All that stays the same while methods are compared. */
export interface Trial {
  /** Its memory holds every edit of the data file, and distractors. */
  readonly gateway: Gateway & { readonly engine: RememberingEngine }
  readonly embedder: Embedder
  /** Every record of the file, by position: also those that are not asked about. */
  readonly records: ReadonlyMap<number, DataRecord>
  /** Every live edit, by id. */
  readonly edits: ReadonlyMap<string, Edit>
  /** Those asked. */
  readonly probes: readonly Probe[]
  /** Those drawn, of every kind: the cosine baseline's threshold is chosen on these. */
  readonly drawn: readonly Probe[]
  readonly limits: TrialLimits
  readonly seed: number
}

export interface TrialLimits {
  /** Tokens of one answer. */
  readonly answerTokens: number
  /** Tokens of a continuation whose fluency is measured (EasyEdit: 100). */
  readonly fluencyTokens: number
  /** Demonstrations that IKE shows, if they fit (Zheng et al. 2023: 32). */
  readonly ikeDemonstrations: number
  /** Subquestions that MeLLo may ask, and tokens of each of its steps. */
  readonly melloSteps: number
  readonly melloStepTokens: number
}

export const TRIAL_LIMITS: TrialLimits = {
  answerTokens: 32,
  fluencyTokens: 100,
  ikeDemonstrations: 32,
  melloSteps: 4,
  melloStepTokens: 96,
}

/** Tokens that a probe's answer may have. */
export function tokensFor({ kind }: Probe, { answerTokens, fluencyTokens }: TrialLimits): number {
  return kind === 'fluency' ? fluencyTokens : answerTokens
}

/** Records whose edits traffic is asked under: few, since IKE's demonstrations for each take many seconds to read. */
const TRAFFIC_RECORDS = 3

type Own = Pick<Trial, 'records' | 'edits' | 'seed'>

/** The record whose edits a method without selection shows a probe: its own; for traffic, one of a few drawn by the seed. */
export function ownRecord(probe: Probe, { records, edits, seed }: Own): DataRecord {
  const isLive = (record: DataRecord) => record.edits.some(({ id }) => edits.has(id))
  if (probe.record === null) return drawn([...records.values()].filter(isLive), probe, seed)
  const own = records.get(probe.record)
  if (own === undefined) throw new Error(`probe ${probe.id} belongs to no record`)
  return own
}

function drawn(records: readonly DataRecord[], { id }: Probe, seed: number): DataRecord {
  const few = sample(records, TRAFFIC_RECORDS, randomFrom('traffic', seed))
  return few[Math.floor(randomFrom('traffic', seed, id)() * few.length)] as DataRecord
}

/** The record's edits that are live: what it stated last. */
export function ownEdits(probe: Probe, trial: Own): readonly Edit[] {
  // A record's conflicting edits (ConflictEdit) leave only the last one live.
  const ids = new Set(ownRecord(probe, trial).edits.map(({ id }) => id))
  return [...ids].flatMap((id) => trial.edits.get(id) ?? [])
}
