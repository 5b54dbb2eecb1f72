import type { Command } from 'commander'
import type { Client } from '../client/client.ts'
import { gatewayCommand, type Typed } from '../client/command.ts'
import { type bootWithModel, bootWithoutModel } from '../client/local.ts'

export type Action<O extends Typed> = (
  client: Client,
  args: readonly string[],
  options: O,
) => Promise<{ readonly text: string; readonly value: unknown }>

/** A command on hand-offs: `action` gives its words and what `--json` prints. */
export function add<O extends Typed>(
  parent: Command,
  usage: string,
  description: string,
  action: Action<O>,
  boot: typeof bootWithModel = bootWithoutModel,
): Command {
  const wish = { usage, description, of: 'edits', modelSettings: MODEL_SETTINGS, boot }
  return gatewayCommand<O>(parent, wish, async (client, args, options) => {
    const { text, value } = await action(client, args, options)
    return options.json ? JSON.stringify(value, null, 2) : text
  })
}

const MODEL_SETTINGS = ['model', 'home', 'threads', 'gpu', 'embedder', 'engine', 'contextTokens'] as const

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
