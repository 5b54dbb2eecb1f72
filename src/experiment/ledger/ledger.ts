import type { Message } from '../../request.ts'
import { Database } from '../../storage/database.ts'
import type { Value } from '../../storage/sql.ts'
import { useWriteAheadLog } from '../../storage/sqlite.ts'
import { type Experiment, keyOf, type Metric } from '../experiment.ts'
import type { Sample } from '../statistics/confidence.ts'
import type { Outcome } from './outcome.ts'
import { LEDGER_SCHEMA } from './schema.ts'

/** A unit met an experiment in a request whose answer could differ between its arms. */
export interface Exposure {
  readonly experiment: Experiment
  readonly unit: string
  readonly arm: number
  /** Id of the answer. */
  readonly completion: string
  readonly at: number
  readonly messages: readonly Message[]
}

export interface Feedback {
  readonly tenant: string
  readonly completion: string
  /** The same id again changes nothing. */
  readonly id: string
  readonly at: number
  /** Below 0: negative. */
  readonly score?: number
  readonly label?: string
  readonly numbers: Readonly<Record<string, number>>
}

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

export function sampleOf({ epoch, arm, n, sum, squares }: Omit<PartSum, 'part'>): ArmSample {
  const mean = sum / n
  return { epoch, arm, n, mean, variance: n < 2 ? 0 : Math.max(0, (squares - n * mean * mean) / (n - 1)) }
}

const EXPOSED = 'FROM exposures WHERE experiment = ? AND version = ?'
const PARTED = `SELECT unit, epoch, arm, at, ntile(?) OVER (ORDER BY at, unit) AS part ${EXPOSED}`
const WHOLE = `SELECT unit, epoch, arm, at, ? AS part ${EXPOSED}`

export interface LedgerLimits {
  /** Answers kept of all experiments. When they are reached, those of the experiments that ended longest ago go; then no more are taken. */
  readonly ledgerAnswers: number
  /** Pieces of feedback kept on one answer. */
  readonly answerFeedback: number
  /** Prompts kept of an experiment that logs them; the latest stay. */
  readonly loggedPrompts: number
  /** Pairs of answers kept of an experiment. */
  readonly replayPairs: number
}

export interface LedgerOptions {
  /** The memory's database; the ledger has its own tables and connection. */
  readonly file: string
  /** Runs `work`; turns its faults into our errors. */
  readonly guarded: <T>(doing: string, work: () => T) => T
  readonly limits: LedgerLimits
}

/** How long a statement may wait for another process's: no answer goes on meanwhile. */
const BUSY_MS = 250

const NEGATIVE = ['negative', 'bad', 'wrong', 'down', 'thumbs_down', 'dislike']

/**
 * What experiments were declared, who was exposed to which arm, and what came of it. An exposure is on its way to the disk before the first
 * word of its answer is: a killed process loses none (the file system's cache outlives it; a power cut may take the latest).
 */
export class Ledger {
  readonly #db: Database
  readonly #guarded: LedgerOptions['guarded']
  readonly #limits: LedgerLimits
  #answers: number

  constructor({ file, guarded, limits }: LedgerOptions) {
    this.#guarded = guarded
    this.#limits = limits
    this.#db = guarded('opening the ledger of experiments', () => new Database(file))
    this.#answers = guarded('opening the ledger of experiments', () => {
      useWriteAheadLog(this.#db, false)
      this.#db.atOnce(() => this.#db.exec(LEDGER_SCHEMA))
      this.#db.exec(`PRAGMA busy_timeout = ${BUSY_MS}`)
      return this.#db.value('SELECT count(*) FROM answers') as number
    })
  }

  #run(doing: string, sql: string, ...values: Value[]): { readonly changes: number } {
    return this.#guarded(doing, () => this.#db.prepare(sql).run(...values))
  }

  #all<Row>(sql: string, ...values: Value[]): Row[] {
    return this.#guarded('reading the ledger', () => this.#db.prepare<Row>(sql).all(...values))
  }

  experiments(): Experiment[] {
    return this.#all<{ body: string }>('SELECT body FROM experiments ORDER BY rowid').map(({ body }) => JSON.parse(body))
  }

  /** Experiment and event land together. */
  save(experiment: Experiment, event: LedgerEvent): void {
    const { at, kind, body } = event
    this.#guarded('saving an experiment', () =>
      this.#db.atOnce(() => {
        this.#db
          .prepare('INSERT INTO experiments (key, body) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body')
          .run(keyOf(experiment), JSON.stringify(experiment))
        this.#db
          .prepare('INSERT INTO experiment_events (experiment, at, kind, body) VALUES (?, ?, ?, ?)')
          .run(keyOf(experiment), at, kind, JSON.stringify(body))
      }),
    )
  }

  events(key: string): LedgerEvent[] {
    const rows = this.#all<{ at: number; kind: string; body: string }>(
      'SELECT at, kind, body FROM experiment_events WHERE experiment = ? ORDER BY rowid',
      key,
    )
    return rows.map(({ at, kind, body }) => ({ at, kind, body: JSON.parse(body) }))
  }

  /** Index of the arm that a unit was exposed to in this version. */
  armOf({ tenant, id, version }: Experiment, unit: string): number | undefined {
    const sql = 'SELECT arm FROM exposures WHERE experiment = ? AND version = ? AND unit = ?'
    return this.#db.value(sql, keyOf({ tenant, id }), version, unit) as number | undefined
  }

  /**
   * Records the exposure, and returns the arm that counts: a unit's first, whoever recorded it. Undefined, and nothing recorded, when the
   * ledger is full.
   */
  expose(exposure: Exposure): number | undefined {
    const { experiment, completion, at, messages } = exposure
    const key = keyOf(experiment)
    const { version, epoch, logPrompts } = experiment
    if (this.#answers >= this.#limits.ledgerAnswers && !this.#makeRoom()) return undefined
    return this.#guarded('recording an exposure', () =>
      this.#db.atOnce(() => {
        this.#db
          .prepare('INSERT OR IGNORE INTO exposures (experiment, version, unit, arm, epoch, at) VALUES (?, ?, ?, ?, ?, ?)')
          .run(key, version, exposure.unit, exposure.arm, epoch, at)
        const arm = this.armOf(experiment, exposure.unit) as number
        const { changes } = this.#db
          .prepare('INSERT OR IGNORE INTO answers (id, experiment, version, unit, arm, at) VALUES (?, ?, ?, ?, ?, ?)')
          .run(completion, key, version, exposure.unit, arm, at)
        this.#answers += changes
        if (logPrompts) this.#logPrompt(key, at, messages)
        return arm
      }),
    )
  }

  #logPrompt(key: string, at: number, messages: readonly Message[]): void {
    this.#db
      .prepare('INSERT INTO experiment_prompts (experiment, at, messages) VALUES (?, ?, ?)')
      .run(key, at, JSON.stringify(messages))
    this.#db
      .prepare(
        `DELETE FROM experiment_prompts WHERE experiment = :key AND rowid <=
           (SELECT rowid FROM experiment_prompts WHERE experiment = :key ORDER BY rowid DESC LIMIT 1 OFFSET :keep)`,
      )
      .run({ key, keep: this.#limits.loggedPrompts })
  }

  prompts(key: string): (readonly Message[])[] {
    const sql = 'SELECT messages FROM experiment_prompts WHERE experiment = ? ORDER BY rowid'
    return this.#all<{ messages: string }>(sql, key).map(({ messages }) => JSON.parse(messages))
  }

  /** Drops the answers of the experiment that ended longest ago; its results were recorded when it ended. */
  #makeRoom(): boolean {
    const ended = this.experiments().filter(({ status }) => status !== 'running')
    for (const experiment of ended.sort((a, b) => (a.endedAt ?? 0) - (b.endedAt ?? 0))) {
      const key = keyOf(experiment)
      const doing = 'making room in the ledger'
      this.#run(doing, 'DELETE FROM feedback WHERE completion IN (SELECT id FROM answers WHERE experiment = ?)', key)
      const { changes } = this.#run(doing, 'DELETE FROM answers WHERE experiment = ?', key)
      if (changes === 0) continue
      this.#run(doing, 'DELETE FROM exposures WHERE experiment = ?', key)
      this.#answers -= changes
      return true
    }
    return false
  }

  /** What came of an answer; said twice, the first counts. */
  finish(completion: string, outcome: Outcome): void {
    const { latencyMs, promptTokens, completionTokens, error, refusal, targetShown } = outcome
    this.#run(
      'recording an outcome',
      `UPDATE answers SET finished = 1, latency_ms = ?, prompt_tokens = ?, completion_tokens = ?, error = ?, refusal = ?, target_shown = ?,
         asked_again = 0 WHERE id = ? AND finished = 0`,
      ...[latencyMs, promptTokens, completionTokens, Number(error), number(refusal), number(targetShown), completion],
    )
  }

  /** The user came back with the question of this answer. */
  askedAgain(completion: string): void {
    this.#run('recording an outcome', 'UPDATE answers SET asked_again = 1 WHERE id = ? AND finished = 1', completion)
  }

  feedback({ tenant, completion, id, at, score, label, numbers }: Feedback): 'recorded' | 'known' | 'no_exposure' | 'too_much' {
    const [answer] = this.#all<{ experiment: string }>('SELECT experiment FROM answers WHERE id = ?', completion)
    if (answer?.experiment.startsWith(`${tenant}/`) !== true) return 'no_exposure'
    const negative = (score ?? 0) < 0 || NEGATIVE.includes((label ?? '').toLowerCase())
    const [held] = this.#all<{ n: number }>('SELECT count(*) AS n FROM feedback WHERE completion = ?', completion)
    if ((held?.n ?? 0) >= this.#limits.answerFeedback) return 'too_much'
    const { changes } = this.#run(
      'recording feedback',
      'INSERT OR IGNORE INTO feedback (completion, id, at, score, label, numbers, negative) VALUES (?, ?, ?, ?, ?, ?, ?)',
      ...[completion, id, at, score ?? null, label ?? null, JSON.stringify(numbers), Number(negative)],
    )
    return changes === 0 ? 'known' : 'recorded'
  }

  /** Key of the experiment that an answer counts in. */
  experimentOf(completion: string): string | undefined {
    return this.#all<{ experiment: string }>('SELECT experiment FROM answers WHERE id = ?', completion)[0]?.experiment
  }

  /** Units exposed, by epoch and arm. */
  counts({ tenant, id, version }: Experiment) {
    return this.#all<{ epoch: number; arm: number; units: number }>(
      'SELECT epoch, arm, count(*) AS units FROM exposures WHERE experiment = ? AND version = ? GROUP BY epoch, arm',
      ...[keyOf({ tenant, id }), version],
    )
  }

  /** The same, in `parts` of equally many units in the order of their exposures; `until`: the last of the part's. */
  countsInParts({ tenant, id, version }: Experiment, parts: number) {
    return this.#all<{ part: number; epoch: number; arm: number; units: number; until: number }>(
      `SELECT part, epoch, arm, count(*) AS units, max(at) AS until FROM (${PARTED}) GROUP BY part, epoch, arm ORDER BY part`,
      ...[parts, keyOf({ tenant, id }), version],
    )
  }

  /** Answers by arm: all, and those still without an outcome. */
  answers({ tenant, id, version }: Experiment) {
    return this.#all<{ arm: number; answers: number; unfinished: number }>(
      `SELECT arm, count(*) AS answers, sum(1 - finished) AS unfinished FROM answers WHERE experiment = ? AND version = ? GROUP BY arm`,
      ...[keyOf({ tenant, id }), version],
    )
  }

  /** Answers of an arm in all versions. */
  answersEver({ tenant, id }: Experiment, arm: number): number {
    const sql = 'SELECT count(*) AS n FROM answers WHERE experiment = ? AND arm = ?'
    return this.#all<{ n: number }>(sql, keyOf({ tenant, id }), arm)[0]?.n ?? 0
  }

  /** When an arm first answered, in any version; milliseconds since the epoch. */
  firstAnswer({ tenant, id }: Experiment, arm: number): number | null {
    const sql = 'SELECT min(at) AS at FROM answers WHERE experiment = ? AND arm = ?'
    return this.#all<{ at: number | null }>(sql, keyOf({ tenant, id }), arm)[0]?.at ?? null
  }

  /** Each unit's mean over its answers, summed up by epoch and arm. */
  samples(experiment: Experiment, metric: Metric): ArmSample[] {
    return this.sumsInParts(experiment, metric, 1).map(sampleOf)
  }

  /** Sums over units of their mean over their answers, in the parts of `countsInParts`. */
  sumsInParts({ tenant, id, version }: Experiment, metric: Metric, parts: number): PartSum[] {
    const { sql, values } = metricOf(metric)
    return this.#all<PartSum>(
      `SELECT e.part, e.epoch, e.arm, count(*) AS n, sum(u.v) AS sum, sum(u.v * u.v) AS squares
       FROM (SELECT a.unit, avg(${sql}) AS v FROM answers a WHERE a.experiment = ? AND a.version = ? AND a.finished = 1 GROUP BY a.unit) u
       JOIN (${parts === 1 ? WHOLE : PARTED}) e ON e.unit = u.unit WHERE u.v IS NOT NULL GROUP BY e.part, e.epoch, e.arm ORDER BY e.part`,
      ...[...values, keyOf({ tenant, id }), version, parts, keyOf({ tenant, id }), version],
    )
  }

  /** A pair of answers to one prompt; a prompt asked again replaces its pair. False when the experiment has all the pairs it may have. */
  savePair(experiment: Experiment, prompt: string, pair: object): boolean {
    const key = keyOf(experiment)
    const [held] = this.#all<{ n: number }>('SELECT count(*) AS n FROM pairs WHERE experiment = ?', key)
    if ((held?.n ?? 0) >= this.#limits.replayPairs) return false
    this.#run(
      'recording a replayed prompt',
      `INSERT INTO pairs (experiment, version, prompt, body) VALUES (?, ?, ?, ?)
         ON CONFLICT (experiment, version, prompt) DO UPDATE SET body = excluded.body`,
      ...[key, experiment.version, prompt, JSON.stringify(pair)],
    )
    return true
  }

  pairs<Pair>({ tenant, id, version }: Experiment): Pair[] {
    const sql = 'SELECT body FROM pairs WHERE experiment = ? AND version = ? ORDER BY rowid'
    return this.#all<{ body: string }>(sql, keyOf({ tenant, id }), version).map(({ body }) => JSON.parse(body))
  }

  close(): void {
    this.#db.close()
  }
}

/** A metric of one answer `a`, null where it has none. */
function metricOf(metric: Metric): { sql: string; values: string[] } {
  const feedback = (what: string) => `(SELECT ${what} FROM feedback f WHERE f.completion = a.id)`
  if (metric.startsWith('label:'))
    return { sql: feedback('avg(CASE WHEN f.label IS NOT NULL THEN f.label = ? END)'), values: [metric.slice('label:'.length)] }
  if (metric.startsWith('number:')) {
    const name = metric.slice('number:'.length)
    return { sql: feedback('avg(f.numbers ->> ?)'), values: [`$.${JSON.stringify(name)}`] }
  }
  switch (metric) {
    case 'score':
      return { sql: feedback('avg(f.score)'), values: [] }
    case 'negative_feedback':
      return { sql: `coalesce(${feedback('max(f.negative)')}, 0)`, values: [] }
    case 'latency_ms':
    case 'completion_tokens':
      return { sql: `ln(max(a.${metric}, 1e-3))`, values: [] }
    default:
      return { sql: `a.${metric}`, values: [] }
  }
}

const number = (value: boolean | null): number | null => (value === null ? null : Number(value))
