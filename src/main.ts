/** The command line. `bin/palimpsest.mjs` starts it. */
import { Command, CommanderError } from 'commander'
import { addChatCommand } from './cli/chat/chat.ts'
import { addDoctorCommand } from './cli/doctor.ts'
import { addEditsCommand } from './cli/edits.ts'
import { addEngineCommand } from './cli/engine.ts'
import { addEvalCommand } from './cli/eval/eval.ts'
import { addExperimentCommands } from './cli/experiments.ts'
import { addHandoffCommand } from './cli/handoff/handoff.ts'
import { addKeysCommand } from './cli/keys.ts'
import { addServeCommand } from './cli/serve.ts'
import { addSnapshotCommand } from './cli/snapshot.ts'
import { problemText } from './cli/text/edits-text.ts'
import { PalimpsestError } from './errors.ts'
import { VERSION } from './server/parts.ts'
import { printable } from './terminal/table.ts'

const program = new Command('palimpsest')
  .description('An OpenAI-compatible gateway that changes what a language model knows, now, without training.')
  .version(VERSION)
  .showHelpAfterError('(--help lists commands and options)')
  .exitOverride()
addServeCommand(program)
addEditsCommand(program)
addChatCommand(program)
addEvalCommand(program)
addExperimentCommands(program)
addKeysCommand(program)
addHandoffCommand(program)
addSnapshotCommand(program)
addEngineCommand(program)
addDoctorCommand(program)

try {
  await program.parseAsync(process.argv)
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
