import type { Sql, SqlDatabase } from '../../storage/sql.ts'
import type { Experiment } from '../experiment.ts'
import { DIFFERENCES } from './differences.ts'

interface State {
  /** Changes of experiments so far. */
  readonly changes: number
  readonly answers: number
}

const DOING = 'making room in the ledger'
/** Answers dropped in one transaction: all who change or count wait for it. */
const DROPPED_AT_ONCE = 5_000

/**
 * How many answers all gateways keep, known without counting: each adds what it took to the total when it looks at it. A gateway that is killed
 * takes the latest with it, so each counts at its start.
 */
export class AnswerCount {
  readonly #database: SqlDatabase
  readonly #limit: number
  /** As of the last look, and what this gateway took since. */
  #kept = 0
  /** Taken here, and not in the total yet. */
  #untold = 0
  /** Nothing was found to drop since the last look. */
  #noRoom = false
  #making: Promise<boolean> | null = null
  #dropping: Promise<void> | null = null
  #closed = false

  constructor(database: SqlDatabase, limit: number) {
    this.#database = database
    this.#limit = limit
  }

  async open(): Promise<void> {
    const counted = 'UPDATE ledger_state SET answers = (SELECT count(*) FROM answers) WHERE id = 1 RETURNING answers'
    const [state] = await this.#database.all<State>('counting the answers of experiments', counted)
    this.#kept = state?.answers ?? 0
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#dropping
  }

  add(answers: number): void {
    this.#kept += answers
    this.#untold += answers
  }

  /** Tells and learns the total. Resolves to the number of changes of experiments so far, which stands beside it. */
  async look(): Promise<number> {
    const told = this.#untold
    this.#untold = 0
    try {
      const [state] =
        told === 0
          ? await this.#database.all<State>('looking for changes', 'SELECT changes, answers FROM ledger_state WHERE id = 1')
          : await this.#database.all<State>('looking for changes', TELL, told)
      this.#kept = (state?.answers ?? 0) + this.#untold
      this.#noRoom = false
      return state?.changes ?? 0
    } catch (error) {
      this.#untold += told
      throw error
    }
  }

  /**
   * False: all are kept that may be. When that is reached, the answers of the experiment that ended longest ago go, whose results were recorded
   * when it ended: some before this resolves, the others after it.
   */
  async hasRoom(): Promise<boolean> {
    if (this.#kept < this.#limit) return true
    if (this.#noRoom) return false
    this.#making ??= this.#make().finally(() => {
      this.#making = null
    })
    return this.#making
  }

  async #make(): Promise<boolean> {
    const key = await this.#drop(null)
    this.#noRoom = key === null && this.#kept >= this.#limit
    if (key !== null && this.#dropping === null)
      this.#dropping = this.#dropRest(key).finally(() => {
        this.#dropping = null
      })
    return !this.#noRoom
  }

  /** What fails is taken up when the ledger is full again. */
  async #dropRest(key: string): Promise<void> {
    try {
      // Requests go on between two times.
      do await new Promise(setImmediate)
      while (!this.#closed && (await this.#drop(key)) !== null)
    } catch {
      this.#noRoom = false
    }
  }

  /** Drops some answers of `of`, else of the experiment that ended longest ago, if there are too many. Resolves to its key; null: none. */
  async #drop(of: string | null): Promise<string | null> {
    const told = this.#untold
    this.#untold = 0
    try {
      return await this.#database.atOnce(DOING, async (sql) => {
        const [state] = await sql.all<State>(DOING, TELL, told)
        const answers = state?.answers ?? 0
        this.#kept = answers + this.#untold
        const key = of ?? (answers < this.#limit ? null : await endedFirst(sql))
        if (key === null) return null
        const dropped = await drop(sql, key)
        this.#kept -= dropped
        await sql.run(DOING, 'UPDATE ledger_state SET answers = answers - ? WHERE id = 1', dropped)
        return dropped === 0 ? null : key
      })
    } catch (error) {
      this.#untold += told
      throw error
    }
  }
}

const TELL = 'UPDATE ledger_state SET answers = answers + ? WHERE id = 1 RETURNING changes, answers'

async function endedFirst(sql: Sql): Promise<string | null> {
  const rows = await sql.all<{ key: string; body: string }>(
    DOING,
    'SELECT e.key, e.body FROM experiments e WHERE EXISTS (SELECT 1 FROM answers a WHERE a.experiment = e.key) ORDER BY e.rowid',
  )
  const ended = rows
    .map(({ key, body }) => ({ key, experiment: JSON.parse(body) as Experiment }))
    .filter(({ experiment }) => experiment.status !== 'running')
    .sort((a, b) => (a.experiment.endedAt ?? 0) - (b.experiment.endedAt ?? 0))
  return ended[0]?.key ?? null
}

/** Number of answers dropped; each exposure has one at least, so those are gone by the time the answers are. */
async function drop(sql: Sql, key: string): Promise<number> {
  await sql.run(
    DOING,
    `DELETE FROM exposures WHERE experiment = ? AND (version, unit) IN
       (SELECT version, unit FROM exposures WHERE experiment = ? LIMIT ?)`,
    ...[key, key, DROPPED_AT_ONCE],
  )
  const rows = await sql.all<{ id: string }>(DOING, 'SELECT id FROM answers WHERE experiment = ? LIMIT ?', key, DROPPED_AT_ONCE)
  const ids = JSON.stringify(rows)
  const given = `(SELECT value ->> 'id' FROM ${DIFFERENCES[sql.dialect].elements})`
  await sql.run(DOING, `DELETE FROM feedback WHERE completion IN ${given}`, ids)
  return sql.run(DOING, `DELETE FROM answers WHERE id IN ${given}`, ids)
}
