import type { Sql, Value } from '../../storage/sql.ts'
import { type Experiment, keyOf, type Metric } from '../experiment.ts'
import type { Sample } from '../statistics/confidence.ts'
import { DIFFERENCES } from './differences.ts'

/** Something that happened to an experiment, with its evidence. */
export interface LedgerEvent {
  readonly at: number
  readonly kind: string
  readonly body: Readonly<Record<string, unknown>>
}

/** Units of one arm, one epoch. */
export interface ArmSample extends Sample {
  readonly epoch: number
  readonly arm: number
}

/** Over units of one part of them, one epoch and one arm. */
export interface PartSum {
  readonly part: number
  readonly epoch: number
  readonly arm: number
  readonly n: number
  readonly sum: number
  readonly squares: number
}

export interface UnitCount {
  readonly epoch: number
  readonly arm: number
  readonly units: number
}

export function sampleOf({ epoch, arm, n, sum, squares }: Omit<PartSum, 'part'>): ArmSample {
  const mean = sum / n
  return { epoch, arm, n, mean, variance: n < 2 ? 0 : Math.max(0, (squares - n * mean * mean) / (n - 1)) }
}

const EXPOSED = 'FROM exposures WHERE experiment = ? AND version = ?'
const PARTED = `SELECT unit, epoch, arm, at, ntile(CAST(? AS INTEGER)) OVER (ORDER BY at, unit) AS part ${EXPOSED}`
const WHOLE = `SELECT unit, epoch, arm, at, CAST(? AS INTEGER) AS part ${EXPOSED}`

/** What the ledger says of an experiment: exposures, outcomes, feedback and replayed pairs. */
export class LedgerReader {
  protected readonly sql: Sql

  constructor(sql: Sql) {
    this.sql = sql
  }

  protected read<Row>(text: string, ...values: readonly Value[]): Promise<Row[]> {
    return this.sql.all<Row>('reading the ledger', text, ...values)
  }

  async events(key: string): Promise<LedgerEvent[]> {
    const rows = await this.read<{ at: number; kind: string; body: string }>(
      'SELECT at, kind, body FROM experiment_events WHERE experiment = ? ORDER BY rowid',
      key,
    )
    return rows.map(({ at, kind, body }) => ({ at, kind, body: JSON.parse(body) }))
  }

  /** Key of the experiment that an answer counts in. */
  async experimentOf(completion: string): Promise<string | undefined> {
    const [row] = await this.read<{ experiment: string }>('SELECT experiment FROM answers WHERE id = ?', completion)
    return row?.experiment
  }

  /** Units exposed, by epoch and arm. */
  counts({ tenant, id, version }: Experiment): Promise<UnitCount[]> {
    return this.read<UnitCount>(
      'SELECT epoch, arm, count(*) AS units FROM exposures WHERE experiment = ? AND version = ? GROUP BY epoch, arm',
      ...[keyOf({ tenant, id }), version],
    )
  }

  /** The same, in `parts` of equally many units in the order of their exposures; `until`: the last of the part's. */
  countsInParts({ tenant, id, version }: Experiment, parts: number) {
    return this.read<UnitCount & { readonly part: number; readonly until: number }>(
      `SELECT part, epoch, arm, count(*) AS units, max(at) AS until FROM (${PARTED}) parted GROUP BY part, epoch, arm ORDER BY part`,
      ...[parts, keyOf({ tenant, id }), version],
    )
  }

  /** Answers by arm: all, and those still without an outcome. */
  answers({ tenant, id, version }: Experiment) {
    return this.read<{ readonly arm: number; readonly answers: number; readonly unfinished: number }>(
      'SELECT arm, count(*) AS answers, sum(1 - finished) AS unfinished FROM answers WHERE experiment = ? AND version = ? GROUP BY arm',
      ...[keyOf({ tenant, id }), version],
    )
  }

  /** Answers of an arm in all versions. */
  async answersEver({ tenant, id }: Experiment, arm: number): Promise<number> {
    const text = 'SELECT count(*) AS n FROM answers WHERE experiment = ? AND arm = ?'
    const [row] = await this.read<{ n: number }>(text, keyOf({ tenant, id }), arm)
    return row?.n ?? 0
  }

  /** When an arm first answered, in any version; milliseconds since the epoch. */
  async firstAnswer({ tenant, id }: Experiment, arm: number): Promise<number | null> {
    const text = 'SELECT min(at) AS at FROM answers WHERE experiment = ? AND arm = ?'
    const [row] = await this.read<{ at: number | null }>(text, keyOf({ tenant, id }), arm)
    return row?.at ?? null
  }

  /** Each unit's mean over its answers, summed up by epoch and arm. */
  async samples(experiment: Experiment, metric: Metric): Promise<ArmSample[]> {
    return (await this.sumsInParts(experiment, metric, 1)).map(sampleOf)
  }

  /** Sums over units of their mean over their answers, in the parts of `countsInParts`. */
  sumsInParts({ tenant, id, version }: Experiment, metric: Metric, parts: number): Promise<PartSum[]> {
    const { text, values } = this.#metric(metric)
    return this.read<PartSum>(
      `SELECT e.part, e.epoch, e.arm, count(*) AS n, sum(u.v) AS sum, sum(u.v * u.v) AS squares
       FROM (SELECT a.unit, avg(CAST(${text} AS DOUBLE PRECISION)) AS v FROM answers a
         WHERE a.experiment = ? AND a.version = ? AND a.finished = 1 GROUP BY a.unit) u
       JOIN (${parts === 1 ? WHOLE : PARTED}) e ON e.unit = u.unit WHERE u.v IS NOT NULL GROUP BY e.part, e.epoch, e.arm ORDER BY e.part`,
      ...[...values, keyOf({ tenant, id }), version, parts, keyOf({ tenant, id }), version],
    )
  }

  /** A metric of one answer `a`, null where it has none. */
  #metric(metric: Metric): { text: string; values: string[] } {
    const feedback = (what: string) => `(SELECT ${what} FROM feedback f WHERE f.completion = a.id)`
    if (metric.startsWith('label:'))
      return {
        text: feedback('avg(CASE WHEN f.label = ? THEN 1.0 WHEN f.label IS NOT NULL THEN 0.0 END)'),
        values: [metric.slice('label:'.length)],
      }
    if (metric.startsWith('number:')) {
      const { number, nameOfNumber } = DIFFERENCES[this.sql.dialect]
      return { text: feedback(`avg(${number})`), values: [nameOfNumber(metric.slice('number:'.length))] }
    }
    switch (metric) {
      case 'score':
        return { text: feedback('avg(f.score)'), values: [] }
      case 'negative_feedback':
        return { text: `coalesce(${feedback('max(f.negative)')}, 0)`, values: [] }
      case 'latency_ms':
      case 'completion_tokens':
        return { text: `ln(CAST(CASE WHEN a.${metric} < 1e-3 THEN 1e-3 ELSE a.${metric} END AS DOUBLE PRECISION))`, values: [] }
      default:
        return { text: `a.${metric}`, values: [] }
    }
  }

  /** The pairs of an experiment's version, in the order they came. */
  async pairs<Pair>({ tenant, id, version }: Experiment): Promise<Pair[]> {
    const text = 'SELECT body FROM pairs WHERE experiment = ? AND version = ? ORDER BY rowid'
    const rows = await this.read<{ body: string }>(text, keyOf({ tenant, id }), version)
    return rows.map(({ body }) => JSON.parse(body))
  }
}
