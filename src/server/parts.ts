import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Access } from '../access/access.ts'
import { answererOf } from '../compare.ts'
import type { Config } from '../config.ts'
import { Bridges } from '../engine/bridge.ts'
import type { Embedder, Engine, PairReader } from '../engine/engine.ts'
import type { ModelPool } from '../engine/model-pool.ts'
import type { Gateway, Limits, Telemetry } from '../gateway.ts'
import type { Logger } from '../logger.ts'
import { type EditFolder, openFolder } from '../memory/files/watcher.ts'
import type { MemoryStore } from '../memory/memory-store.ts'
import { openMemory } from '../memory/store.ts'
import { cachedEmbedder } from '../memory/vectors/cached-embedder.ts'
import { PACKAGE_ROOT } from '../package-root.ts'
import { openTemplates, type Templates } from '../prompt/templates.ts'
import { readCalibration } from '../selection/gate.ts'
import { cachedReader } from '../selection/reader-cache.ts'
import { Retriever } from '../selection/retriever.ts'
import { SqliteSql } from '../storage/sqlite-sql.ts'
import { openAdapters } from './adapters.ts'
import { parseEditFile } from './edit-file.ts'
import { declareFiles, openTrials } from './experiments.ts'

/** Of the package, for `--version` and /health. */
export const VERSION = (JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string }).version

/** All of a gateway but the engine, so that what can fail at once fails before a model is fetched or loaded. */
export interface Parts {
  readonly memory: MemoryStore
  readonly folder: EditFolder
  /** Still without its engine. */
  gateway(engine: Engine, models?: ModelPool): Promise<Gateway>
  close(): Promise<void>
}

export interface OpenOptions {
  readonly config: Config<Limits>
  readonly embedder: Embedder
  readonly reader: PairReader
  readonly log: Logger
  /** Follow the folders of edits and templates. */
  readonly watch: boolean
  readonly closing: AbortSignal
  readonly telemetry?: Telemetry | undefined
  /** Absent: nobody else reaches the gateway. */
  readonly access?: Access
}

/** How long a statement of the ledger may wait for another process's: no answer goes on meanwhile. */
const LEDGER_BUSY_MS = 250

export const now = () => performance.timeOrigin + performance.now()

/** Opens templates, memory and `edits/`. Throws `template_broken`, `folder_in_use`, `storage_failed`, `storage_full`. */
export async function openParts({
  config,
  embedder: plain,
  reader,
  log,
  watch,
  closing,
  telemetry,
  access,
}: OpenOptions): Promise<Parts> {
  const startedAt = now()
  let templatesOpen = false
  const say = {
    info: (message: string) => log.info({}, message),
    // What is broken at the first load is thrown, and said then.
    warn: (message: string) => templatesOpen && log.warn({}, message),
  }
  const embedder = cachedEmbedder(plain, config.embedCacheBytes)
  const calibration = readCalibration(undefined, config.threshold)
  const opened = openTemplates({ dir: config.templatesDir, watch, log: say })
  templatesOpen = true
  const templates = withDefault(opened, config.template)
  let memory: MemoryStore | undefined
  let ledger: SqliteSql | undefined
  try {
    memory = await openMemory({ dataDir: config.dataDir, embedder, now: Date.now, log })
    const held = memory
    const folder = await openFolder({ dir: config.editsDir, memory: held, parse: parseEditFile, watch, log })
    ledger = new SqliteSql(join(config.dataDir, 'palimpsest.db'), { durable: false, busyMs: LEDGER_BUSY_MS })
    const trials = await openTrials({ database: ledger, memory: held, limits: config.limits, now, log })
    const retriever = new Retriever(held, embedder, cachedReader(reader, config.embedCacheBytes), {
      now: Date.now,
      cacheBytes: config.selectionCacheBytes,
    })
    return {
      memory: held,
      folder,
      gateway: async (engine, models) => {
        const { dataDir, limits } = config
        const adapters = openAdapters({ dataDir, engine, memory: held, limits, now, log, ...(access && { access }) })
        const gateway: Gateway = {
          engine,
          memory: held,
          retriever,
          calibration,
          templates,
          editFiles: folder,
          limits: config.limits,
          now,
          log,
          version: VERSION,
          startedAt,
          closing,
          multiHop: { mode: config.multiHop, bridges: new Bridges(engine) },
          ...(access && { access }),
          hosts: config.hosts,
          reportsDir: config.reportsDir,
          experiments: trials.experiments,
          logPrompts: config.logPrompts,
          ...(models && { models }),
          ...(adapters && { adapters }),
          ...(telemetry && { telemetry }),
          ...(counts(plain) && { embedder: plain }),
        }
        await declareFiles(config.experimentsDir, gateway)
        trials.experiments.replays.start(answererOf(gateway))
        return gateway
      },
      close: async () => {
        await Promise.all([folder.close(), templates.close(), trials.close()])
        await ledger?.close()
        await held.close()
      },
    }
  } catch (error) {
    await Promise.all([opened.close(), memory?.close(), ledger?.close()])
    throw error
  }
}

function counts(embedder: Embedder): embedder is Required<Embedder> {
  return embedder.countTokens !== undefined
}

/** A name that the configuration gives stands in for the family's default; throws `template_not_found` at once, not at the first request. */
function withDefault(templates: Templates, name: string | undefined): Templates {
  if (name === undefined) return templates
  templates.get(name, '')
  return { ...templates, get: (asked, family) => templates.get(asked ?? name, family) }
}
