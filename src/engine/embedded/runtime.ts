import { randomInt } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import {
  type GgufFileInfo,
  GgufInsights,
  getLlama,
  InsufficientMemoryError,
  type Llama,
  type LlamaContext,
  LlamaLogLevel,
  type LlamaModel,
  NoBinaryFoundError,
  readGgufFileInfo,
} from 'node-llama-cpp'
import { PalimpsestError } from '../../errors.ts'
import type { Embedder, OwnEngine, PairReader } from '../engine.ts'
import { type FormattedFamily, remembering } from '../format/chat-format.ts'
import { inPieces } from '../format/control-strings.ts'
import { brokenModelFile, defaultSystem, guessFamily, tooLittleMemory } from '../format/model-family.ts'
import { loraFiles } from '../gguf/lora-apart.ts'
import { ADDON_OPTIONS, hasAddon } from '../llama-server/build.ts'
import { ServedEngine } from '../llama-server/engine.ts'
import { COUNTING, ServerProcess, type ServerProcessOptions } from '../llama-server/process.ts'
import { serverArgs } from '../llama-server/wire.ts'
import { tokenBytes } from '../output/token-bytes.ts'
import { alonePerBatch } from './batching.ts'
import { ChatEngine } from './chat.ts'
import { batchTokens, memoryNeed, slotsInMemory } from './device-memory.ts'
import { DEFAULT_EMBED_TOKENS, openEmbedder } from './embedder.ts'
import { SequenceLoras } from './loras.ts'
import { assertLibrary, reckonByHeader } from './native.ts'
import { openReader } from './reader.ts'
import { SavedCaches } from './saved-caches.ts'

export type Log = (level: 'debug' | 'info' | 'warn' | 'error', message: string) => void

export interface RuntimeOptions {
  /** Upper bound on compute threads of everything together; absent: the cores this process may use. */
  readonly threads?: number
  /** 'auto' takes a GPU where there is one. */
  readonly gpu?: 'auto' | 'cuda' | 'metal' | 'vulkan' | false
  /** The prebuilt addon, even where one was built here. */
  readonly prebuilt?: boolean
  readonly log: Log
}

export interface ChatOptions {
  readonly modelPath: string
  /** The name on the wire. */
  readonly name: string
  /** Absent: told from the file's header. */
  readonly family?: FormattedFamily
  /** Per slot; absent: DEFAULT_CONTEXT_TOKENS, or less where the model was trained on less. */
  readonly contextTokens?: number
  /** Conversations held at once; fewer are opened when memory is short. */
  readonly slots?: number
  readonly queueLimit?: number
  /** Memory for adapters; the longest unused are dropped beyond it, and loaded again when asked for. */
  readonly loraMemoryBytes?: number
  /** Where caches of conversations that lost their slot are kept, and how much of them; absent: they are not. In this process only. */
  readonly savedCaches?: { readonly dir: string; readonly limitBytes: number }
  /** Of the model file, where the caller has checked it. */
  readonly sha256?: string | null
  /** Milliseconds; absent: performance.now. */
  readonly now?: () => number
  /** A seed in [0, 2^32 - 1) for requests that bring none. */
  readonly randomSeed?: () => number
}

/** `command`: llama-server's path. Its own variables (LLAMA_…) are kept from it: what it does is decided here. */
export type ServedOptions = ChatOptions & Pick<ServerProcessOptions, 'command' | 'environment' | 'repacking'>

export interface EmbedderOptions {
  readonly modelPath: string
  readonly name: string
  /** Longer texts are cut here, special tokens included. */
  readonly maxTokens?: number
  /** Written before every text. */
  readonly prefix?: string
}

/** One llama.cpp for chat and embedding: its thread splitter then never lets both together use more than `threads`. */
export interface Runtime {
  /** "cpu", "cuda", "metal" or "vulkan". */
  readonly device: string
  readonly threads: number
  openChat(options: ChatOptions): Promise<OwnEngine>
  /** The same in a llama-server of its own, which this process starts, watches and ends. Only the vocabulary is loaded here. */
  openServed(options: ServedOptions): Promise<OwnEngine>
  /** Bytes that a model in this process takes with all its slots, by its header. */
  memoryBytes(options: Pick<ChatOptions, 'modelPath' | 'contextTokens' | 'slots'>): Promise<number>
  openEmbedder(options: EmbedderOptions): Promise<Required<Embedder>>
  openReader(options: Pick<EmbedderOptions, 'modelPath' | 'name'>): Promise<PairReader>
  /** Frees all that is still open. */
  dispose(): Promise<void>
}

export const DEFAULT_CONTEXT_TOKENS = 4096
export const DEFAULT_SLOTS = 4
export const DEFAULT_QUEUE_LIMIT = 64
export const DEFAULT_LORA_MEMORY_BYTES = 1024 ** 3

/**
 * OpenMP's threads spin while they wait for each other, by default for milliseconds. Beside busy neighbours that is a disaster: on two cores
 * with two other busy processes a token took 2 s; so they give way soon, which costs nothing on a quiet machine.
 */
const SHORT_SPIN = { GOMP_SPINCOUNT: '1000' }

/** Of the embedded engine that stands in for a llama-server in what that cannot do. */
const EMBEDDED_SLOTS = 1

const DISPOSE_LIMIT_MS = 5_000

export async function openRuntime({
  threads = availableParallelism(),
  gpu = 'auto',
  prebuilt,
  log,
}: RuntimeOptions): Promise<Runtime> {
  await assertLibrary()
  const llama = await start(threads, gpu, prebuilt === true || !hasAddon() ? {} : ADDON_OPTIONS, log)
  const device = llama.gpu === false ? 'cpu' : llama.gpu
  const engines: Pick<OwnEngine, 'load'>[] = []
  const noted = <E extends OwnEngine>(engine: E): E => {
    engines.push(engine)
    return engine
  }
  return {
    device,
    threads,
    openChat: async (options) => noted(await openChat(llama, device, threads, options, log)),
    openServed: async (options) => noted(await openServed(llama, device, threads, options, log)),
    memoryBytes: (options) => memoryBytes(llama, options),
    openEmbedder: async ({ modelPath, ...options }) => {
      await readHeader(llama, reckonByHeader(modelPath))
      const model = await loadModel(llama, modelPath, options.maxTokens ?? DEFAULT_EMBED_TOKENS, false)
      return openEmbedder(model, { ...options, threads, isBusy: () => engines.some((engine) => engine.load().busy > 0) })
    },
    openReader: async ({ modelPath, name }) => {
      await readHeader(llama, reckonByHeader(modelPath))
      return openReader(await loadModel(llama, modelPath, DEFAULT_EMBED_TOKENS), name, threads)
    },
    dispose: () => dispose(llama),
  }
}

async function start(
  threads: number,
  gpu: NonNullable<RuntimeOptions['gpu']>,
  cmakeOptions: Record<string, string>,
  log: Log,
): Promise<Llama> {
  try {
    return await getLlama({
      gpu,
      cmakeOptions, // our own build where there is one, else the prebuilt addon
      maxThreads: threads, // the library's own default exceeds two cores, and spinning threads without a core stall all others
      build: 'never',
      skipDownload: true,
      progressLogs: false,
      logLevel: LlamaLogLevel.warn,
      // Its warnings are about the files' metadata, and every good file here causes some.
      logger: (level, message) => log(level === 'fatal' || level === 'error' ? 'error' : 'debug', message.trim()),
    })
  } catch (cause) {
    if (!(cause instanceof NoBinaryFoundError)) throw cause
    const what = gpu === 'auto' || gpu === false ? 'this machine' : gpu
    throw new PalimpsestError(
      'engine_failed',
      `node-llama-cpp has no binary for ${what}; run npm install again, or choose another device.`,
      {
        cause,
      },
    )
  }
}

/** node-llama-cpp waits for ever once a model has failed to load, since it never lets go of that one. */
async function dispose(llama: Llama): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const enough = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, DISPOSE_LIMIT_MS)
  })
  await Promise.race([llama.dispose(), enough])
  clearTimeout(timer)
}

async function openChat(llama: Llama, device: string, threads: number, options: ChatOptions, log: Log): Promise<OwnEngine> {
  const { modelPath, name, sha256 = null, queueLimit = DEFAULT_QUEUE_LIMIT, now = () => performance.now() } = options
  const { info, family, contextTokens, affordable, wanted } = await plan(llama, device, options, log)
  const model = await loadModel(llama, modelPath, contextTokens * affordable)
  if (device !== 'cpu') log('info', `Memory: ${model.gpuLayers} of ${model.fileInsights.totalLayers} layers are on ${device}.`)
  const sequenceLoras = new SequenceLoras()
  const context = await createContext(model, modelPath, contextTokens, affordable, sequenceLoras)
  if (context.totalSequences < wanted) log('warn', `Memory is short: ${context.totalSequences} of ${wanted} slots opened.`)
  const table = info.metadata.tokenizer.ggml
  return new ChatEngine({
    model,
    context,
    info: { name, family, contextTokens, device, threads, sha256 },
    family,
    defaultSystem: defaultSystem(info.metadata.tokenizer.chat_template),
    tokenize: inPieces((text, special) => model.tokenize(text, special), table),
    bytesOf: tokenBytes(table) ?? ((token) => Buffer.from(model.detokenize([token as never]))),
    vocabularySize: table.tokens.length,
    sequenceLoras,
    loraMemoryBytes: options.loraMemoryBytes ?? DEFAULT_LORA_MEMORY_BYTES,
    saved: await savedCaches(options, context, loraFiles(info, modelPath, sha256), log),
    ...loraFiles(info, modelPath, sha256),
    leadingSpace: leadingSpace(info),
    queueLimit,
    now,
    randomSeed: options.randomSeed ?? (() => randomInt(2 ** 32 - 1)),
  })
}

async function savedCaches(
  { savedCaches: wanted }: ChatOptions,
  context: LlamaContext,
  { baseSha256 }: ReturnType<typeof loraFiles>,
  log: Log,
): Promise<SavedCaches | null> {
  if (wanted === undefined || wanted.limitBytes === 0) return null
  const of = JSON.stringify([
    await baseSha256(),
    context.contextSize,
    String(context.flashAttention),
    context.model.llama.llamaCppRelease.release,
  ])
  return new SavedCaches({ ...wanted, of, log })
}

async function openServed(llama: Llama, device: string, threads: number, options: ServedOptions, log: Log): Promise<OwnEngine> {
  const { modelPath, name, sha256 = null, queueLimit = DEFAULT_QUEUE_LIMIT, now = () => performance.now() } = options
  const { info, family, contextTokens, affordable, wanted } = await plan(llama, device, options, log)
  if (affordable < wanted) log('warn', `Memory is short: ${affordable} of ${wanted} slots opened.`)
  const kept = Object.entries(options.environment).filter(([key]) => !key.startsWith('LLAMA_'))
  const environment = { ...SHORT_SPIN, ...Object.fromEntries(kept) }
  const shape = { modelPath, slots: affordable, contextTokens, threads, gpu: device !== 'cpu' }
  const args = (loras: readonly string[]) => serverArgs({ ...shape, loras })
  const { command, repacking = 'preferred' } = options
  const server = new ServerProcess({ command, args: args([]), environment, log, now, trial: COUNTING, repacking })
  const vocabulary = await llama.loadModel({ modelPath, vocabOnly: true })
  const tokenize = (text: string, special: boolean) => vocabulary.tokenize(text, special)
  await server.start()
  return new ServedEngine({
    server,
    vocabulary: remembering({ tokens: vocabulary.tokens, tokenize: inPieces(tokenize, info.metadata.tokenizer.ggml) }),
    info: { name, family, contextTokens, device, threads, sha256 },
    family,
    defaultSystem: defaultSystem(info.metadata.tokenizer.chat_template),
    bosText: vocabulary.tokens.bosString ?? '',
    eosText: vocabulary.tokens.eosString ?? '',
    detokenize: (tokens) => vocabulary.detokenize(tokens as never[], true),
    shouldPrependBos: vocabulary.tokens.shouldPrependBosToken,
    vocabularySize: info.metadata.tokenizer.ggml.tokens.length,
    leadingSpace: leadingSpace(info),
    slots: affordable,
    args,
    loraMemoryBytes: options.loraMemoryBytes ?? DEFAULT_LORA_MEMORY_BYTES,
    ...loraFiles(info, modelPath, sha256),
    openEmbedded: () => openChat(llama, device, threads, { ...options, slots: EMBEDDED_SLOTS, queueLimit }, log),
    queueLimit,
    now,
    randomSeed: options.randomSeed ?? (() => randomInt(2 ** 32 - 1)),
    free: () => vocabulary.dispose(),
  })
}

async function memoryBytes(llama: Llama, options: Parameters<Runtime['memoryBytes']>[0]): Promise<number> {
  const { insights } = await readHeader(llama, options.modelPath)
  const slots = options.slots ?? DEFAULT_SLOTS
  const contextTokens = Math.min(
    options.contextTokens ?? DEFAULT_CONTEXT_TOKENS,
    insights.trainContextSize ?? Number.POSITIVE_INFINITY,
  )
  const { modelBytes, contextBytes } = await memoryNeed(insights, contextTokens, slots)
  return modelBytes + contextBytes(slots)
}

/** What the file's header and free memory say about how to open it. */
async function plan(llama: Llama, device: string, options: ChatOptions, log: Log) {
  const { info, insights } = await readHeader(llama, options.modelPath)
  const contextTokens = Math.min(
    options.contextTokens ?? DEFAULT_CONTEXT_TOKENS,
    insights.trainContextSize ?? Number.POSITIVE_INFINITY,
  )
  const wanted = options.slots ?? DEFAULT_SLOTS
  const affordable = device === 'cpu' ? await slotsInMemory(insights, options.modelPath, contextTokens, wanted, log) : wanted
  return { info, family: options.family ?? familyOf(info, options.modelPath), contextTokens, affordable, wanted }
}

function leadingSpace({ metadata }: GgufFileInfo): boolean {
  const table = metadata.tokenizer.ggml
  return table.model === 'llama' && table.add_space_prefix !== false
}

/** The header, once it is sure that the file is as long as the header says. */
async function readHeader(llama: Llama, path: string): Promise<{ info: GgufFileInfo; insights: GgufInsights }> {
  const size = await stat(path).then(
    (file) => file.size,
    () => null,
  )
  if (size === null) throw brokenModelFile(path, 'there is no such file')
  let info: GgufFileInfo
  try {
    info = await readGgufFileInfo(path, { sourceType: 'filesystem', logWarnings: false })
  } catch (cause) {
    throw brokenModelFile(path, `its ${size} bytes do not begin like one (${message(cause)})`, cause)
  }
  const insights = await GgufInsights.from(info, llama)
  const complete = (info.infoEndOffset ?? 0) + insights.modelSize
  if (size < complete && info.splicedParts === 1) throw brokenModelFile(path, `it breaks off after ${size} of ${complete} bytes`)
  if (info.metadata?.tokenizer?.ggml?.tokens === undefined) throw brokenModelFile(path, 'its header names no vocabulary')
  return { info, insights }
}

function familyOf(info: GgufFileInfo, path: string): FormattedFamily {
  const { general, tokenizer } = info.metadata
  const template = tokenizer.chat_template
  const family = guessFamily({
    architecture: general.architecture,
    vocabulary: tokenizer.ggml.model,
    ...(template === undefined ? {} : { template }),
  })
  if (family !== null) return family
  throw new PalimpsestError(
    'model_file',
    `Expected ${path} to speak LLaMA-2's or ChatML's chat format, but its header shows neither; name the family.`,
  )
}

/** `flash` false: llama.cpp's flash attention takes twice as long for a short text on a CPU (docs/LOG.md). */
async function loadModel(llama: Llama, modelPath: string, fitTokens: number, flash?: false): Promise<LlamaModel> {
  try {
    return await llama.loadModel({
      modelPath,
      ...(flash === false && { defaultContextFlashAttention: false }),
      ...(llama.gpu === false ? {} : { gpuLayers: { fitContext: { contextSize: fitTokens } } }),
    })
  } catch (cause) {
    if (cause instanceof InsufficientMemoryError) throw tooLittleMemory(modelPath, null, null, cause)
    throw brokenModelFile(modelPath, `llama.cpp could not load it (${message(cause)})`, cause)
  }
}

/** With as many slots as memory allows, at most `slots`. */
async function createContext(
  model: LlamaModel,
  modelPath: string,
  contextSize: number,
  slots: number,
  loras: SequenceLoras,
): Promise<LlamaContext> {
  for (let sequences = slots; ; sequences--) {
    try {
      const batching = { itemPrioritizationStrategy: loras.strategy(alonePerBatch()) }
      const context = await model.createContext({
        contextSize,
        sequences,
        batchSize: batchTokens(sequences),
        batching,
        failedCreationRemedy: false,
      })
      loras.watch(context)
      return context
    } catch (cause) {
      if (!(cause instanceof InsufficientMemoryError)) throw cause
      if (sequences > 1) continue
      await model.dispose()
      throw tooLittleMemory(modelPath, null, null, cause)
    }
  }
}

function message(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause)
}
