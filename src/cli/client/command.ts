import type { Command } from 'commander'
import type { Config, SettingName } from '../../config.ts'
import type { Limits } from '../../gateway.ts'
import { configOf, withSettings } from '../options.ts'
import { type Client, connect } from './client.ts'
import { bootWithModel, bootWithoutModel } from './local.ts'

/** What was typed on any command that a gateway answers, beside the settings. */
export interface Typed {
  readonly tenant?: string
  readonly json?: boolean
}

interface Wish {
  readonly usage: string
  readonly description: string
  /** What of the tenant's is meant. */
  readonly of: string
  /** Settings that it takes where it starts a model. */
  readonly modelSettings?: readonly SettingName[]
  /** What answers where no gateway runs; default: one without a model. */
  readonly boot?: typeof bootWithModel
}

/** A command that finds the gateway that runs, or starts one inside the command; runs, prints what `run` gives, and lets go. */
export function gatewayCommand<O extends Typed>(
  parent: Command,
  { usage, description, of, modelSettings = [], boot = bootWithoutModel }: Wish,
  run: (client: Client, args: readonly string[], options: O, config: Config<Limits>) => Promise<string>,
): Command {
  const command = parent
    .command(usage)
    .description(description)
    .option('--tenant <name>', `tenant whose ${of} are meant`)
    .option('--json', 'print JSON')
  withSettings(command, 'url', 'port', 'dataDir', 'database', 'editsDir', 'logLevel')
  if (boot === bootWithModel) withSettings(command, ...modelSettings)
  return command.action(async () => {
    const options = command.opts<O>()
    const config: Config<Limits> = configOf(command)
    const client = await connect(config, options.tenant === undefined ? {} : { tenant: options.tenant }, () => boot(config))
    try {
      process.stdout.write(`${await run(client, command.args, options, config)}\n`)
    } finally {
      await client.close()
    }
  })
}
