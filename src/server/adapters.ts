import { join } from 'node:path'
import type { Access } from '../access/access.ts'
import { Adapters } from '../adapters/registry.ts'
import type { Engine } from '../engine/engine.ts'
import type { Limits } from '../gateway.ts'
import type { Logger } from '../logger.ts'
import type { MemoryStore } from '../memory/memory-store.ts'

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
}

/** The adapters of the data folder, over the engine's model; undefined where it takes none. */
export function openAdapters({ dataDir, engine, memory, limits, access, now, log }: AdapterParts): Adapters | undefined {
  if (engine.loras === undefined) return undefined
  return new Adapters({
    dir: join(dataDir, 'adapters'),
    dataDir,
    base: engine.loras,
    now,
    limits,
    apart: () => access?.required() ?? false,
    editNow: (tenant, id) => memory.get(tenant, id),
    warn: (message) => log.warn({}, message),
  })
}
