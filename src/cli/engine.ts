import { availableParallelism } from 'node:os'
import type { Command } from 'commander'
import type { Config } from '../config.ts'
import {
  buildAddon,
  buildServer,
  buildTurn,
  hasAddon,
  hasServer,
  lackingTools,
  llamaRelease,
  serverPath,
} from '../engine/llama-server/build.ts'
import { PalimpsestError } from '../errors.ts'
import { Bar } from '../terminal/progress-bar.ts'
import { configOf, withSettings } from './options.ts'

/** `palimpsest engine build [--server]` */
export function addEngineCommand(program: Command): void {
  const engine = program.command('engine').description('the model engine on this machine')
  const command = engine
    .command('build')
    .description('build a faster engine from the source that is already here (about 5 minutes on 2 cores, nothing is downloaded)')
    .option('--server', 'build llama-server, which then runs as a child process, instead of the engine inside the gateway')
    .option('--force', 'build it again though it is there')
  withSettings(command, 'home')
  command.action(async () => {
    const { home, environment } = configOf(command)
    const { server = false, force = false } = command.opts<{ server?: true; force?: true }>()
    const stop = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM'])
      process.once(signal, () => stop.abort(new PalimpsestError('cancelled', 'Stopped; nothing was built.')))
    const wait = (holder: string) => console.error(`Waiting for the build of ${holder}.`)
    const leave = server ? await buildTurn(home, stop.signal, wait) : () => {}
    const bar = new Bar(process.stderr, Date.now)
    const start = Date.now()
    const onProgress = (done: number) => bar.update(step(server, done, (Date.now() - start) / 1000))
    const how = { environment, onProgress, signal: stop.signal }
    try {
      if (!force && (server ? hasServer(home) : hasAddon())) {
        console.error(`It is built already${server ? `: ${serverPath(home)}` : ''}. Add --force to build it again.`)
        return
      }
      await checkTools(environment)
      const what = server ? await buildServer({ ...how, home, threads: availableParallelism() }) : await buildAddon(how)
      bar.log(
        `Built in ${Math.round((Date.now() - start) / 1000)} s${what === undefined ? '' : `: ${what}`}. The next start uses it.`,
      )
    } finally {
      bar.clear()
      leave()
    }
  })
}

function step(server: boolean, done: number, seconds: number) {
  const label = `building ${server ? 'llama-server' : 'the engine'} of llama.cpp ${llamaRelease()}`
  const secondsLeft = done > 0.05 ? (seconds / done) * (1 - done) : null
  return { label, done: Math.round(done * 100), total: 100, unit: 'per cent', perSecond: 0, secondsLeft }
}

/** Throws `engine_failed` naming every program that a build needs and this machine lacks. */
async function checkTools(environment: Config['environment']): Promise<void> {
  const lacking = await lackingTools(environment)
  if (lacking.length === 0) return
  const lines = lacking.map(({ names, mend }) => `  ${names.join(' or ')}: ${mend}`)
  throw new PalimpsestError('engine_failed', `A build needs what is not here:\n${lines.join('\n')}`)
}
