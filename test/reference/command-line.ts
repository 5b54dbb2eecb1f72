import type { Command } from 'commander'
import { palimpsestProgram } from '../../src/cli/program.ts'
import { code, page, sentence, table } from './markdown.ts'

/** Every command, as commander describes it. */
export function commandLinePage(): string {
  const program = palimpsestProgram()
  return page(
    'Command line',
    'the commands themselves',
    sentence(program.description()),
    '`palimpsest COMMAND --help` prints the same. Options that are settings can be given in the environment or a file too: [configuration](configuration.md).',
    ...described(program, program.name()),
  )
}

function described(parent: Command, path: string): string[] {
  const all = [...parent.commands].filter((command) => command.name() !== 'help')
  return all.flatMap((command) => {
    const name = `${path} ${command.name()}`
    return command.commands.length > 0
      ? [`## ${name}`, sentence(command.description()), ...described(command, name)]
      : [`## ${name}`, sentence(command.description()), code(`${name} ${command.usage()}`), ...optionsOf(command)]
  })
}

function optionsOf(command: Command): string[] {
  const { options, registeredArguments: named } = command
  const given = named.filter(({ description }) => description !== '').map((one) => [code(one.name()), one.description, ''])
  const rows = options.map(({ flags, description, defaultValue, mandatory }) => [
    code(flags),
    description,
    mandatory ? 'required' : ['', undefined, false].includes(defaultValue) ? '' : code(String(defaultValue)),
  ])
  return given.length + rows.length === 0 ? [] : [table(['option', '', 'default'], [...given, ...rows])]
}
