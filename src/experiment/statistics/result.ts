import { type Experiment, keyOf, kindOf, type Metric } from '../experiment.ts'
import { type ArmSample, type LedgerReader, type PartSum, sampleOf, type UnitCount } from '../ledger/ledger-reader.ts'
import { type Comparison, compareArms, type Sample, type Stratum } from './confidence.ts'
import { holm } from './correction.ts'
import { type SampleRatio, sampleRatio } from './sample-ratio.ts'

export interface ArmResult {
  readonly arm: string
  readonly units: number
  readonly answers: number
  /** Begun, and not ended: under way, left by the client, or cut off with the process. */
  readonly unfinished: number
}

/** One metric of one arm against the first arm. */
export interface MetricResult {
  readonly metric: Metric
  readonly arm: string
  /** Units with a value, of the first arm and of this one. */
  readonly units: readonly [base: number, other: number]
  /** Means over units; of a ratio, geometric. Null without units. */
  readonly means: readonly [base: number | null, other: number | null]
  /** Null while the sample ratio is off, or an arm is empty. Of a ratio, as its logarithm. */
  readonly comparison: Comparison | null
  /** Always valid, and corrected for all metrics and arms by Holm's method. */
  readonly adjustedP: number
  readonly significant: boolean
}

export interface Result {
  readonly arms: readonly ArmResult[]
  readonly sampleRatio: SampleRatio
  /** The arms are not as full as their weights say: no figure below means anything, and none is given. */
  readonly blocked: boolean
  readonly metrics: readonly MetricResult[]
}

export async function resultOf(experiment: Experiment, ledger: LedgerReader): Promise<Result> {
  const answers = await ledger.answers(experiment)
  const samples: ArmSample[][] = []
  for (const metric of experiment.metrics) samples.push(await ledger.samples(experiment, metric))
  const found = evaluated(experiment, await ledger.counts(experiment), samples, await weightsByEpoch(experiment, ledger))
  return {
    ...found,
    arms: found.arms.map((row, arm) => {
      const own = answers.find((one) => one.arm === arm)
      return { ...row, answers: own?.answers ?? 0, unfinished: own?.unfinished ?? 0 }
    }),
  }
}

type Counts = readonly UnitCount[]
type Weights = ReadonlyMap<number, readonly number[]>

/** `samples`: of each metric; `weights`: by epoch. */
function evaluated(experiment: Experiment, counts: Counts, samples: readonly (readonly ArmSample[])[], weights: Weights) {
  const ratio = sampleRatio(splitsOf(experiment, counts, weights))
  const rows = experiment.metrics.flatMap((metric, at) =>
    experiment.arms.slice(1).map((arm, i) => compared(experiment, metric, samples[at] ?? [], arm.name, i + 1, ratio.mismatch)),
  )
  const adjusted = holm(rows.map(({ comparison }) => (comparison === null ? 1 : Math.min(1, 1 / comparison.eValue))))
  return {
    arms: experiment.arms.map(({ name }, arm) => ({ arm: name, units: unitsOf(counts, arm) })),
    sampleRatio: ratio,
    blocked: ratio.mismatch,
    metrics: rows.map((row, i) => {
      const adjustedP = adjusted[i] ?? 1
      return { ...row, adjustedP, significant: adjustedP <= experiment.alpha }
    }),
  }
}

function unitsOf(counts: Counts, arm: number): number {
  return counts.filter((row) => row.arm === arm).reduce((sum, row) => sum + row.units, 0)
}

/** How an experiment stood after so many of its units. */
export interface Moment extends Pick<Result, 'blocked' | 'metrics'> {
  /** Milliseconds since the epoch: when the last of them was exposed. */
  readonly at: number
  readonly arms: readonly Pick<ArmResult, 'arm' | 'units'>[]
}

/**
 * The result after 1/points, 2/points, … of the units, in the order of their exposures. The ledger is gone through once for each metric, as for
 * one result; a unit counts with what is known of it now.
 */
export async function resultsOverTime(experiment: Experiment, ledger: LedgerReader, points: number): Promise<Moment[]> {
  const counts = await ledger.countsInParts(experiment, points)
  const sums: PartSum[][] = []
  for (const metric of experiment.metrics) sums.push(await ledger.sumsInParts(experiment, metric, points))
  const weights = await weightsByEpoch(experiment, ledger)
  const parts = [...new Set(counts.map(({ part }) => part))]
  return parts.map((part) => {
    const until = counts.filter((row) => row.part <= part)
    const samples = sums.map((rows) => merged(rows.filter((row) => row.part <= part)))
    const { arms, blocked, metrics } = evaluated(experiment, until, samples, weights)
    return { at: Math.max(...until.map((row) => row.until)), arms, blocked, metrics }
  })
}

function merged(rows: readonly PartSum[]): ArmSample[] {
  const whole = new Map<string, Omit<PartSum, 'part'>>()
  for (const { epoch, arm, n, sum, squares } of rows) {
    const held = whole.get(`${epoch} ${arm}`) ?? { n: 0, sum: 0, squares: 0 }
    whole.set(`${epoch} ${arm}`, { epoch, arm, n: held.n + n, sum: held.sum + sum, squares: held.squares + squares })
  }
  return [...whole.values()].map(sampleOf)
}

/** Units by arm for each epoch, with the weights it had. */
function splitsOf(experiment: Experiment, counts: Counts, weights: Weights) {
  return [...new Set(counts.map(({ epoch }) => epoch))].map((epoch) => ({
    counts: experiment.arms.map((_, arm) =>
      unitsOf(
        counts.filter((row) => row.epoch === epoch),
        arm,
      ),
    ),
    weights: weights.get(epoch) ?? experiment.arms.map(({ weight }) => weight),
  }))
}

/** Epochs begin with 1 and grow with each change of weights; each change names the weights it brings, the first the ones it replaces, too. */
async function weightsByEpoch(experiment: Experiment, ledger: LedgerReader): Promise<Weights> {
  const changes = (await ledger.events(keyOf(experiment))).filter(({ kind }) => kind === 'reweighed')
  const out = new Map<number, readonly number[]>()
  for (const { body } of changes) {
    const { epoch, before, weights } = body as { epoch: number; before: readonly number[]; weights: readonly number[] }
    out.set(epoch - 1, before).set(epoch, weights)
  }
  return out
}

function compared(
  experiment: Experiment,
  metric: Metric,
  samples: readonly ArmSample[],
  name: string,
  arm: number,
  blocked: boolean,
): Omit<MetricResult, 'adjustedP' | 'significant'> {
  const kind = kindOf(metric)
  const [base, other] = [0, arm].map((of) => pooled(samples.filter((sample) => sample.arm === of))) as [Sample, Sample]
  const mean = ({ n, mean }: Sample) => (n === 0 ? null : kind === 'ratio' ? Math.exp(mean) : mean)
  const comparison = blocked ? null : compareArms(strataOf(samples, arm), kind, experiment.alpha, experiment.plannedUnits)
  return { metric, arm: name, units: [base.n, other.n], means: [mean(base), mean(other)], comparison }
}

const NONE: Sample = { n: 0, mean: 0, variance: 0 }

export function strataOf(samples: readonly ArmSample[], arm: number): Stratum[] {
  const of = (epoch: number, index: number) => samples.find((s) => s.epoch === epoch && s.arm === index) ?? NONE
  return [...new Set(samples.map(({ epoch }) => epoch))].map((epoch) => ({ base: of(epoch, 0), other: of(epoch, arm) }))
}

/** Only its n and mean are asked for. */
function pooled(samples: readonly Sample[]): Sample {
  const n = samples.reduce((sum, sample) => sum + sample.n, 0)
  return { n, mean: n === 0 ? 0 : samples.reduce((sum, sample) => sum + sample.n * sample.mean, 0) / n, variance: 0 }
}
