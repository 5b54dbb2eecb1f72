import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { parse as parseYaml } from 'yaml'
import { PalimpsestError } from '../errors.ts'
import type { Client } from './client/client.ts'
import { gatewayCommand, type Typed } from './client/command.ts'
import { bootWithModel, bootWithoutModel } from './client/local.ts'
import { comparisonText, experimentTable, experimentText, replayText } from './text/experiments-text.ts'
import type { WireComparison, WireExperiment, WireExperimentResult, WireReplayResult } from './wire.ts'

type Action<O extends Typed> = (client: Client, args: readonly string[], options: O) => Promise<unknown>

/** `palimpsest experiments …`, `palimpsest rollouts …` and `palimpsest compare`, against the running gateway. */
export function addExperimentCommands(program: Command): void {
  const experiments = program
    .command('experiments')
    .description('compare edits with the base model, or one way of editing with another')
  add(experiments, 'list', 'experiments, latest first', list('experiments'))
  add(experiments, 'show <id>', 'exposures, metrics and intervals', show('experiments'))
  add(experiments, 'start <file>', 'declare the experiment of a YAML or JSON file; - reads standard input', start('experiments'))
  add(experiments, 'stop <id>', 'end it; everyone is answered as before', act('experiments', 'stop'))
  add(experiments, 'ship <id> <arm>', 'end it; its audience is answered by this arm', (client, [id = '', arm]) =>
    client.json<WireExperimentResult>('POST', path('experiments', id, 'ship'), { arm }).then(experimentText),
  )
  add(
    experiments,
    'replay <id> [file]',
    'answer prompts, one a line, by every arm; without a file: what replay has shown',
    replay,
  )
    .option('--judge', 'let the served model say which answer is better')
    .option('--logged', 'the prompts that the experiment logged')
  const rollouts = program
    .command('rollouts')
    .description('take a batch from shadow to everyone in stages, and back when a guardrail breaks')
  add(rollouts, 'list', 'rollouts, latest first', list('rollouts'))
  add(rollouts, 'show <id>', 'stage, guardrails and evidence', show('rollouts'))
  add(
    rollouts,
    'start <batch>',
    'hold this batch back and roll it out; import it under that id afterwards, or have it imported',
    (client, [batch]) => client.json<WireExperimentResult>('POST', '/v1/rollouts', { batch }).then(experimentText),
  )
  add(rollouts, 'back <id>', 'withdraw the batch now', act('rollouts', 'rollback'))
  add(
    program,
    'compare <prompt...>',
    'one prompt by base and edited, or all arms of an experiment, side by side',
    compare,
    bootWithModel,
  ).option('--experiment <id>', 'the arms of this experiment or rollout')
}

function add<O extends Typed>(
  parent: Command,
  usage: string,
  description: string,
  action: Action<O>,
  boot: typeof bootWithModel = bootWithoutModel,
): Command {
  const wish = { usage, description, of: 'experiments', modelSettings: MODEL_SETTINGS, boot }
  return gatewayCommand<O>(parent, wish, async (client, args, options) => {
    // Asking for JSON shows what the gateway said, as it said it.
    const heard: unknown[] = []
    const listening: Client = {
      ...client,
      json: async <T>(method: string, to: string, body?: unknown) => {
        const answer = await client.json<T>(method, to, body)
        heard.push(answer)
        return answer
      },
    }
    const text = await action(listening, args, options)
    return options.json ? JSON.stringify(heard.at(-1), null, 2) : `${text}`
  })
}

const MODEL_SETTINGS = ['model', 'threads', 'embedder'] as const

type Kind = 'experiments' | 'rollouts'

const path = (kind: Kind, id: string, what?: string) =>
  `/v1/${kind}/${encodeURIComponent(id)}${what === undefined ? '' : `/${what}`}`

const list =
  (kind: Kind): Action<Typed> =>
  async (client) =>
    experimentTable((await client.json<{ data: WireExperiment[] }>('GET', `/v1/${kind}`)).data)

const show =
  (kind: Kind): Action<Typed> =>
  async (client, [id = '']) =>
    experimentText(await client.json<WireExperimentResult>('GET', path(kind, id)))

const act =
  (kind: Kind, what: string): Action<Typed> =>
  async (client, [id = '']) =>
    experimentText(await client.json<WireExperimentResult>('POST', path(kind, id, what)))

const start =
  (kind: Kind): Action<Typed> =>
  async (client, [file = '-']) => {
    const content = readFileSync(file === '-' ? 0 : file, 'utf8')
    const body: unknown = file.endsWith('.json') ? JSON.parse(content) : parseYaml(content)
    return experimentText(await client.json<WireExperimentResult>('POST', `/v1/${kind}`, body))
  }

interface ReplayTyped extends Typed {
  readonly judge?: boolean
  readonly logged?: boolean
}

async function replay(client: Client, [id = '', file]: readonly string[], { judge, logged }: ReplayTyped): Promise<string> {
  if (file === undefined && logged === undefined)
    return replayText(await client.json<WireReplayResult>('GET', path('experiments', id, 'replay')))
  if (client.inProcess)
    throw new PalimpsestError('network', 'Replaying needs a model: start a gateway with palimpsest serve, then ask again.')
  const prompts =
    file === undefined
      ? []
      : readFileSync(file === '-' ? 0 : file, 'utf8')
          .split('\n')
          .filter((line) => line.trim() !== '')
  const body = {
    ...(prompts.length > 0 && { prompts }),
    ...(judge && { judge: true }),
    ...(logged && { logged: true }),
  }
  const { accepted, left_out: left } = await client.json<{ accepted: number; left_out: number }>(
    'POST',
    path('experiments', id, 'replay'),
    body,
  )
  return `${accepted} prompts are answered in the background${left > 0 ? `, ${left} left out: the queue is full` : ''}. See: palimpsest experiments replay ${id}`
}

async function compare(
  client: Client,
  words: readonly string[],
  { experiment }: Typed & { experiment?: string },
): Promise<string> {
  const body = { question: words.join(' '), ...(experiment !== undefined && { experiment }) }
  return comparisonText(await client.json<WireComparison>('POST', '/v1/compare', body))
}
