import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { parse as parseYaml } from 'yaml'
import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Advice } from '../../handoff/advice.ts'
import { type Job, METHODS, THRESHOLDS } from '../../handoff/job.ts'
import { query } from '../client/client.ts'
import type { Typed } from '../client/command.ts'
import { bootWithModel } from '../client/local.ts'
import { adviceText, handoffTable, handoffText } from '../text/handoff-text.ts'
import { type Action, add, editsQuery } from './command.ts'
import { addEasyEditCommands } from './easyedit.ts'
import { addSetupCommand } from './setup.ts'
import { follow, handoffPath } from './wait.ts'

/** `palimpsest handoff …`: edits that have proved themselves into the parameters, as an adapter, and back. */
export function addHandoffCommand(program: Command): void {
  const handoff = program.command('handoff').description('edits into the parameters, as an adapter, and back out')
  addSetupCommand(handoff)
  add(handoff, 'advise', 'which way is best for these edits, why, and what it costs', advise, bootWithModel)
    .option('--when <time>', 'now, today or later', 'later')
    .option('--edits <query>', 'which edits: tag=T, batch=B, subject=S or q=WORDS, with commas between; default: all live ones')
  addRun(handoff)
  add(handoff, 'status [id]', 'all hand-offs, or one with its figures', status)
  add(handoff, 'cancel <id>', 'end it; what is finished is kept', act('cancel'))
  add(handoff, 'resume <id>', 'go on with what was finished', resume, bootWithModel).option(
    '--thresholds <json>',
    'judge by these from now on: {"efficacy": 0.8}',
  )
  add(
    handoff,
    'promote <id>',
    'answer through this adapter; its edits leave the prompt. A snapshot is taken first',
    promote,
    bootWithModel,
  )
    .option('--replace', 'take the place of the adapter that is promoted now')
    .option('--ungated', 'answer every request through it, not only those that need an edit that it holds')
  add(handoff, 'rollback <id>', 'answer as before; its edits return to the prompt', rollback, bootWithModel)
  addEasyEditCommands(handoff)
}

const advise: Action<Typed & { when?: string; edits?: string }> = async (client, _args, { when, edits }) => {
  const filter = editsQuery(edits)
  if (Array.isArray(filter)) throw new PalimpsestError('invalid_value', '--edits: give tag=T, batch=B, subject=S or q=WORDS.')
  const value = await client.json<Advice & { edits: number }>('GET', `/v1/handoffs/advice${query({ when, ...filter })}`)
  return { text: adviceText(value), value }
}

const status: Action<Typed> = async (client, [id]) => {
  if (id === undefined) {
    const { data } = await client.json<{ data: Job[] }>('GET', '/v1/handoffs')
    return { text: handoffTable(data), value: data }
  }
  const job = await client.json<Job>('GET', handoffPath(id))
  return { text: handoffText(job), value: job }
}

const act =
  (what: string): Action<Typed> =>
  async (client, [id = '']) => {
    const job = await client.json<Job>('POST', handoffPath(id, `/${what}`))
    return { text: handoffText(job), value: job }
  }

const resume: Action<Typed & { thresholds?: string }> = async (client, [id = ''], options) => {
  const thresholds = object.safeParse(options.thresholds)
  if (!thresholds.success)
    throw new PalimpsestError('invalid_value', 'Expected --thresholds to be a JSON object, such as {"efficacy": 0.8}.')
  const body = thresholds.data === undefined ? {} : { thresholds: thresholds.data }
  return closing(await follow(client, await client.json<Job>('POST', handoffPath(id, '/resume'), body)))
}

interface WirePromoted {
  readonly id: string
  readonly edits: readonly string[]
  readonly gated: boolean
  readonly snapshot: string
}

const promote: Action<Typed & { replace?: boolean; ungated?: boolean }> = async (client, [id = ''], { replace, ungated }) => {
  const body = { ...(replace === true && { replace }), ...(ungated === true && { gated: false }) }
  const value = await client.json<WirePromoted>('POST', handoffPath(id, '/promote'), body)
  const answers = value.gated
    ? 'It answers where one of them is needed; all else is the base, untouched'
    : 'It answers every request'
  // Where the memory is in a database, its own backups keep it.
  const snapshot = value.snapshot === '' ? '' : `Before that, a snapshot: ${value.snapshot}\n`
  const text = `${id} is promoted: its ${value.edits.length} edits have left the prompt. ${answers}.\n${snapshot}Undo: palimpsest handoff rollback ${id}`
  return { text, value }
}

const rollback: Action<Typed> = async (client, [id = '']) => {
  const value = await client.json<WirePromoted>('POST', handoffPath(id, '/rollback'))
  return { text: `${id} is rolled back: its ${value.edits.length} edits are in the prompt again.`, value }
}

/** A threshold that broke, or a fault, is an exit code. */
function closing(job: Job): { text: string; value: unknown } {
  if (job.state !== 'done') process.exitCode = 1
  return { text: handoffText(job), value: job }
}

/** JSON, or a YAML file such as EasyEdit's. */
const hparams = z
  .string()
  .transform((text, context) => {
    try {
      const isFile = /\.ya?ml$/i.test(text)
      return z.record(z.string(), z.unknown()).parse(isFile ? parseYaml(readFileSync(text, 'utf8')) : JSON.parse(text))
    } catch (error) {
      context.addIssue({ code: 'custom', message: `a JSON object, or a YAML file of one (${(error as Error).message})` })
      return {}
    }
  })
  .optional()

const number = (what: string) => z.coerce.number({ error: what })
const share = number('a share from 0 to 1')
  .min(0, { error: 'a share from 0 to 1' })
  .max(1, { error: 'a share from 0 to 1' })
  .optional()
const whole = number('a whole number').int({ error: 'a whole number' }).min(0, { error: 'a whole number' }).optional()
const object = z
  .string()
  .transform((text, context) => {
    try {
      return JSON.parse(text) as Record<string, unknown>
    } catch {
      context.addIssue({ code: 'custom', message: 'a JSON object' })
      return {}
    }
  })
  .optional()

/** Flags of `run`, by the field that each becomes. */
const runFlags = z.object({
  method: z.enum(METHODS, { error: `one of ${METHODS.join(', ')}` }),
  edits: z.string().optional(),
  id: z.string().optional(),
  stages: z
    .string()
    .transform((list) => list.split(',').map(Number))
    .optional(),
  minEfficacy: share,
  minParaphrase: share,
  maxNeighbourhoodDrop: share,
  minReliability: share,
  minGeneralization: share,
  minPortability: share,
  minUnchanged: share,
  maxFluencyDrop: share,
  maxAbilityDrop: share,
  sample: whole,
  unrelated: whole,
  fluency: whole,
  ability: whole,
  maxTokens: whole,
  seed: whole,
  editorThreads: whole,
  device: z.string().optional(),
  dtype: z.string().optional(),
  memory: number('gigabytes').positive({ error: 'gigabytes' }).optional(),
  hparams,
  statisticsText: z.string().optional(),
  statisticsTokens: whole,
  data: z.string().optional(),
  detach: z.boolean().optional(),
})

function addRun(handoff: Command): void {
  const percent = (value: number) => String(value)
  const run: Action<Typed> = async (client, _args, options) => {
    const { detach, ...body } = bodyOf(options)
    const job = await client.json<Job>('POST', '/v1/handoffs', body)
    if (!detach || client.inProcess) return closing(await follow(client, job))
    return { text: `${job.id} is ${job.state}. See: palimpsest handoff status ${job.id}`, value: job }
  }
  add(
    handoff,
    'run',
    'make an adapter of edits, stage by stage, each evaluated; all is taken back at the first that certainly fails',
    run,
    bootWithModel,
  )
    .requiredOption('--method <name>', `one of ${METHODS.join(', ')}`)
    .option(
      '--edits <query>',
      'which edits: ids, or tag=T, batch=B, subject=S, q=WORDS, with commas between; default: all live ones',
    )
    .option('--id <name>', 'of the hand-off and its adapter; default: method and time')
    .option('--stages <percents>', 'how many of the edits it holds after each stage', '10,50,100')
    .option('--min-efficacy <share>', 'teacher-forced: new target likelier than the old', percent(THRESHOLDS.efficacy))
    .option('--min-paraphrase <share>', 'the same for paraphrases', percent(THRESHOLDS.paraphrase))
    .option(
      '--max-neighbourhood-drop <share>',
      'below base, where --data brings neighbours',
      percent(THRESHOLDS.neighbourhood_drop),
    )
    .option('--min-reliability <share>', 'generated: prompts answered with their target', percent(THRESHOLDS.reliability))
    .option('--min-generalization <share>', 'generated: paraphrases', percent(THRESHOLDS.generalization))
    .option(
      '--min-portability <share>',
      'generated: what follows from the edits, where --data brings it',
      percent(THRESHOLDS.portability),
    )
    .option('--min-unchanged <share>', 'other questions answered as before, to the byte', percent(THRESHOLDS.unchanged))
    .option('--max-fluency-drop <share>', 'of n-gram entropy, relative to base', percent(THRESHOLDS.fluency_drop))
    .option('--max-ability-drop <share>', 'multiple choice, below base', percent(THRESHOLDS.ability_drop))
    .option('--data <file>', 'CounterFact, zsRE, KnowEdit … whose probes of these edits are asked, too')
    .option('--sample <number>', 'edits of each stage that are asked about', '16')
    .option('--unrelated <number>', 'everyday questions', '10')
    .option('--fluency <number>', 'paragraphs of 100 tokens', '20')
    .option('--ability <number>', 'multiple-choice questions, at most 20', '16')
    .option('--max-tokens <number>', 'longest answer', '32')
    .option('--seed <number>', 'draws other samples', '0')
    .option('--editor-threads <number>', 'threads of the editor; default: as many as the model has')
    .option('--device <name>', 'auto (a GPU where one is found), cpu, cuda, cuda:N or mps', 'auto')
    .option('--dtype <name>', 'auto, float32 or bfloat16', 'auto')
    .option('--memory <gigabytes>', 'that the editor may use; default: what is free')
    .option('--hparams <json>', 'of the method, over those that fit the model: {"steps": 25}; or a YAML file of EasyEdit\'s')
    .option(
      '--statistics-text <file>',
      'text whose second moments the methods hold still; default: what the model itself writes, slowly',
    )
    .option('--statistics-tokens <number>', 'how much of it')
    .option('--detach', 'return at once; the running gateway goes on')
}

/** The flags as the gateway reads them; throws `invalid_value` naming the flag. */
function bodyOf(options: object): { readonly detach: boolean } & object {
  const parsed = runFlags.safeParse(options)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    const flag = String(issue?.path[0]).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
    throw new PalimpsestError('invalid_value', `Expected --${flag} to be ${issue?.message}.`)
  }
  const f = parsed.data
  const statistics = {
    ...(f.statisticsText !== undefined && { text: f.statisticsText }),
    ...(f.statisticsTokens !== undefined && { tokens: f.statisticsTokens }),
  }
  const body = {
    method: f.method,
    edits: editsQuery(f.edits),
    id: f.id,
    stages: f.stages,
    thresholds: {
      efficacy: f.minEfficacy,
      paraphrase: f.minParaphrase,
      neighbourhood_drop: f.maxNeighbourhoodDrop,
      reliability: f.minReliability,
      generalization: f.minGeneralization,
      portability: f.minPortability,
      unchanged: f.minUnchanged,
      fluency_drop: f.maxFluencyDrop,
      ability_drop: f.maxAbilityDrop,
    },
    sample_edits: f.sample,
    unrelated_questions: f.unrelated,
    fluency_openings: f.fluency,
    ability_questions: f.ability,
    answer_tokens: f.maxTokens,
    seed: f.seed,
    threads: f.editorThreads,
    device: f.device,
    dtype: f.dtype,
    data: f.data,
    memory_bytes: f.memory === undefined ? undefined : Math.round(f.memory * 1e9),
    hparams: f.hparams,
    ...(Object.keys(statistics).length > 0 && { statistics }),
  }
  return { ...body, detach: f.detach === true }
}
