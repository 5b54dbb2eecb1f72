import { join } from 'node:path'
import type { Access } from '../access/access.ts'
import { FolderAdapters } from '../adapters/folder-store.ts'
import { Adapters } from '../adapters/registry.ts'
import { SharedAdapters } from '../adapters/shared-store.ts'
import { type AdapterStore, SHARED_FOLDER } from '../adapters/store.ts'
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
  readonly access?: Access | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly log: Logger
  /** Shared with other gateways, and its owner's to close; absent: the data folder's own. */
  readonly database?: SqlDatabase | undefined
  /** Between two looks at what other gateways changed. */
  readonly pollMs?: number | undefined
}

/** The adapters, over the engine's model; undefined where it takes none. Throws storage errors. */
export async function openAdapters(parts: AdapterParts): Promise<Adapters | undefined> {
  const { dataDir, engine, memory, limits, access, now } = parts
  if (engine.loras === undefined) return undefined
  return new Adapters({
    store: await openStore(parts),
    dataDir,
    base: engine.loras,
    now,
    limits,
    apart: () => access?.required() ?? false,
    editNow: (tenant, id) => memory.get(tenant, id),
  })
}

/** The data folder's own, or those of a database, with this gateway's copies of the files in its data folder. */
async function openStore({ dataDir, database, limits, log, pollMs }: AdapterParts): Promise<AdapterStore> {
  const warn = (message: string) => log.warn({}, message)
  if (database === undefined) return new FolderAdapters(join(dataDir, 'adapters'), warn)
  const dir = join(dataDir, SHARED_FOLDER)
  return SharedAdapters.open({ database, dir, waitMs: limits.adapterWaitMs, warn, ...(pollMs !== undefined && { pollMs }) })
}
