import type { Command } from 'commander'
import type { Config } from '../../config.ts'
import type { Limits } from '../../gateway.ts'
import { type Client, connect } from '../client/client.ts'
import { bootWithModel, bootWithoutModel } from '../client/local.ts'
import { configOf, withSettings } from '../options.ts'

export interface Typed {
  readonly tenant?: string
  readonly json?: boolean
}

export type Action<O extends Typed> = (
  client: Client,
  args: readonly string[],
  options: O,
) => Promise<{ readonly text: string; readonly value: unknown }>

export type Add = typeof add

/** A command that a gateway answers: one that runs, or one inside the command. */
export function add<O extends Typed>(
  parent: Command,
  usage: string,
  description: string,
  action: Action<O>,
  boot: typeof bootWithModel = bootWithoutModel,
): Command {
  const command = parent
    .command(usage)
    .description(description)
    .option('--tenant <name>', 'tenant whose edits are meant')
    .option('--json', 'print JSON')
  withSettings(command, 'url', 'port', 'dataDir', 'editsDir', 'logLevel')
  if (boot === bootWithModel) withSettings(command, 'model', 'home', 'threads', 'gpu', 'embedder', 'engine', 'contextTokens')
  return command.action(async () => {
    const options = command.opts<O>()
    const config: Config<Limits> = configOf(command)
    const client = await connect(config, options.tenant === undefined ? {} : { tenant: options.tenant }, () => boot(config))
    try {
      const { text, value } = await action(client, command.args, options)
      process.stdout.write(`${options.json ? JSON.stringify(value, null, 2) : text}\n`)
    } finally {
      await client.close()
    }
  })
}

/** `tag=T,batch=B`, or ids. */
export function editsQuery(typed: string | undefined): Record<string, string> | string[] | undefined {
  if (typed === undefined || typed === 'all') return undefined
  const parts = typed
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean)
  if (parts.every((part) => !/^(?:tag|batch|subject|q)=/.test(part))) return parts
  return Object.fromEntries(parts.map((part) => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)]))
}
