import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import { type Client, connect } from '../client/client.ts'
import { bootWithModel } from '../client/local.ts'
import { configOf, withSettings } from '../options.ts'
import { ChatSession } from './session.ts'

/** `palimpsest chat`: questions and answers on the terminal, or from a pipe. */
export function addChatCommand(program: Command): void {
  const command = program
    .command('chat')
    .description('talk to the model; /base asks it unedited, /why tells which edits made an answer')
  command.option('--tenant <name>', 'tenant whose edits are meant')
  withSettings(
    command,
    'url',
    'model',
    'port',
    'dataDir',
    'editsDir',
    'templatesDir',
    'home',
    'embedder',
    'gpu',
    'threads',
    'contextTokens',
    'logLevel',
  )
  command.action(async () => {
    const { tenant } = command.opts<{ tenant?: string }>()
    const config = configOf(command)
    const client = await connect(config, tenant === undefined ? {} : { tenant }, () => {
      process.stderr.write('No gateway runs; the model is loaded into this one. Leave one running with: palimpsest serve\n')
      return bootWithModel(config)
    })
    try {
      const model = client.inProcess ? undefined : config.model
      await talk(client, model ?? (await firstModel(client)))
    } finally {
      await client.close()
    }
  })
}

async function firstModel(client: Client): Promise<string> {
  const { data } = await client.json<{ data: { id: string }[] }>('GET', '/v1/models')
  return data[0]?.id ?? ''
}

async function talk(client: Client, model: string): Promise<void> {
  const session = new ChatSession(client, model, (text) => process.stdout.write(text))
  const terminal = process.stdin.isTTY === true
  const input = createInterface({ input: process.stdin, terminal, ...(terminal && { output: process.stdout }) })
  let answering: AbortController | undefined
  input.on('SIGINT', () => {
    if (answering === undefined || answering.signal.aborted) input.close()
    else answering.abort()
  })
  if (terminal) process.stdout.write(`${model} at ${client.url}; /help lists the commands.\n`)
  const ask = () => {
    input.setPrompt(session.prompt)
    if (terminal) input.prompt()
  }
  ask()
  for await (const line of input) {
    answering = new AbortController()
    try {
      if (!(await session.take(line, answering.signal))) break
    } catch (error) {
      process.stdout.write(`${(error as Error).message}\n`)
    } finally {
      answering = undefined
    }
    ask()
  }
  input.close()
}
