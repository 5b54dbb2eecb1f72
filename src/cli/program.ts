import { Command } from 'commander'
import { VERSION } from '../server/parts.ts'
import { addChatCommand } from './chat/chat.ts'
import { addDoctorCommand } from './doctor.ts'
import { addEditsCommand } from './edits.ts'
import { addEngineCommand } from './engine.ts'
import { addEvalCommand } from './eval/eval.ts'
import { addExperimentCommands } from './experiments.ts'
import { addHandoffCommand } from './handoff/handoff.ts'
import { addImportDataCommand } from './import-data.ts'
import { addKeysCommand } from './keys.ts'
import { addServeCommand } from './serve.ts'
import { addSnapshotCommand } from './snapshot.ts'

/** Every command, none of them run. */
export function palimpsestProgram(): Command {
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
  addImportDataCommand(program)
  addEngineCommand(program)
  addDoctorCommand(program)
  return program
}
