/** The command line. `bin/palimpsest.mjs` starts it. */
import { CommanderError } from 'commander'
import { palimpsestProgram } from './cli/program.ts'
import { problemText } from './cli/text/edits-text.ts'
import { PalimpsestError } from './errors.ts'
import { printable } from './terminal/table.ts'

try {
  await palimpsestProgram().parseAsync(process.argv)
} catch (error) {
  // Commander has printed what it found; help and version are no fault.
  if (!(error instanceof CommanderError)) process.stderr.write(`${printable(describe(error))}\n`)
  process.exitCode = error instanceof CommanderError ? error.exitCode : 1
}
// A runtime thread that lingers must not keep the command from ending; the data folder is closed by now.
process.exit()

/** Problems one a line, then the sentence. What is not ours comes with its stack: it is a fault to report. */
function describe(error: unknown): string {
  if (!(error instanceof PalimpsestError)) return error instanceof Error ? (error.stack ?? error.message) : String(error)
  const whole = /^.*?nothing of it was taken\./s.exec(error.message)?.[0]
  // Where one fault is the whole message, listing it would say it twice.
  return whole === undefined ? error.message : [...error.problems.map(problemText), whole].join('\n')
}
