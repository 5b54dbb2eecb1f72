/** Experiments, their results and replays, as the wire has them. */

import { type Experiment, kindOf, type Serves, type Unit } from '../../experiment/experiment.ts'
import type { LedgerEvent } from '../../experiment/ledger/ledger-reader.ts'
import type { Pair } from '../../experiment/replay/replay.ts'
import type { ReplayResult } from '../../experiment/replay/replay-result.ts'
import type { Checked } from '../../experiment/rollout/rollout.ts'
import type { Standing } from '../../experiment/rollout/rollouts.ts'
import type { Interval } from '../../experiment/statistics/confidence.ts'
import type { PairedResult } from '../../experiment/statistics/paired.ts'
import type { MetricResult, Moment, Result } from '../../experiment/statistics/result.ts'

export function wireExperiment(experiment: Experiment) {
  const { id, tenant, seed, arms, unit, audience, coverage, namespace, metrics, guardrails, rollout, shipped } = experiment
  return {
    object: rollout === undefined ? 'experiment' : 'rollout',
    id,
    tenant,
    status: experiment.status,
    ...(rollout !== undefined && {
      batch: rollout.batch,
      outcome: rollout.outcome,
      stage: rollout.stage,
      stages: rollout.stages,
    }),
    arms: arms.map(({ name, weight, serves }) => ({ name, weight, ...wireServes(serves) })),
    unit: wireUnit(unit),
    audience,
    coverage,
    ...(namespace !== undefined && { namespace }),
    metrics,
    guardrails,
    seed,
    alpha: experiment.alpha,
    planned_units: experiment.plannedUnits,
    log_prompts: experiment.logPrompts,
    source: experiment.source,
    version: experiment.version,
    created_at: new Date(experiment.createdAt).toISOString(),
    ended_at: experiment.endedAt === undefined ? null : new Date(experiment.endedAt).toISOString(),
    shipped: shipped === undefined ? null : (arms[shipped]?.name ?? null),
  }
}

function wireUnit(unit: Unit): string {
  return unit.by === 'header' ? `header:${unit.name}` : unit.by
}

function wireServes(serves: Serves) {
  switch (serves.kind) {
    case 'base':
      return { edits: 'off' }
    case 'model':
      return { model: serves.model, edits: serves.edited ? 'on' : 'off' }
    case 'adapter':
      return { adapter: serves.adapter, edits: 'on' }
    case 'edited': {
      const { template, tags, threshold, withoutBatches } = serves
      return {
        edits: 'on',
        ...(template !== undefined && { template }),
        ...(tags.length > 0 && { tags }),
        ...(threshold !== undefined && { threshold }),
        ...(withoutBatches.length > 0 && { without_batches: withoutBatches }),
      }
    }
    default:
      return serves satisfies never
  }
}

const interval = (found: Interval | null | undefined) => (found == null ? null : [finite(found.low), finite(found.high)])
/** JSON has no infinity. */
const finite = (value: number) => (Number.isFinite(value) ? value : null)

export function wireResult({ arms, sampleRatio, blocked, metrics }: Result, full: boolean) {
  return {
    arms: arms.map(({ arm, units, answers, unfinished }) => ({ arm, exposures: units, answers, unfinished })),
    sample_ratio: {
      mismatch: sampleRatio.mismatch,
      p_value: sampleRatio.pValue,
      chi_square_p: sampleRatio.chiSquareP,
    },
    blocked,
    ledger_full: full,
    metrics: metrics.map(wireMetric),
  }
}

export function wireMoment({ at, arms, blocked, metrics }: Moment) {
  return {
    at: new Date(at).toISOString(),
    arms: arms.map(({ arm, units }) => ({ arm, exposures: units })),
    blocked,
    metrics: metrics.map(wireMetric),
  }
}

export function wireStanding({ checked, ...standing }: Standing) {
  const one = ({ guardrail, broken, observed, bound }: Checked) => ({ guardrail, broken, observed, bound })
  return { ...standing, guardrails: checked.map(one) }
}

/** A ratio's figures are relative: 0.1 is 10 % more than the first arm. */
function wireMetric({ metric, arm, units, means, comparison, adjustedP, significant }: MetricResult) {
  const kind = kindOf(metric)
  const relative = (found: Interval | null) =>
    found !== null && kind === 'ratio' ? { low: Math.expm1(found.low), high: Math.expm1(found.high) } : found
  return {
    metric,
    kind,
    arm,
    units,
    means,
    difference: comparison === null ? null : kind === 'ratio' ? Math.expm1(comparison.estimate) : comparison.estimate,
    confidence_sequence: interval(comparison && relative(comparison.sequence)),
    fixed_interval: interval(comparison && relative(comparison.fixed)),
    e_value: comparison === null ? null : finite(comparison.eValue),
    adjusted_p: adjustedP,
    significant,
  }
}

export function wireEvent({ at, kind, body }: LedgerEvent) {
  return { at: new Date(at).toISOString(), kind, ...body }
}

export function wireReplay(results: readonly ReplayResult[], waiting: number, preempted: number) {
  return {
    object: 'experiment.replay',
    waiting,
    preempted,
    arms: results.map(({ arm, pairs, failed, changed, targetShown, judged, edits, collateral, locality }) => ({
      arm,
      pairs,
      failed,
      changed,
      collateral,
      locality,
      edits,
      target_shown: wirePaired(targetShown),
      judged: wirePaired(judged),
    })),
  }
}

function wirePaired({ n, gained, lost, estimate, sequence, fixed, eValue, exactP, promptsNeeded }: PairedResult) {
  return {
    pairs: n,
    gained,
    lost,
    difference: estimate,
    confidence_sequence: interval(sequence),
    fixed_interval: interval(fixed),
    e_value: finite(eValue),
    mcnemar_p: exactP,
    prompts_needed: promptsNeeded === null ? null : finite(promptsNeeded),
  }
}

export function wirePair({ origin, question, answers, verdicts, error }: Pair, arms: readonly string[]) {
  return {
    origin,
    question,
    answers: answers.map(({ text, edits, targetShown, latencyMs }, at) => ({
      arm: arms[at] ?? '',
      text,
      edits,
      target_shown: targetShown,
      latency_ms: Math.round(latencyMs),
    })),
    verdicts,
    ...(error !== undefined && { error }),
  }
}
