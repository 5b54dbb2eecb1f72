import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Access } from '../access/access.ts'
import type { Adapters } from '../adapters/registry.ts'
import { answererOf } from '../compare.ts'
import type { Config } from '../config.ts'
import { Bridges } from '../engine/bridge.ts'
import type { Embedder, Engine, PairReader } from '../engine/engine.ts'
import type { ModelPool } from '../engine/model-pool.ts'
import type { Gateway, Limits, Telemetry } from '../gateway.ts'
import type { Logger } from '../logger.ts'
import type { EditFolder } from '../memory/files/watcher.ts'
import type { MemoryStore } from '../memory/memory-store.ts'
import { openMemory } from '../memory/store.ts'
import { cachedEmbedder } from '../memory/vectors/cached-embedder.ts'
import { PACKAGE_ROOT } from '../package-root.ts'
import { openTemplates, type Templates } from '../prompt/templates.ts'
import { readCalibration } from '../selection/gate.ts'
import { cachedReader } from '../selection/reader-cache.ts'
import { Retriever } from '../selection/retriever.ts'
import type { SqlDatabase } from '../storage/sql.ts'
import { openAdapters } from './adapters.ts'
import { parseEditFile } from './edit-file.ts'
import { openEditFolder } from './edit-folder.ts'
import { declareFiles, openLedgerFile, openTrials } from './experiments.ts'

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
  readonly draining?: AbortSignal | undefined
  readonly closing: AbortSignal
  readonly telemetry?: Telemetry | undefined
  /** Shared with other gateways, and its owner's to close; absent: files in the data folder. */
  readonly database?: SqlDatabase | undefined
  /** Absent: nobody else reaches the gateway. */
  readonly access?: Access
}

export const now = () => performance.timeOrigin + performance.now()

/** Opens templates, memory and `edits/`. Throws `template_broken`, `folder_in_use`, `storage_failed`, `storage_full`. */
export async function openParts({
  config,
  embedder: plain,
  reader,
  log,
  watch,
  draining,
  closing,
  telemetry,
  database,
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
  const undo: (() => Promise<unknown> | undefined)[] = [() => opened.close()]
  const close = async () => {
    for (const one of undo.splice(0).reverse()) await one()
  }
  try {
    const memory = await openMemory({ dataDir: config.dataDir, embedder, now: Date.now, log, ...(database && { database }) })
    undo.push(() => memory.close())
    const ledger = database ?? openLedgerFile(config.dataDir)
    if (ledger !== database) undo.push(() => ledger.close())
    const files = { dir: config.editsDir, memory, parse: parseEditFile, watch, log }
    const folder = await openEditFolder(files, database)
    undo.push(() => folder.close())
    const trials = await openTrials({ database: ledger, memory, limits: config.limits, now, log })
    undo.push(() => trials.close())
    const retriever = new Retriever(memory, embedder, cachedReader(reader, config.embedCacheBytes), {
      // The log's clock, which never runs behind what it has recorded: else an edit would be listed and not found.
      now: () => memory.moment(),
      cacheBytes: config.selectionCacheBytes,
    })
    const shared = {
      ...{ memory, retriever, calibration, templates, log, now, startedAt, closing, editFiles: folder },
      experiments: trials.experiments,
      ...(draining && { draining }),
      ...(database && { database }),
      ...(access && { access }),
      ...(telemetry && { telemetry }),
      ...(counts(plain) && { embedder: plain }),
    }
    const gateway = async (engine: Engine, models?: ModelPool) => {
      const { dataDir, limits } = config
      const adapters = await openAdapters({ ...{ dataDir, engine, memory, limits, now, log }, access, database })
      undo.push(() => adapters?.close())
      const made = gatewayOf(shared, config, { engine, models, adapters })
      await declareFiles(config.experimentsDir, made)
      trials.experiments.replays.start(answererOf(made))
      return made
    }
    return { memory, folder, gateway, close }
  } catch (error) {
    await close()
    throw error
  }
}

type Shared = Omit<
  Gateway,
  'engine' | 'models' | 'adapters' | 'limits' | 'version' | 'hosts' | 'origins' | 'reportsDir' | 'logPrompts' | 'multiHop'
>

interface Answering {
  readonly engine: Engine
  readonly models: ModelPool | undefined
  readonly adapters: Adapters | undefined
}

function gatewayOf(shared: Shared, config: Config<Limits>, { engine, models, adapters }: Answering): Gateway {
  const { limits, hosts, allowOrigin: origins, reportsDir, logPrompts, multiHop } = config
  return {
    ...shared,
    ...{ engine, limits, hosts, origins, reportsDir, logPrompts, version: VERSION },
    multiHop: { mode: multiHop, bridges: new Bridges(engine) },
    ...(models && { models }),
    ...(adapters && { adapters }),
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
