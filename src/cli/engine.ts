import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import type { Command } from 'commander'
import {
  BUILD_TOOLS,
  buildAddon,
  buildServer,
  hasAddon,
  hasServer,
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
    if (!force && (server ? hasServer(home) : hasAddon())) {
      console.error(`It is built already${server ? `: ${serverPath(home)}` : ''}. Add --force to build it again.`)
      return
    }
    const stop = new AbortController()
    process.once('SIGINT', () => stop.abort(new PalimpsestError('cancelled', 'Stopped; nothing was built.')))
    checkTools()
    const bar = new Bar(process.stderr, Date.now)
    const start = Date.now()
    const onProgress = (done: number) => bar.update(step(server, done, (Date.now() - start) / 1000))
    const how = { environment, onProgress, signal: stop.signal }
    try {
      const what = server ? await buildServer({ ...how, home, threads: availableParallelism() }) : await buildAddon(how)
      bar.log(
        `Built in ${Math.round((Date.now() - start) / 1000)} s${what === undefined ? '' : `: ${what}`}. The next start uses it.`,
      )
    } finally {
      bar.clear()
    }
  })
}

function step(server: boolean, done: number, seconds: number) {
  const label = `building ${server ? 'llama-server' : 'the engine'} of llama.cpp ${llamaRelease()}`
  const secondsLeft = done > 0.05 ? (seconds / done) * (1 - done) : null
  return { label, done: Math.round(done * 100), total: 100, unit: 'per cent', perSecond: 0, secondsLeft }
}

/** Throws `engine_failed` naming every program that a build needs and this machine lacks. */
function checkTools(): void {
  const lacking = BUILD_TOOLS.filter(({ names }) => !names.some(runs))
  if (lacking.length === 0) return
  const lines = lacking.map(({ names, mend }) => `  ${names.join(' or ')}: ${mend}`)
  throw new PalimpsestError('engine_failed', `A build needs what is not here:\n${lines.join('\n')}`)
}

function runs(name: string): boolean {
  try {
    execFileSync(name, ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
