import type { Command } from 'commander'
import type { Config } from '../config.ts'
import { FORMATS } from '../edit/formats.ts'
import { PalimpsestError } from '../errors.ts'
import type { Limits } from '../gateway.ts'
import { count } from '../terminal/table.ts'
import { addCheckCommand } from './check/check.ts'
import { type Client, query } from './client/client.ts'
import { gatewayCommand, type Typed } from './client/command.ts'
import { importFiles } from './import.ts'
import { batchTable, editHistory, editTable, explanationText } from './text/edits-text.ts'
import type { WireBatch, WireEdit, WireExplanation, WireHistory, WirePage } from './wire.ts'

type Action<O extends Typed> = (client: Client, args: readonly string[], options: O, config: Config<Limits>) => Promise<string>

/** `palimpsest edits …`: everything the HTTP interface does with edits, against the running gateway or, where none runs, without one. */
export function addEditsCommand(program: Command): void {
  const edits = program.command('edits').description('land, find and withdraw edits')

  add(edits, 'import <files...>', 'land the edits of files; - reads standard input', importFiles)
    .option('--format <name>', `format of the records: auto, ${FORMATS.join(', ')}`, 'auto')
    .option('--dry-run', 'say what would change, and change nothing')
    .option('--batch <id>', 'id of the batch; default: made from the content')
    .option('--tags <names>', 'tags for every edit, with commas between')
  addCheckCommand(edits)
  filtered(add(edits, 'list', 'list edits, latest first', (client, _args, options: Filters) => list(client, options)))
  filtered(
    add(edits, 'search <text...>', 'list the edits in which every word occurs', (client, words, options: Filters) =>
      list(client, { ...options, q: words.join(' ') }),
    ),
  )
  add(edits, 'show <id>', 'one edit in full, and its history', show)
  add(edits, 'withdraw [ids...]', 'take edits back; they stay in the log', withdraw).option(
    '--batch <id>',
    'withdraw a whole batch',
  )
  add(edits, 'restore <ids...>', 'make withdrawn edits live again', restore)
  add(edits, 'explain <question...>', 'which edits a question would get, why, and the exact prompt', explain)
    .option('--as-of <date>', 'as of this moment, ISO 8601')
    .option('--tags <names>', 'only edits with one of these tags, with commas between')
  add(edits, 'batches', 'list batches, and how many of their edits are still live', batches)
    .option('--cursor <cursor>', 'the next page')
    .option('--limit <number>', 'batches on a page')
}

interface Filters extends Typed {
  readonly state?: string
  readonly tag?: string
  readonly model?: string
  readonly batch?: string
  readonly subject?: string
  readonly q?: string
  readonly limit?: string
  readonly cursor?: string
}

function filtered(command: Command): Command {
  return command
    .option('--state <state>', 'live, superseded, withdrawn, not_yet_valid or expired')
    .option('--tag <tag>', 'only edits with this tag')
    .option('--model <name>', 'only edits that are for the model of this name')
    .option('--batch <id>', 'only edits of this batch')
    .option('--subject <name>', 'only edits of this subject')
    .option('--limit <number>', 'edits on a page')
    .option('--cursor <cursor>', 'the next page')
}

/** A subcommand that finds the gateway, runs, prints, and lets go. */
function add<O extends Typed>(parent: Command, usage: string, description: string, action: Action<O>): Command {
  return gatewayCommand(parent, { usage, description, of: 'edits' }, action)
}

const asJson = (value: unknown): string => JSON.stringify(value, null, 2)

async function list(client: Client, { json, ...filters }: Filters): Promise<string> {
  const { state, tag, model, batch, subject, q, limit, cursor } = filters
  const asked = query({ state, tag, model, batch, subject, q, limit, cursor })
  const page = await client.json<WirePage<WireEdit>>('GET', `/v1/edits${asked}`)
  return json ? asJson(page) : editTable(page)
}

async function show(client: Client, [id = '']: readonly string[], { json }: Typed): Promise<string> {
  const edit = await client.json<WireHistory>('GET', `/v1/edits/${encodeURIComponent(id)}`)
  return json ? asJson(edit) : editHistory(edit)
}

async function withdraw(client: Client, ids: readonly string[], { batch, json }: Typed & { batch?: string }): Promise<string> {
  if ((batch === undefined) === (ids.length === 0))
    throw new PalimpsestError('missing_field', 'Expected either ids of edits, or --batch ID: palimpsest edits withdraw ID…')
  if (batch !== undefined) {
    const done = await client.json<WireBatch & { withdrawn: number }>('POST', `/v1/batches/${encodeURIComponent(batch)}/withdraw`)
    return json ? asJson(done) : `Batch ${batch}: ${count(done.withdrawn, 'edit')} withdrawn.`
  }
  const done = await client.json<{ data: WireEdit[] }>('POST', '/v1/edits/withdraw', { ids })
  return json ? asJson(done) : done.data.map(({ id, state }) => `${id} ${state}`).join('\n')
}

async function restore(client: Client, ids: readonly string[], { json }: Typed): Promise<string> {
  const restored: WireEdit[] = []
  for (const id of ids) restored.push(await client.json<WireEdit>('POST', `/v1/edits/${encodeURIComponent(id)}/restore`))
  return json ? asJson(restored) : restored.map(({ id, state }) => `${id} ${state}`).join('\n')
}

async function explain(
  client: Client,
  words: readonly string[],
  options: Typed & { asOf?: string; tags?: string },
): Promise<string> {
  const { asOf, tags, json } = options
  const body = {
    question: words.join(' '),
    ...(asOf !== undefined && { as_of: asOf }),
    ...(tags !== undefined && { tags: tags.split(',') }),
  }
  const explanation = await client.json<WireExplanation>('POST', '/v1/edits/explain', body)
  return json ? asJson(explanation) : explanationText(explanation, !client.inProcess)
}

async function batches(client: Client, _args: readonly string[], { limit, cursor, json }: Filters): Promise<string> {
  const page = await client.json<WirePage<WireBatch>>('GET', `/v1/batches${query({ limit, cursor })}`)
  return json ? asJson(page) : batchTable(page)
}
