import { join } from 'node:path'
import type { Access } from '../access/access.ts'
import { FolderAdapters } from '../adapters/folder-store.ts'
import { Adapters } from '../adapters/registry.ts'
import { SharedAdapters } from '../adapters/shared-store.ts'
import { type AdapterStore, SHARED_FOLDER } from '../adapters/store.ts'
import type { Config } from '../config.ts'
import type { Engine } from '../engine/engine.ts'
import type { Limits } from '../gateway.ts'
import type { Logger } from '../logger.ts'
import type { MemoryStore } from '../memory/memory-store.ts'
import type { SqlDatabase } from '../storage/sql.ts'

export interface AdapterParts {
  readonly dataDir: string
  readonly engine: Engine
  readonly memory: MemoryStore
  readonly limits: Limits
  /** Absent: no keys are asked for, and tenants not kept apart. */
  readonly access?: Access
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly log: Logger
  /** Shared with other gateways; absent: the data folder's own. */
  readonly store?: AdapterStore | undefined
}

/** The adapters, over the engine's model; undefined where it takes none. */
export function openAdapters({ dataDir, engine, memory, limits, access, now, log, store }: AdapterParts): Adapters | undefined {
  if (engine.loras === undefined) return undefined
  return new Adapters({
    store: store ?? new FolderAdapters(join(dataDir, 'adapters'), (message) => log.warn({}, message)),
    dataDir,
    base: engine.loras,
    now,
    limits,
    apart: () => access?.required() ?? false,
    editNow: (tenant, id) => memory.get(tenant, id),
  })
}

/** Those of a database that gateways share, with this gateway's copies of the files in its data folder. */
export function openSharedAdapters(
  database: SqlDatabase,
  { dataDir, limits }: Config<Limits>,
  log: Logger,
): Promise<AdapterStore> {
  return SharedAdapters.open({
    database,
    dir: join(dataDir, SHARED_FOLDER),
    waitMs: limits.adapterWaitMs,
    warn: (message) => log.warn({}, message),
  })
}
