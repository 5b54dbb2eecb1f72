import type { Command } from 'commander'
import { PalimpsestError } from '../../errors.ts'
import { checkEditor, installedEditor, recordedVersions, setUp, type Versions } from '../../handoff/editor/installation.ts'
import { Bar } from '../../terminal/progress-bar.ts'
import { configOf, withSettings } from '../options.ts'
import type { Check } from '../text/check-line.ts'

const ALIVE_MS = 1_000

const said = ({ torch, transformers, python }: Versions): string =>
  `torch ${torch}, transformers ${transformers}, Python ${python}`

/** `palimpsest handoff setup` */
export function addSetupCommand(handoff: Command): void {
  const command = handoff
    .command('setup')
    .description(
      'install what the parameter editor needs (torch and transformers: 1.9 GB to fetch, 5.4 GB on the disk); not needed to serve',
    )
  withSettings(command, 'home', 'python')
  command.action(async () => {
    const { home, python, environment, handoffPython } = configOf(command)
    if (handoffPython !== undefined) {
      const editor = installedEditor(home, handoffPython, environment)
      if (editor !== null) process.stdout.write(`PALIMPSEST_HANDOFF_PYTHON is set and does: ${said(await checkEditor(editor))}\n`)
      return
    }
    const stop = new AbortController()
    process.once('SIGINT', () => stop.abort(new PalimpsestError('cancelled', 'Stopped; the next setup goes on from here.')))
    const bar = new Bar(process.stderr, Date.now)
    const began = Date.now()
    let draw = () => {}
    // Fetching torch takes minutes, and says nothing until it is done.
    const alive = setInterval(() => draw(), ALIVE_MS)
    try {
      const { venv, versions, made } = await setUp({
        home,
        python,
        environment,
        signal: stop.signal,
        now: Date.now,
        onWait: (holder) => bar.log(`Waiting for ${holder}, which sets it up already.`),
        progress: (label, done, total) => {
          draw = () => bar.update({ label, done, total, unit: 'bytes', perSecond: 0, secondsLeft: null })
          draw()
        },
      })
      const how = made ? `Ready in ${Math.round((Date.now() - began) / 1_000)} s` : 'Ready since before'
      process.stdout.write(`${how}: ${said(versions)}\n  ${venv}\n`)
    } finally {
      clearInterval(alive)
      bar.clear()
    }
  })
}

/** For `palimpsest doctor`. */
export async function checkHandoff(home: string, given: string | undefined): Promise<Check> {
  const what = 'Parameter editor'
  const versions = await recordedVersions(home)
  if (given !== undefined) return { state: 'ok', what, found: `in ${given}, as PALIMPSEST_HANDOFF_PYTHON says` }
  if (versions !== null) return { state: 'ok', what, found: said(versions) }
  return {
    state: 'note',
    what,
    found: 'not installed',
    mend: 'Only hand-offs need it, serving does not: palimpsest handoff setup',
  }
}
