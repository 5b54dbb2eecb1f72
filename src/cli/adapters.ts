import { join } from 'node:path'
import type { Engine } from '../engine/engine.ts'
import type { Limits, Logger } from '../gateway.ts'
import type { MemoryStore } from '../memory/memory-store.ts'
import { Adapters } from '../models/adapters.ts'

export interface AdapterParts {
  readonly dataDir: string
  readonly engine: Engine
  readonly memory: MemoryStore
  readonly limits: Limits
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly log: Logger
}

/** The adapters of the data folder, over the engine's model; undefined where it takes none. */
export function openAdapters({ dataDir, engine, memory, limits, now, log }: AdapterParts): Adapters | undefined {
  if (engine.loras === undefined) return undefined
  return new Adapters({
    ...{ dir: join(dataDir, 'adapters'), dataDir, base: engine.loras, now, limits },
    editNow: (tenant, id) => memory.get(tenant, id),
    warn: (message) => log.warn({}, message),
  })
}
