import { type Command, Option } from 'commander'
import { type Config, flagOf, readConfig, type SettingName } from '../config.ts'
import { DEFAULT_LIMITS, type Limits } from '../gateway.ts'

/** Adds the flags of these settings to a command; those without one are left to environment and file. */
export function withSettings(command: Command, ...names: readonly SettingName[]): Command {
  for (const name of names) {
    const flag = flagOf(name)
    // Defaults and checks are readConfig's: it alone knows environment and file.
    if (flag !== null) command.addOption(new Option(flag.flags, flag.help))
  }
  return command
}

/** The configuration with the flags that were typed on this command. */
export function configOf(command: Command): Config<Limits> {
  const typed = Object.entries(command.opts()).filter(([name]) => command.getOptionValueSource(name) === 'cli')
  return readConfig<Limits>({ flags: Object.fromEntries(typed), limits: DEFAULT_LIMITS })
}
