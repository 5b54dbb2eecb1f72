import { setTimeout as sleep } from 'node:timers/promises'
import type { PalimpsestError } from '../errors.ts'
import { portVersions, type Schema, whyUnreadable } from './migrate.ts'
import type { SqlDatabase } from './sql.ts'

/** Between two looks: this long, a gateway goes on beside tables that it cannot read any more. */
const POLL_MS = 1_000

export interface SchemaWatchOptions {
  readonly database: SqlDatabase
  /** All that the gateway knows. */
  readonly schemas: readonly Schema[]
  /** Called once: a newer gateway has changed tables beyond what this one can read. */
  readonly outdated: (why: PalimpsestError) => void
  readonly pollMs?: number
}

/** Looks at the versions of all tables until it is closed, or one is too new. While the database is away nobody changes any. */
export class SchemaWatch {
  readonly #stop = new AbortController()
  readonly #watching: Promise<void>

  constructor(options: SchemaWatchOptions) {
    this.#watching = this.#watch(options)
  }

  async #watch({ database, schemas, outdated, pollMs = POLL_MS }: SchemaWatchOptions): Promise<void> {
    const { signal } = this.#stop
    for (;;) {
      await sleep(pollMs, undefined, { signal, ref: false }).catch(() => {})
      if (signal.aborted) return
      const found = await portVersions(database).catch(() => [])
      const faults = schemas.flatMap(
        (schema) =>
          whyUnreadable(
            database.name,
            schema,
            found.find(({ port }) => port === schema.port),
          ) ?? [],
      )
      if (faults[0] === undefined) continue
      outdated(faults[0])
      return
    }
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#watching
  }
}
