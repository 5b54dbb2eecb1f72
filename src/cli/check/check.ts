import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Command } from 'commander'
import { z } from 'zod'
import type { Config } from '../../config.ts'
import { type Batch, parseBatch } from '../../edit/batch.ts'
import { isForModel } from '../../edit/edit.ts'
import { FORMATS, type Format } from '../../edit/formats.ts'
import { PalimpsestError } from '../../errors.ts'
import { UNRELATED } from '../../evaluate/data/unrelated.ts'
import { draw, type PreflightResult, preflight, stageCounts, type Thresholds } from '../../evaluate/preflight.ts'
import type { Limits } from '../../gateway.ts'
import { copyMemory } from '../../storage/folder-copy.ts'
import { Bar } from '../../terminal/progress-bar.ts'
import { type Client, client, connect, query } from '../client/client.ts'
import { bootWithModel } from '../client/local.ts'
import { contentOf, postFile } from '../import.ts'
import { configOf, withSettings } from '../options.ts'
import { checkText } from '../text/check-text.ts'
import type { WireEdit, WireLanding, WirePage } from '../wire.ts'
import { trialOf } from './trial.ts'

const share = z.coerce.number({ error: 'a share from 0 to 1' }).min(0).max(1)
const amount = z.coerce.number({ error: 'a whole number' }).int().min(0)

const typed = z.object({
  format: z.enum(['auto', ...FORMATS]),
  tenant: z.string().optional(),
  tags: z.string().optional(),
  json: z.boolean().optional(),
  progressive: z.boolean().optional(),
  stages: z
    .string()
    .transform((list) => list.split(',').map(Number))
    .refine((list) => list.every((percent) => percent > 0 && percent <= 100), {
      error: 'percentages with commas between, such as 1,10,50,100',
    }),
  minReliability: share,
  minGeneralization: share,
  minLocality: share,
  maxConflicts: amount,
  sample: amount.min(1),
  held: amount,
  unrelated: amount,
  maxTokens: amount.min(1),
  seed: amount,
})
type Options = z.output<typeof typed>

/** Edits in the first stage, at least: fewer say nothing. */
const LEAST_STAGE = 5
/** Edits of the memory looked through for prompts, latest first. */
const HELD_PAGES = 10
const HELD_PAGE = 1_000

/** `palimpsest edits check FILE`: would these edits do what they should, and nothing else? */
export function addCheckCommand(edits: Command): void {
  const command = edits
    .command('check <file>')
    .description('evaluate the edits of a file before they land, on a copy of the memory; exits with 1 when something fails')
    .option('--progressive', 'land them, stage by stage, each evaluated; at the first that fails all are taken back')
    .option('--stages <percents>', 'with --progressive: how much of the file has landed after each stage', '1,10,50,100')
    .option('--format <name>', `format of the records: auto, ${FORMATS.join(', ')}`, 'auto')
    .option('--tags <names>', 'tags for every edit, with commas between')
    .option('--tenant <name>', 'tenant whose edits are meant')
    .option('--min-reliability <share>', 'least share of prompts answered with their target', '0.9')
    .option('--min-generalization <share>', 'least share of paraphrases answered with their target', '0.8')
    .option('--min-locality <share>', 'least share of other questions answered as before', '0.98')
    .option('--max-conflicts <number>', 'contradictions within the file that are let through', '0')
    .option('--sample <number>', 'edits that are asked for, drawn from the file', '50')
    .option('--held <number>', 'prompts of edits in memory that are asked', '20')
    .option('--unrelated <number>', 'questions about none of the edits that are asked', String(UNRELATED.length))
    .option('--max-tokens <number>', 'longest answer', '32')
    .option('--seed <number>', 'draws other edits', '1')
    .option('--json', 'print JSON')
  withSettings(command, 'model', 'url', 'port', 'dataDir', 'editsDir', 'templatesDir', 'home', 'embedder', 'upstreamModel')
  withSettings(command, 'gpu', 'threads', 'contextTokens', 'template', 'threshold', 'logLevel')
  command.action(async (file: string) => {
    const options = read(command.opts())
    const config = configOf(command)
    const content = await contentOf(file)
    const run = options.progressive ? onTheMemory : onACopy
    const { text, ok } = await run(config, options, (gateway) => check(gateway, file, content, options))
    process.stdout.write(`${text}\n`)
    if (!ok) process.exitCode = 1
  })
}

function read(opts: object): Options {
  const parsed = typed.safeParse(opts)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const flag = `--${String(issue?.path[0]).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
  throw new PalimpsestError('invalid_value', `${flag}: ${issue?.message}.`)
}

type Work<T> = (gateway: Client) => Promise<T>

/** Lands where users are answered from: the running gateway, or the data folder itself. */
async function onTheMemory<T>(config: Config<Limits>, { tenant }: Options, work: Work<T>): Promise<T> {
  const gateway = await connect(config, tenant === undefined ? {} : { tenant }, () => bootWithModel(config))
  return work(gateway).finally(() => gateway.close())
}

/** Lands in a copy, with the model in this process; whoever holds the data folder is not disturbed. */
async function onACopy<T>(config: Config<Limits>, { tenant }: Options, work: Work<T>): Promise<T> {
  if (config.url !== undefined)
    throw new PalimpsestError(
      'invalid_value',
      'With --url, add --progressive: a check by itself works on a copy of the data folder, and knows that of this machine only (--data-dir).',
    )
  const dataDir = await mkdtemp(join(tmpdir(), 'palimpsest-check-'))
  try {
    await copyMemory(config.dataDir, dataDir)
    const local = await bootWithModel({ ...config, dataDir })
    return await work(client(local.url, tenant === undefined ? {} : { tenant }, local)).finally(() => local.close())
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}

async function check(gateway: Client, file: string, content: Uint8Array<ArrayBuffer>, options: Options) {
  const model = await servedModel(gateway)
  const { edits } = parse(content, file, options)
  const { format, tags } = options
  const landing = await postFile(gateway, file, content, { format, dryRun: true, ...(tags !== undefined && { tags }) })
  const conflicts = (landing.report?.counts.conflict ?? 0) + (landing.report?.counts.conflict_in_other_words ?? 0)
  const consistent = conflicts <= options.maxConflicts
  const result = consistent ? await evaluate(gateway, model, edits, landing, options) : null
  const ok = consistent && result?.ok === true
  const outcome = { file, model, edits: edits.length, landing, conflicts, maxConflicts: options.maxConflicts, result, ok }
  const text = options.json
    ? JSON.stringify({ ...outcome, progressive: options.progressive === true }, null, 2)
    : checkText(outcome)
  return { text: options.json ? text : `${text}\n${closing(ok, options)}`, ok }
}

function closing(ok: boolean, { progressive }: Options): string {
  if (!progressive) return ok ? 'Passed. Nothing has landed: palimpsest edits import does that.' : 'Failed. Nothing has landed.'
  return ok ? 'Passed, and all of it has landed.' : 'Failed, and nothing of it is live: what had landed is withdrawn.'
}

function parse(content: Uint8Array, file: string, { format, tags = '', tenant = 'default' }: Options): Batch {
  const labels = tags.split(',').map((tag) => tag.trim())
  return parseBatch(content, { format: format as Format | 'auto', tenant, file, tags: labels.filter((tag) => tag !== '') })
}

async function servedModel(gateway: Client): Promise<string> {
  const { data } = await gateway.json<{ data: { id: string }[] }>('GET', '/v1/models')
  return data[0]?.id ?? ''
}

async function evaluate(
  gateway: Client,
  model: string,
  edits: Batch['edits'],
  landing: WireLanding,
  options: Options,
): Promise<PreflightResult> {
  const { maxTokens, sample, held, seed, progressive } = options
  const interrupted = new AbortController()
  const interrupt = () =>
    interrupted.abort(new PalimpsestError('cancelled', 'Interrupted: what this check had landed is withdrawn.'))
  process.once('SIGINT', interrupt)
  const run = `check-${landing.id}-${Date.now().toString(36)}`
  const revises = new Set(landing.results.filter(({ outcome }) => outcome === 'revised').map(({ id }) => id))
  const trial = trialOf({ client: gateway, model, maxTokens, signal: interrupted.signal, run, revises })
  const bar = new Bar(process.stderr, () => performance.now())
  try {
    return await preflight(edits, trial, {
      thresholds: thresholdsOf(options),
      stages: stageCounts(edits.length, progressive ? options.stages : [100], LEAST_STAGE),
      sampleEdits: sample,
      seed,
      heldPrompts: await heldPrompts(gateway, model, edits, landing, held, seed),
      unrelated: UNRELATED.slice(0, options.unrelated),
      passOver: new Set([
        ...losers(landing),
        ...edits.filter((edit) => !isAskable(edit) || !isForModel(edit, model)).map(({ id }) => id),
      ]),
      progress: (stage, done, total) => {
        const label = stage === 0 ? 'before' : `stage ${stage}`
        bar.update({ label, done, total, unit: 'questions', perSecond: 0, secondsLeft: null })
      },
    })
  } finally {
    bar.clear()
    process.off('SIGINT', interrupt)
  }
}

function thresholdsOf({ minReliability, minGeneralization, minLocality }: Options): Thresholds {
  return {
    reliability: minReliability,
    generalization: minGeneralization,
    locality_memory: minLocality,
    locality_unrelated: minLocality,
  }
}

/** Only a fact has a prompt and the answer that it is to get. */
function isAskable({ kind }: Batch['edits'][number]): boolean {
  return kind === undefined
}

/** Edits of the file that another of it contradicts. */
function losers({ report }: WireLanding): string[] {
  const conflicts = report?.findings.filter(({ kind }) => kind === 'conflict' || kind === 'conflict_in_other_words') ?? []
  return conflicts.flatMap(({ other }) => other?.id ?? [])
}

/** Prompts of live edits that the file neither says anew nor contradicts. */
async function heldPrompts(
  gateway: Client,
  model: string,
  edits: Batch['edits'],
  { report, results }: WireLanding,
  count: number,
  seed: number,
): Promise<string[]> {
  const gone = new Set([
    ...edits.map(({ id }) => id),
    ...results.flatMap(({ supersedes }) => supersedes),
    ...(report?.findings.filter(({ kind }) => kind === 'outdates').flatMap(({ other }) => other?.id ?? []) ?? []),
  ])
  const live: WireEdit[] = []
  let cursor: string | undefined
  for (let page = 0; page < HELD_PAGES && count > 0; page++) {
    const asked = query({ state: 'live', model, limit: String(HELD_PAGE), cursor })
    const { data, next_cursor: next } = await gateway.json<WirePage<WireEdit>>('GET', `/v1/edits${asked}`)
    live.push(...data.filter(({ id }) => !gone.has(id)))
    if (next === null) break
    cursor = next
  }
  const asked = live.flatMap(({ id, prompt }) => (prompt === undefined ? [] : [{ id, prompt }]))
  return draw(asked, count, seed, ({ id }) => id).map(({ prompt }) => prompt)
}
