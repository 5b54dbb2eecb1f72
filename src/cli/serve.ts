import { setFlagsFromString } from 'node:v8'
import type { Command } from 'commander'
import type { Config } from '../config.ts'
import { buildLog } from '../engine/llama-server/background-build.ts'
import { PalimpsestError } from '../errors.ts'
import type { Limits } from '../gateway.ts'
import { openLog } from '../server/console-log.ts'
import { VERSION } from '../server/parts.ts'
import { type Running, type StartOptions, startGateway } from '../server/start.ts'
import { configOf, withSettings } from './options.ts'
import { banner, sampleQuestion } from './text/banner.ts'

const FAILED = 1
/** Exit code of a process ended by SIGINT, as shells have it. */
const INTERRUPTED = 130
const TENANT = 'default'
/** Edits looked through for one to show. */
const SAMPLE_EDITS = 1_000

/** `palimpsest serve`, also without its name: the gateway, until it is told to stop. */
export function addServeCommand(program: Command): void {
  const command = program
    .command('serve', { isDefault: true })
    .description('serve a model and its edits over HTTP (the default command)')
  withSettings(
    command,
    'model',
    'models',
    'modelMemoryBytes',
    'savedCacheBytes',
    'host',
    'port',
    'editsDir',
    'dataDir',
    'database',
    'home',
    'templatesDir',
    'reportsDir',
    'embedder',
    'engine',
    'build',
    'upstreamModel',
    'upstreams',
    'upstreamConnectMs',
    'upstreamFirstByteMs',
    'upstreamBetweenBytesMs',
    'upstreamHealthMs',
    'gpu',
    'threads',
  )
  withSettings(
    command,
    'contextTokens',
    'slots',
    'queueLimit',
    'template',
    'threshold',
    'hosts',
    'allowOrigin',
    'auth',
    'watch',
    'drainMs',
    'graceMs',
    'logLevel',
  )
  command.action(async () => {
    process.exitCode = await serve(() => configOf(command))
    // A runtime thread or a watcher that lingers must not keep a stopped gateway alive.
    process.exit()
  })
}

/**
 * Serves until SIGINT or SIGTERM; SIGHUP has it ask `read` for the configuration again. Returns the exit code. `weightsOf` opens the models;
 * absent: those of the configuration.
 */
export async function serve(read: () => Config<Limits>, weightsOf?: StartOptions['weightsOf']): Promise<number> {
  // V8 takes to making a request's objects in the old generation. Once dead there, they keep the next requests' alive until a full collection,
  // and each minor one copies them for some milliseconds (docs/LOG.md, 2026-11-30).
  setFlagsFromString('--no-allocation-site-pretenuring')
  let config = read()
  const secrets = secretsOf(config)
  const log = openLog(config.logLevel, secrets)
  const [draining, closing] = [new AbortController(), new AbortController()]
  let running: Running | undefined
  const told = new Promise<void>((resolve) => closing.signal.addEventListener('abort', () => resolve()))
  const stop = (afterMs: number) => {
    if (draining.signal.aborted) process.exit(INTERRUPTED)
    draining.abort()
    setTimeout(() => closing.abort(new Error('stopped')), afterMs)
  }
  process.on('SIGINT', () => stop(0))
  process.on('SIGTERM', () => stop(running === undefined ? 0 : config.drainMs))
  let reloading = Promise.resolve()
  process.on('SIGHUP', () => {
    reloading = reloading.then(async () => {
      if (running === undefined) return
      config = (await reload(running, read, log)) ?? config
      secrets.push(...secretsOf(config))
    })
  })
  try {
    const { host, port, watch } = config
    const outdated = (why: PalimpsestError) => {
      log.error({ err: why }, 'a newer gateway has changed the tables, so this one stops')
      draining.abort()
      closing.abort(why)
    }
    const signals = { draining: draining.signal, closing: closing.signal, outdated }
    const opened = { config, log, host, port, watch, ...signals, ...(weightsOf && { weightsOf }) }
    running = await startGateway({ ...opened, model: 'configured' })
    process.stdout.write(`${describe(running, config)}\n`)
    running.handoffs.start()
    await told
    process.stderr.write('Stopping: running requests may end. Once more stops at once.\n')
    await running.close(config.graceMs)
    const why: unknown = closing.signal.reason
    if (!(why instanceof PalimpsestError)) return 0
    process.stderr.write(`${why.message}\n`)
    return FAILED
  } catch (error) {
    if (closing.signal.aborted) return INTERRUPTED
    throw error
  }
}

const secretsOf = ({ upstreamKey, hubToken, key, upstreams }: Config<Limits>): (string | undefined)[] => [
  ...[upstreamKey, hubToken, key],
  ...upstreams.map((server) => server.key),
]

/** The configuration that holds from now on; undefined: the one before, and the log says why. */
async function reload(
  running: Running,
  read: () => Config<Limits>,
  log: ReturnType<typeof openLog>,
): Promise<Config<Limits> | undefined> {
  try {
    const config = read()
    const { taken, left } = await running.reload(config)
    log.level = config.logLevel
    log.info({ taken }, `configuration read again; changed: ${taken.join(', ') || 'nothing'}`)
    if (left.length > 0) log.warn({ left }, `changed in the configuration, and in force after a restart only: ${left.join(', ')}`)
    return config
  } catch (error) {
    log.error({ err: error }, 'the configuration could not be read again; the one before stays')
    return undefined
  }
}

function describe({ url, gateway, memory, folder, faster }: Running, config: Config<Limits>): string {
  const live = memory.list({ tenant: TENANT, state: 'live', limit: SAMPLE_EDITS })
  return banner({
    version: VERSION,
    url,
    model: gateway.engine.model,
    slots: gateway.engine.load().slots,
    faster,
    buildLog: buildLog(config.home),
    dataDir: config.dataDir,
    editsDir: config.editsDir,
    liveEdits: live.total,
    files: folder.counts(),
    problems: folder.problems().length,
    sample: sampleQuestion(live.edits),
  })
}
