import { randomUUID } from 'node:crypto'
import type { Message } from '../../request.ts'
import { TRY_NAMED_LOCK } from '../../storage/advisory-locks.ts'
import { migrate } from '../../storage/migrate.ts'
import { DATABASE_NOW, type Sql, type SqlDatabase } from '../../storage/sql.ts'
import { type Experiment, keyOf } from '../experiment.ts'
import { AnswerCount } from './answer-count.ts'
import { DIFFERENCES } from './differences.ts'
import { type Exposure, record } from './exposure.ts'
import { type LedgerEvent, LedgerReader } from './ledger-reader.ts'
import type { Outcome } from './outcome.ts'
import { ReplayQueue } from './replay-queue.ts'
import { LEDGER_SCHEMA } from './schema.ts'

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

/** An experiment as it is on record. */
export interface Declared {
  readonly experiment: Experiment
  /** Grows in the order in which experiments were declared. */
  readonly place: number
  /** Number of the change that made it what it is. */
  readonly changed: number
}

export interface LedgerLimits {
  /** Answers kept of all experiments. When they are reached, those of the experiments that ended longest ago go; then no more are taken. */
  readonly ledgerAnswers: number
  /** Pieces of feedback kept on one answer. */
  readonly answerFeedback: number
  /** Prompts kept of an experiment that logs them; the latest stay. */
  readonly loggedPrompts: number
  /** Pairs of answers kept of an experiment. */
  readonly replayPairs: number
  /** Prompts that wait to be replayed. */
  readonly replayQueue: number
}

const NEGATIVE = ['negative', 'bad', 'wrong', 'down', 'thumbs_down', 'dislike']

/** Logged prompts that go at once, so that none is sought at every exposure. */
const TRIMMED_SHARE = 0.1

/**
 * What experiments were declared, who was exposed to which arm, and what came of it: of one gateway in a file, of many in PostgreSQL. An exposure
 * is on its way to the disk before the first word of its answer is. With SQLite a killed process loses none, and a power cut may take the latest.
 */
export class Ledger extends LedgerReader {
  readonly #database: SqlDatabase
  readonly #limits: LedgerLimits
  readonly #count: AnswerCount
  /** Names this gateway among those that hold something for a while. */
  readonly #holder: string
  /** Prompts logged here of each experiment since old ones were dropped. */
  readonly #logged = new Map<string, number>()
  readonly replays: ReplayQueue

  private constructor(database: SqlDatabase, sql: Sql, limits: LedgerLimits, count: AnswerCount, holder: string) {
    super(sql)
    this.#database = database
    this.#limits = limits
    this.#count = count
    this.#holder = holder
    this.replays = new ReplayQueue(sql, holder, limits.replayQueue)
  }

  /** The database stays the caller's to close, after the ledger. Throws storage errors. */
  static async open(database: SqlDatabase, limits: LedgerLimits): Promise<Ledger> {
    await migrate(database, LEDGER_SCHEMA)
    const count = new AnswerCount(database, limits.ledgerAnswers)
    await count.open()
    return new Ledger(database, database, limits, count, randomUUID())
  }

  async close(): Promise<void> {
    await this.#count.close()
  }

  /** All that `work` does with the ledger it is given lands, or none of it. With SQLite, all others of this process wait for it. */
  atOnce<Result>(doing: string, work: (ledger: Ledger) => Promise<Result>): Promise<Result> {
    return this.#database.atOnce(doing, (sql) => work(new Ledger(this.#database, sql, this.#limits, this.#count, this.#holder)))
  }

  /** Until the transaction ends, nobody else has this lock; false: somebody has it now. Who dies gives it up. */
  async tryLock(name: string): Promise<boolean> {
    if (this.sql.dialect === 'sqlite') return true
    const [row] = await this.sql.all<{ held: number }>('taking turns', TRY_NAMED_LOCK, name)
    return row?.held === 1
  }

  /** Whether this gateway may do what `name` says for so long; another may after that. */
  async lease(name: string, leaseMs: number): Promise<boolean> {
    const now = DATABASE_NOW[this.sql.dialect]
    const changes = await this.sql.run(
      'taking a lease',
      `INSERT INTO experiment_leases (name, holder, held_until) VALUES (?, ?, ${now} + ?) ON CONFLICT (name)
         DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until WHERE experiment_leases.held_until <= ${now}`,
      ...[name, this.#holder, leaseMs],
    )
    return changes > 0
  }

  /** Experiments that were changed after the change of this number, in the order they were declared. */
  async changedSince(change: number): Promise<Declared[]> {
    const rows = await this.read<{ place: number; changed: number; body: string }>(
      'SELECT rowid AS place, changed, body FROM experiments WHERE changed > ? ORDER BY rowid',
      change,
    )
    return rows.map(({ place, changed, body }) => ({ place, changed, experiment: JSON.parse(body) }))
  }

  /** Number of the latest change; tells and learns the number of answers, too. */
  look(): Promise<number> {
    return this.#count.look()
  }

  /** The same in a transaction, and nobody else changes an experiment until it ends. */
  async lockChanges(): Promise<number> {
    const text = `SELECT changes FROM ledger_state WHERE id = 1 ${DIFFERENCES[this.sql.dialect].held}`
    const [state] = await this.read<{ changes: number }>(text)
    return state?.changes ?? 0
  }

  /** Experiment and event land together: call it in `atOnce`, after `lockChanges` said the number of the latest change. */
  async save(experiment: Experiment, latest: number, event?: LedgerEvent): Promise<Declared> {
    const doing = 'saving an experiment'
    const changed = latest + 1
    const [row] = await this.sql.all<{ place: number }>(
      doing,
      `INSERT INTO experiments (key, body, changed) VALUES (?, ?, ?)
         ON CONFLICT (key) DO UPDATE SET body = excluded.body, changed = excluded.changed RETURNING rowid AS place`,
      ...[keyOf(experiment), JSON.stringify(experiment), changed],
    )
    if (event !== undefined)
      await this.sql.run(
        doing,
        'INSERT INTO experiment_events (experiment, at, kind, body) VALUES (?, ?, ?, ?)',
        ...[keyOf(experiment), event.at, event.kind, JSON.stringify(event.body)],
      )
    await this.sql.run(doing, 'UPDATE ledger_state SET changes = ? WHERE id = 1', changed)
    return { experiment, changed, place: row?.place ?? 0 }
  }

  /**
   * Records the exposure, and returns the arm that counts: a unit's first, whoever recorded it. `no_part`: it has none. `full`: nothing was
   * recorded, since the ledger holds all that it may.
   */
  async expose(exposure: Exposure): Promise<number | 'no_part' | 'full'> {
    if (!(await this.#count.hasRoom())) return 'full'
    const recorded = await record(this.#database, exposure)
    if (recorded === undefined) return 'no_part'
    this.#count.add(recorded.answers)
    return recorded.arm
  }

  /** Keeps a prompt that was exposed. */
  async logPrompt({ experiment, at, messages }: Exposure): Promise<void> {
    const doing = 'logging a prompt'
    const key = keyOf(experiment)
    const text = 'INSERT INTO experiment_prompts (experiment, at, messages) VALUES (?, ?, ?)'
    await this.sql.run(doing, text, key, at, JSON.stringify(messages))
    const logged = (this.#logged.get(key) ?? 0) + 1
    this.#logged.set(key, logged)
    if (logged < this.#limits.loggedPrompts * TRIMMED_SHARE) return
    this.#logged.delete(key)
    await this.sql.run(
      doing,
      `DELETE FROM experiment_prompts WHERE experiment = ? AND rowid <=
         (SELECT rowid FROM experiment_prompts WHERE experiment = ? ORDER BY rowid DESC LIMIT 1 OFFSET ?)`,
      ...[key, key, this.#limits.loggedPrompts],
    )
  }

  /** Prompts that were logged, in the order they came. */
  async prompts(key: string): Promise<(readonly Message[])[]> {
    const text = 'SELECT messages FROM experiment_prompts WHERE experiment = ? ORDER BY rowid DESC LIMIT ?'
    const rows = await this.read<{ messages: string }>(text, key, this.#limits.loggedPrompts)
    return rows.map(({ messages }) => JSON.parse(messages)).reverse()
  }

  /** What came of an answer; said twice, the first counts. */
  async finish(completion: string, outcome: Outcome): Promise<void> {
    const { latencyMs, promptTokens, completionTokens, error, refusal, targetShown } = outcome
    await this.sql.run(
      'recording an outcome',
      `UPDATE answers SET finished = 1, latency_ms = ?, prompt_tokens = ?, completion_tokens = ?, error = ?, refusal = ?, target_shown = ?,
         asked_again = 0 WHERE id = ? AND finished = 0`,
      ...[latencyMs, promptTokens, completionTokens, Number(error), number(refusal), number(targetShown), completion],
    )
  }

  /** The user came back with the question of this answer. */
  async askedAgain(completion: string): Promise<void> {
    await this.sql.run('recording an outcome', 'UPDATE answers SET asked_again = 1 WHERE id = ? AND finished = 1', completion)
  }

  async feedback(said: Feedback): Promise<'recorded' | 'known' | 'no_exposure' | 'too_much'> {
    const { tenant, completion, id, at, score, label, numbers } = said
    const [answer] = await this.read<{ experiment: string; held: number }>(
      'SELECT experiment, (SELECT count(*) FROM feedback WHERE completion = answers.id) AS held FROM answers WHERE id = ?',
      completion,
    )
    if (answer?.experiment.startsWith(`${tenant}/`) !== true) return 'no_exposure'
    if (answer.held >= this.#limits.answerFeedback) return 'too_much'
    const negative = (score ?? 0) < 0 || NEGATIVE.includes((label ?? '').toLowerCase())
    const changes = await this.sql.run(
      'recording feedback',
      `INSERT INTO feedback (completion, id, at, score, label, numbers, negative) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (completion, id) DO NOTHING`,
      ...[completion, id, at, score ?? null, label ?? null, JSON.stringify(numbers), Number(negative)],
    )
    return changes === 0 ? 'known' : 'recorded'
  }

  /** A pair of answers to one prompt; a prompt asked again replaces its pair. False when the experiment has all the pairs it may have. */
  async savePair({ tenant, id }: Experiment, version: number, prompt: string, pair: object): Promise<boolean> {
    const key = keyOf({ tenant, id })
    const [held] = await this.read<{ n: number }>('SELECT count(*) AS n FROM pairs WHERE experiment = ?', key)
    if ((held?.n ?? 0) >= this.#limits.replayPairs) return false
    await this.sql.run(
      'recording a replayed prompt',
      `INSERT INTO pairs (experiment, version, prompt, body) VALUES (?, ?, ?, ?)
         ON CONFLICT (experiment, version, prompt) DO UPDATE SET body = excluded.body`,
      ...[key, version, prompt, JSON.stringify(pair)],
    )
    return true
  }

  /** What a stage of a rollout began with, as the first said it. */
  async stage<Begun>({ tenant, id, version }: Experiment): Promise<Begun | undefined> {
    const text = 'SELECT body FROM rollout_stages WHERE experiment = ? AND version = ?'
    const [row] = await this.read<{ body: string }>(text, keyOf({ tenant, id }), version)
    return row && JSON.parse(row.body)
  }

  async beginStage({ tenant, id, version }: Experiment, begun: object): Promise<void> {
    await this.sql.run(
      'beginning a stage of a rollout',
      'INSERT INTO rollout_stages (experiment, version, body) VALUES (?, ?, ?) ON CONFLICT (experiment, version) DO NOTHING',
      ...[keyOf({ tenant, id }), version, JSON.stringify(begun)],
    )
  }
}

const number = (value: boolean | null): number | null => (value === null ? null : Number(value))
