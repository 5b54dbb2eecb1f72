import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parse as parseYaml } from 'yaml'
import { PalimpsestError } from '../errors.ts'
import { UNRELATED } from '../evaluate/data/unrelated.ts'
import { Allocator } from '../experiment/allocate.ts'
import { type Experiment, keyOf } from '../experiment/experiment.ts'
import { Experiments } from '../experiment/experiments.ts'
import { Ledger } from '../experiment/ledger/ledger.ts'
import { Replays } from '../experiment/replay/replay.ts'
import { Rollouts } from '../experiment/rollout/rollouts.ts'
import type { Gateway, Limits } from '../gateway.ts'
import { servedNow } from '../http/experiments/context.ts'
import type { Logger } from '../logger.ts'
import type { MemoryStore } from '../memory/memory-store.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import { SqliteSql } from '../storage/sqlite-sql.ts'
import { readExperiment } from '../wire/palimpsest/experiments.ts'
import { DEFAULT_TENANT } from '../wire/palimpsest/selection.ts'

export interface TrialsOptions {
  /** Stays the caller's to close, after the trials. */
  readonly database: SqlDatabase
  readonly memory: MemoryStore
  readonly limits: Limits
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly log: Logger
  readonly tickMs?: number
}

export interface Trials {
  readonly experiments: NonNullable<Gateway['experiments']>
  close(): Promise<void>
}

/** How long a statement of the ledger may wait for another process's: no answer goes on meanwhile. */
const BUSY_MS = 250

/** The ledger of one gateway lies in the file of its log. */
export function openLedgerFile(dataDir: string): SqlDatabase {
  return new SqliteSql(join(dataDir, 'palimpsest.db'), { durable: false, busyMs: BUSY_MS })
}

/** Opens the ledger, and what works on it. `experiments.replays` still has to be started. */
export async function openTrials({ database, memory, limits, now, log, tickMs }: TrialsOptions): Promise<Trials> {
  const warn = (message: string) => log.warn({}, message)
  const ledger = await Ledger.open(database, limits)
  const registry = await Experiments.open({ ledger, now, runningExperiments: limits.runningExperiments, warn })
  const replays = new Replays({ registry, replayQueue: limits.replayQueue, warn })
  const rollouts = new Rollouts({
    registry,
    replays,
    now,
    warn,
    unrelated: UNRELATED,
    ...(tickMs !== undefined && { tickMs }),
    batches: {
      has: (tenant, batch) => memory.batches(tenant).some(({ id }) => id === batch),
      live: (tenant, batch, others, limit) => {
        const { edits } = memory.list({ tenant, state: 'live', limit: limits.listPage, ...(!others && { batchId: batch }) })
        return edits
          .filter(({ batchId }) => (batchId === batch) !== others)
          .slice(0, limit)
          .map(({ edit }) => edit)
      },
      withdraw: async (tenant, batch, source) => {
        await memory.withdrawBatch(tenant, batch, source)
      },
    },
  })
  return {
    experiments: { registry, allocator: new Allocator(registry, now), replays, rollouts },
    close: async () => {
      await rollouts.close()
      await replays.close()
      await registry.close()
      await ledger.close()
    },
  }
}

/**
 * Declares the experiments of a folder's YAML and JSON files, one a file, that are not declared yet. A file that changed later is told, and
 * changes nothing: an experiment under way stays what it was.
 */
export async function declareFiles(dir: string, gateway: Gateway): Promise<void> {
  const { experiments, limits, log } = gateway
  if (experiments === undefined || !existsSync(dir)) return
  for (const name of readdirSync(dir)
    .filter((file) => /\.(ya?ml|json)$/.test(file))
    .sort()) {
    const source = `${basename(dir)}/${name}`
    try {
      const content = readFileSync(join(dir, name), 'utf8')
      const body: unknown = name.endsWith('.json') ? JSON.parse(content) : parseYaml(content)
      const tenant = (body as { tenant?: string } | null)?.tenant ?? DEFAULT_TENANT
      const experiment = readExperiment(body, limits, tenant, { ...servedNow(gateway, tenant), source })
      const known = await declaredBefore(experiment, experiments.registry)
      if (known !== undefined && JSON.stringify(known.arms) !== JSON.stringify(experiment.arms))
        log.warn({}, `${source}: experiment ${keyOf(known)} is declared already, with other arms; give this one another id`)
    } catch (error) {
      log.warn({}, `${source}: not taken: ${error instanceof PalimpsestError ? error.message : (error as Error).message}`)
    }
  }
}

/** The experiment of this id, where there is one; else this one is declared. Gateways that start together read the same files. */
async function declaredBefore(experiment: Experiment, registry: Experiments): Promise<Experiment | undefined> {
  const key = keyOf(experiment)
  const known = registry.known(key)
  if (known !== undefined) return known
  try {
    await registry.declare(experiment)
    return undefined
  } catch (error) {
    const other = registry.known(key)
    if (other === undefined) throw error
    return other
  }
}
