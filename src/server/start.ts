import { setTimeout as sleep } from 'node:timers/promises'
import { createApp, openLasting } from '../app.ts'
import type { Config } from '../config.ts'
import type { Engine } from '../engine/engine.ts'
import type { ModelPool } from '../engine/model-pool.ts'
import type { Faster } from '../engine/own-model.ts'
import { openScripted } from '../engine/scripted.ts'
import { PalimpsestError } from '../errors.ts'
import type { Gateway, Limits } from '../gateway.ts'
import type { Handoffs } from '../handoff/queue.ts'
import type { Logger } from '../logger.ts'
import { SchemaWatch } from '../storage/schema-watch.ts'
import { openAccess } from './access.ts'
import { openDatabase } from './database.ts'
import { openHandoffs } from './handoffs.ts'
import { type Listener, listen } from './listen.ts'
import { choose, openWeights } from './models.ts'
import { now, openParts, type Parts, VERSION } from './parts.ts'
import { type Differences, reloaderOf } from './reload.ts'
import { SHARED_SCHEMAS } from './schemas.ts'
import { openTelemetry } from './telemetry.ts'

export interface StartOptions {
  readonly config: Config<Limits>
  readonly log: Logger
  /** `none`: the commands on edits, which ask no model. */
  readonly model: 'configured' | 'none'
  readonly host: string
  /** 0: a free one. */
  readonly port: number
  readonly watch: boolean
  /** The one key that is let in; absent: as configured. */
  readonly key?: string
  /** Aborting it has `/readyz` answer 503, and requests are still taken. */
  readonly draining?: AbortSignal
  /** Aborting it refuses new work; `close` does the rest. */
  readonly closing: AbortSignal
  /** Called once where a newer gateway has changed the shared tables beyond what this one can read: it must stop. */
  readonly outdated?: (why: PalimpsestError) => void
  /** Opens the models; absent: those of the configuration. */
  readonly weightsOf?: typeof openWeights
}

/** A gateway that listens. */
export interface Running extends Pick<Parts, 'memory' | 'folder'> {
  readonly url: string
  readonly gateway: Gateway
  readonly handoffs: Handoffs
  readonly faster: Faster
  /** Takes over what it can of another configuration, and reads the files of edits, templates and experiments again. */
  reload(config: Config<Limits>): Promise<Differences>
  /** Lets running requests end for `graceMs` and tells the rest, saves the indexes, frees models, port and data folder. */
  close(graceMs: number): Promise<void>
}

/** After the time for running requests: for the last event of a stream to be sent. */
const FAREWELL_MS = 2_000

/** Starts a gateway. What can be wrong with port, templates and data folder is found before any model is fetched or loaded. */
export async function startGateway({ config: given, log, model, host, port, watch, ...more }: StartOptions): Promise<Running> {
  const { closing, draining, outdated, key, weightsOf = openWeights } = more
  // One object, that every part holds: `reload` changes it.
  const config = { ...given, limits: { ...given.limits } }
  const opened: ((graceMs: number) => Promise<void>)[] = []
  const close = async (graceMs: number) => {
    for (const undo of opened.splice(0).reverse()) await undo(graceMs)
  }
  try {
    const choice = model === 'none' ? null : await choose(config)
    const database = openDatabase(config, (message) => log.warn({}, message))
    opened.push(async () => database?.close())
    const access = await openAccess(config, { host, token: key, ...(database && { database }), now, log })
    opened.push(() => access.close())
    const listener = await listen(host, port)
    const listening = opened.push((graceMs) => listener.close(graceMs)) - 1
    const { telemetry, close: closeTelemetry } = await openTelemetry(config, VERSION)
    opened.push(closeTelemetry)
    const weights = weightsOf(config, choice, log, closing)
    opened.push(() => weights.close())
    const parts = await openParts({
      config,
      embedder: await weights.embedder(),
      reader: weights.reader(),
      log,
      watch,
      draining,
      closing,
      telemetry,
      database,
      access,
    })
    opened.push(() => parts.close())
    const engine = choice === null ? withoutModel() : await weights.engine()
    const models = choice === null ? undefined : await weights.models(engine)
    // Ahead of all else.
    opened[listening] = async () => {}
    opened.push((graceMs) => endRequests(graceMs, listener, engine, models))
    closing.throwIfAborted()
    const gateway = await parts.gateway(engine, models)
    const handoffs = await openHandoffs(config, gateway)
    opened.push(() => handoffs.close())
    if (database !== undefined && outdated !== undefined) {
      const schemas = new SchemaWatch({ database, schemas: SHARED_SCHEMAS, outdated })
      opened.push(() => schemas.close())
    }
    const lasting = openLasting(gateway)
    const serve = () => listener.serve(createApp(gateway, handoffs, lasting))
    serve()
    const { memory, folder } = parts
    // Not before: the chat model would take twice as long to load.
    if (choice !== null && memory.tenants().length > 0) weights.warm()
    if (model === 'configured') memory.setUrl(listener.url)
    const reload = reloaderOf({ config: given, gateway, weights, folder, serve })
    return { url: listener.url, gateway, handoffs, faster: await weights.faster(), memory, folder, reload, close }
  } catch (error) {
    await close(0)
    throw error
  }
}

/** Requests end first, also those that ask the engine several times or wait for it; what is left after that time ends with the engine. */
async function endRequests(graceMs: number, listener: Listener, engine: Engine, models: ModelPool | undefined): Promise<void> {
  const until = performance.now() + graceMs
  const ended = listener.close(graceMs + FAREWELL_MS)
  await Promise.race([ended, sleep(graceMs, undefined, { ref: false })])
  const leftMs = Math.max(0, until - performance.now())
  await Promise.all([engine.close(leftMs), models?.close(leftMs)])
  await ended
}

function withoutModel(): Engine {
  const refuse = (): never => {
    throw new PalimpsestError(
      'engine_failed',
      'This gateway was started for its edits only and has no model. Start one with: palimpsest serve',
    )
  }
  return openScripted({ name: 'none', reply: refuse })
}
