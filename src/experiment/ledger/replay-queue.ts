import type { Message } from '../../request.ts'
import { DATABASE_NOW, type Sql } from '../../storage/sql.ts'
import { type Experiment, keyOf } from '../experiment.ts'
import { DIFFERENCES } from './differences.ts'

/** A prompt to be answered by every arm. */
export interface ReplayPrompt {
  /** What tells it from the others of its experiment. */
  readonly prompt: string
  readonly messages: readonly Message[]
  readonly origin: string
  /** Model that judges; null: nobody does. */
  readonly judge: string | null
}

/** One that this gateway holds for a while. */
export interface ClaimedReplay extends ReplayPrompt {
  readonly row: number
  /** Key of its experiment. */
  readonly experiment: string
  readonly version: number
  /** How often it was begun, this time included, and not given back. */
  readonly attempts: number
}

const WAITING = 'held_until <= '

/**
 * Prompts that wait to be replayed, of all gateways. One gateway at a time holds a prompt; when it is not done by the end of its lease, another
 * takes it over.
 */
export class ReplayQueue {
  readonly #sql: Sql
  readonly #holder: string
  readonly #limit: number
  readonly #now: string

  constructor(sql: Sql, holder: string, limit: number) {
    this.#sql = sql
    this.#holder = holder
    this.#limit = limit
    this.#now = DATABASE_NOW[sql.dialect]
  }

  /** Number of prompts taken; one that waits already counts as the one it is, and the queue is bounded. */
  async add(experiment: Experiment, prompts: readonly ReplayPrompt[]): Promise<number> {
    if (prompts.length === 0) return 0
    const doing = 'taking prompts to replay'
    const [row] = await this.#sql.all<{ n: number }>(doing, 'SELECT count(*) AS n FROM replays')
    const taken = prompts.slice(0, Math.max(0, this.#limit - (row?.n ?? 0)))
    if (taken.length === 0) return 0
    const rows = taken.map(({ messages, ...rest }) => ({ ...rest, messages: JSON.stringify(messages) }))
    await this.#sql.run(
      doing,
      `INSERT INTO replays (experiment, version, prompt, origin, messages, judge)
         SELECT CAST(? AS TEXT), CAST(? AS INTEGER), value ->> 'prompt', value ->> 'origin', value ->> 'messages', value ->> 'judge'
         FROM ${DIFFERENCES[this.#sql.dialect].elements} WHERE true ON CONFLICT (experiment, version, prompt) DO NOTHING`,
      ...[keyOf(experiment), experiment.version, JSON.stringify(rows)],
    )
    return taken.length
  }

  async waiting({ tenant, id, version }: Experiment): Promise<number> {
    const text = 'SELECT count(*) AS n FROM replays WHERE experiment = ? AND version = ?'
    const [row] = await this.#sql.all<{ n: number }>('counting the prompts that wait', text, keyOf({ tenant, id }), version)
    return row?.n ?? 0
  }

  /** Whether there is a prompt that nobody holds. */
  async any(): Promise<boolean> {
    const text = `SELECT 1 AS one FROM replays WHERE ${WAITING} ${this.#now} LIMIT 1`
    return (await this.#sql.all('looking for prompts to replay', text)).length > 0
  }

  async claim(leaseMs: number): Promise<ClaimedReplay | undefined> {
    const [found] = await this.#sql.all<Omit<ClaimedReplay, 'messages'> & { readonly messages: string }>(
      'claiming a prompt to replay',
      `UPDATE replays SET holder = ?, held_until = ${this.#now} + ?, attempts = attempts + 1 WHERE rowid =
         (SELECT rowid FROM replays WHERE ${WAITING} ${this.#now} ORDER BY rowid LIMIT 1 ${DIFFERENCES[this.#sql.dialect].unheld})
         RETURNING rowid AS row, experiment, version, prompt, origin, messages, judge, attempts`,
      ...[this.#holder, leaseMs],
    )
    return found && { ...found, messages: JSON.parse(found.messages) }
  }

  async keep({ row }: ClaimedReplay, leaseMs: number): Promise<void> {
    const text = `UPDATE replays SET held_until = ${this.#now} + ? WHERE rowid = ? AND holder = ?`
    await this.#sql.run('holding a prompt to replay', text, leaseMs, row, this.#holder)
  }

  /** For whoever is free first. */
  async giveBack({ row }: ClaimedReplay): Promise<void> {
    const text = 'UPDATE replays SET holder = NULL, held_until = 0, attempts = attempts - 1 WHERE rowid = ? AND holder = ?'
    await this.#sql.run('giving a prompt back', text, row, this.#holder)
  }

  async remove({ row }: ClaimedReplay): Promise<void> {
    await this.#sql.run('taking a prompt off the queue', 'DELETE FROM replays WHERE rowid = ?', row)
  }
}
