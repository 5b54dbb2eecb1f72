import type { Message } from '../../request.ts'
import type { SqlDatabase } from '../../storage/sql.ts'
import { type Experiment, keyOf } from '../experiment.ts'

/** A unit met an experiment in a request whose answer could differ between its arms. */
export interface Exposure {
  readonly experiment: Experiment
  readonly unit: string
  /** The arm that the unit gets unless it was exposed before; null: then it takes no part. */
  readonly arm: number | null
  /** Id of the answer. */
  readonly completion: string
  readonly at: number
  readonly messages: readonly Message[]
}

/** The arm that counts, a unit's first, whoever recorded it; and how many answers came on record. Absent: the unit takes no part. */
export interface Recorded {
  readonly arm: number
  readonly answers: number
}

/**
 * One round trip. An exposure that another gateway is just writing is waited for, and found: hence the update that changes nothing. One that is
 * on record is only read, and then the answer alone is written, for which nobody waits until it is on the disk: a crash of the server may take
 * the answers of the last moment, and never an arm.
 */
const EXPOSE = `WITH given (experiment, version, unit, arm, epoch, at, id) AS (
    SELECT CAST(? AS TEXT), CAST(? AS INTEGER), CAST(? AS TEXT), CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS BIGINT), CAST(? AS TEXT)
  ), known AS (
    SELECT e.arm, set_config('synchronous_commit', 'off', true) FROM exposures e JOIN given g ON e.experiment = g.experiment AND e.version = g.version AND e.unit = g.unit
  ), fresh AS (
    INSERT INTO exposures (experiment, version, unit, arm, epoch, at)
      SELECT experiment, version, unit, arm, epoch, at FROM given WHERE arm IS NOT NULL AND NOT EXISTS (SELECT 1 FROM known)
      ON CONFLICT (experiment, version, unit) DO UPDATE SET arm = exposures.arm RETURNING arm
  ), counting AS (
    SELECT arm FROM known UNION ALL SELECT arm FROM fresh
  ), answered AS (
    INSERT INTO answers (id, experiment, version, unit, arm, at)
      SELECT g.id, g.experiment, g.version, g.unit, c.arm, g.at FROM given g CROSS JOIN counting c ON CONFLICT (id) DO NOTHING RETURNING 1
  ) SELECT arm, (SELECT count(*) FROM answered) AS answers FROM counting`

const KNOWN = 'SELECT arm FROM exposures WHERE experiment = ? AND version = ? AND unit = ?'
const EXPOSURE = `INSERT INTO exposures (experiment, version, unit, arm, epoch, at) VALUES (?, ?, ?, ?, ?, ?)
  ON CONFLICT (experiment, version, unit) DO UPDATE SET arm = exposures.arm RETURNING arm`
const ANSWER = `INSERT INTO answers (id, experiment, version, unit, arm, at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`

const DOING = 'recording an exposure'

export async function record(database: SqlDatabase, exposure: Exposure): Promise<Recorded | undefined> {
  const { experiment, unit, arm: dealt, completion, at } = exposure
  const { version, epoch } = experiment
  const key = keyOf(experiment)
  if (database.dialect === 'postgres') {
    const values = [key, version, unit, dealt, epoch, at, completion]
    return (await database.all<Recorded>(DOING, EXPOSE, ...values))[0]
  }
  return database.atOnce(DOING, async (sql) => {
    const [found] =
      dealt === null
        ? await sql.all<{ arm: number }>(DOING, KNOWN, key, version, unit)
        : await sql.all<{ arm: number }>(DOING, EXPOSURE, key, version, unit, dealt, epoch, at)
    if (found === undefined) return undefined
    return { arm: found.arm, answers: await sql.run(DOING, ANSWER, completion, key, version, unit, found.arm, at) }
  })
}
