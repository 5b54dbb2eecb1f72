import type { Command } from 'commander'
import type { Config } from '../config.ts'
import { hasServer } from '../engine/llama-server/build.ts'
import { PalimpsestError } from '../errors.ts'
import type { Limits } from '../gateway.ts'
import { openLog } from '../server/console-log.ts'
import { VERSION } from '../server/parts.ts'
import { type Running, startGateway } from '../server/start.ts'
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
    'graceMs',
    'logLevel',
  )
  command.action(async () => {
    process.exitCode = await serve(configOf(command))
    // A runtime thread or a watcher that lingers must not keep a stopped gateway alive.
    process.exit()
  })
}

async function serve(config: Config<Limits>): Promise<number> {
  const log = openLog(config.logLevel, [config.upstreamKey, config.hubToken, config.key])
  const closing = new AbortController()
  const told = new Promise<void>((resolve) => closing.signal.addEventListener('abort', () => resolve()))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (closing.signal.aborted) process.exit(INTERRUPTED)
      closing.abort(new Error('stopped'))
    })
  }
  try {
    const { host, port, watch } = config
    const outdated = (why: PalimpsestError) => {
      log.error({ err: why }, 'a newer gateway has changed the tables, so this one stops')
      closing.abort(why)
    }
    const running = await startGateway({
      ...{ config, log, model: 'configured', host, port, watch, outdated },
      closing: closing.signal,
    })
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

function describe({ url, gateway, memory, folder }: Running, config: Config<Limits>): string {
  const live = memory.list({ tenant: TENANT, state: 'live', limit: SAMPLE_EDITS })
  return banner({
    version: VERSION,
    url,
    model: gateway.engine.model,
    slots: gateway.engine.load().slots,
    faster: gateway.engine.model.device === 'cpu' && config.engine === 'auto' && !hasServer(config.home),
    dataDir: config.dataDir,
    editsDir: config.editsDir,
    liveEdits: live.total,
    files: folder.counts(),
    problems: folder.problems().length,
    sample: sampleQuestion(live.edits),
  })
}
