import { availableParallelism } from 'node:os'
import { PalimpsestError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { ChatOptions, Runtime } from './embedded/runtime.ts'
import type { Engine, OwnEngine } from './engine.ts'
import { buildInBackground, buildLog } from './llama-server/background-build.ts'
import { hasServer, lackingTools, noteFault, recentFault, serverPath } from './llama-server/build.ts'
import { ReplaceableEngine } from './replaceable.ts'
import { orAborted } from './scheduling/or-aborted.ts'

/** Whether a faster engine than the one that serves is to be had here. */
export type Faster = 'no' | 'being built' | 'by hand' | 'failed lately'

export interface OwnModelOptions {
  readonly runtime: Pick<Runtime, 'device' | 'openChat' | 'openServed' | 'memoryBytes'>
  readonly config: {
    readonly engine: 'auto' | 'embedded' | 'server'
    /** One is built where there is none. */
    readonly build: boolean
    /** The user's cache folder. */
    readonly home: string
    readonly environment: Readonly<Record<string, string | undefined>>
  }
  readonly options: ChatOptions
  readonly log: Logger
  /** Aborting it ends a build. */
  readonly signal: AbortSignal
  /** What builds llama-server; absent: our own. */
  readonly builder?: readonly string[]
  /** Memory that a model may take now. */
  readonly freeBytes: () => number
}

/** A model file, run on this machine. */
export interface OwnModel {
  readonly engine: Engine
  readonly faster: Faster
  /** Ends a build that is under way, and resolves once it has ended. */
  end(): Promise<void>
}

/** A compiler of C++ takes so much at its peak. */
const COMPILER_BYTES = 1e9

/**
 * In a llama-server where one is built, and with `--engine server` anyway. The prebuilt addon runs on a GPU, which our own server is not
 * built for, so `auto` leaves a GPU to it. Where none is built, `auto` serves at once inside the gateway, has one built, and changes over.
 */
export async function openOwnModel(own: OwnModelOptions): Promise<OwnModel> {
  const { runtime, config, options, log } = own
  const { home, environment } = config
  const embedded = async (faster: Faster) => ({ engine: await runtime.openChat(options), faster, end: async () => {} })
  if (config.engine === 'embedded' || (config.engine === 'auto' && (process.platform === 'win32' || runtime.device !== 'cpu')))
    return embedded('no')
  if (config.engine === 'auto' && recentFault(home, Date.now()) !== null) return embedded('failed lately')
  if (hasServer(home) && process.platform !== 'win32') {
    try {
      return { engine: await openServed(own), faster: 'no', end: async () => {} }
    } catch (error) {
      if (config.engine === 'server' || (error instanceof PalimpsestError && error.code === 'model_file')) throw error
      log.warn({}, `llama-server does not start; the model runs inside the gateway instead: ${(error as Error).message}`)
      return embedded('no')
    }
  }
  if (config.engine === 'server')
    throw new PalimpsestError(
      'engine_failed',
      'Expected a llama-server for --engine server, but none is built for this machine; run: palimpsest engine build --server',
    )
  if (!config.build || (await lackingTools(environment)).length > 0) return embedded('by hand')
  const engine = new ReplaceableEngine(await runtime.openChat(options))
  const stop = new AbortController()
  const signal = AbortSignal.any([own.signal, stop.signal])
  const ended = changeOver(engine, { ...own, signal }).catch((error: unknown) => {
    if (!signal.aborted) log.warn({ err: error }, 'the faster engine could not be had; the model goes on inside the gateway')
  })
  const end = () => {
    stop.abort(new Error('the gateway stops'))
    return ended
  }
  return { engine, faster: 'being built', end }
}

/** Asked for by name, it serves as well as it can; else the model inside the gateway serves where that is faster. */
function openServed({ runtime, config: { engine, home, environment }, options }: OwnModelOptions): Promise<OwnEngine> {
  const repacking = engine === 'server' ? 'preferred' : 'required'
  return runtime.openServed({ ...options, command: serverPath(home), environment, repacking })
}

/** Has llama-server built, opens it beside the engine that serves, and exchanges the two. Throws the signal's reason. */
async function changeOver(engine: ReplaceableEngine, own: OwnModelOptions): Promise<void> {
  const { runtime, config, options, log, signal, freeBytes } = own
  const { home, environment } = config
  const where = { log: buildLog(home) }
  const why = await buildInBackground({
    ...{ home, environment, signal, ...(own.builder && { builder: own.builder }) },
    jobs: Math.max(1, Math.min(availableParallelism(), Math.floor(freeBytes() / COMPILER_BYTES))),
    isBusy: () => engine.load().busy > 0,
    onWait: (holder) => log.info({}, `the faster engine is being built by ${holder}: waiting for it`),
  })
  if (why !== null) {
    const hint = `the model goes on inside the gateway; by hand: palimpsest engine build --server; see ${where.log}`
    return log.warn(where, `the faster engine could not be built (${why}); ${hint}`)
  }
  // Neither lets go of its weights before the other has its own.
  const [needed, free] = [await runtime.memoryBytes(options), freeBytes()]
  if (needed > free) {
    const short = `beside the model that serves it needs ${gigabytes(needed)}, and ${gigabytes(free)} are free`
    return log.warn({}, `the faster engine is built, and serves from the next start on: ${short}`)
  }
  try {
    await orAborted(exchange(engine, own), signal)
    log.info({}, 'the model runs in llama-server from now on')
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof PalimpsestError && error.code === 'shutting_down') return
    await noteFault(home, { at: Date.now(), why: error instanceof Error ? error.message : String(error) })
    log.warn({ err: error }, 'the faster engine is built and does not serve; the model goes on inside the gateway')
  }
}

/** A gateway that stops does not wait for a server that loads its model: that ends with the process, or here. */
async function exchange(engine: ReplaceableEngine, own: OwnModelOptions): Promise<void> {
  const next = await openServed(own)
  try {
    own.signal.throwIfAborted()
    await engine.replace(next)
  } catch (error) {
    await next.close(0)
    throw error
  }
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`
}
