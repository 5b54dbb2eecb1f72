import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { z } from 'zod'
import type { Config } from '../../config.ts'
import { PROBED_FORMATS } from '../../edit/formats.ts'
import type { Engine } from '../../engine/engine.ts'
import { PalimpsestError } from '../../errors.ts'
import { type Dataset, readDatasetFile } from '../../evaluate/data/dataset.ts'
import { digestOf, indexed, landAll, type Prepared, prepare, readDistractors } from '../../evaluate/data/prepare.ts'
import { KINDS } from '../../evaluate/data/probe.ts'
import { readTrafficFile } from '../../evaluate/data/traffic.ts'
import { takes } from '../../evaluate/methods/cosine.ts'
import { METHODS, type Compared as Method, misfit, PROTOCOLS } from '../../evaluate/methods/methods.ts'
import { rememberingEngine } from '../../evaluate/methods/remember.ts'
import type { Outcome } from '../../evaluate/metrics/outcomes.ts'
import { forcedRows, generatedRows } from '../../evaluate/metrics/scores.ts'
import {
  cosineCurve,
  selectionCurve,
  selectionLatency,
  selectionRows,
  selectionTotals,
} from '../../evaluate/metrics/selection-scores.ts'
import { type Circumstances, openAnswers } from '../../evaluate/protocols/answers.ts'
import { RAW_TEMPLATE } from '../../evaluate/protocols/forced.ts'
import { html } from '../../evaluate/report/html.ts'
import { openPlotter } from '../../evaluate/report/plots.ts'
import { type About, markdown, type Results, type SelectionResults } from '../../evaluate/report/report.ts'
import { run, runSelection, type Tick } from '../../evaluate/run.ts'
import { TRIAL_LIMITS, type Trial } from '../../evaluate/trial.ts'
import type { Limits } from '../../gateway.ts'
import { choose } from '../../server/models.ts'
import { type Parts, VERSION } from '../../server/parts.ts'
import { Bar } from '../../terminal/progress-bar.ts'
import { count, printable } from '../../terminal/table.ts'
import { configOf, withSettings } from '../options.ts'
import { type Closing, checkNoModel, openScratch, readTyped, ticker, withoutModel } from './parts.ts'
import { addFiringOptions, firing } from './selection.ts'

const names = <const T extends readonly string[]>(values: T) =>
  z
    .string()
    .transform((typed) =>
      typed
        .split(',')
        .map((name) => name.trim())
        .filter(Boolean),
    )
    .pipe(
      z
        .array(z.enum(values, { error: ({ input }) => `expected some of ${values.join(', ')}, got ${JSON.stringify(input)}` }))
        .min(1),
    )
const whole = (min: number, max: number) =>
  z.coerce
    .number({ error: `expected a whole number from ${min} to ${max}` })
    .int()
    .min(min)
    .max(max)

/** What was typed, checked. */
const Typed = z.object({
  data: z.string({
    error: 'expected a benchmark file; or give --selection FILES, which say which edits should fire on which messages',
  }),
  format: z.enum(['auto', ...PROBED_FORMATS], { error: `expected auto or one of ${PROBED_FORMATS.join(', ')}` }).default('auto'),
  methods: names(METHODS).optional(),
  protocols: names(PROTOCOLS).default([...PROTOCOLS]),
  kinds: names(KINDS).default([]),
  memory: z.array(z.string()).default([]),
  traffic: z.array(z.string()).default([]),
  limit: whole(1, 1_000_000).default(1_000_000),
  perKind: whole(1, 1_000).default(1_000),
  trafficLimit: whole(1, 1_000_000).optional(),
  answerTokens: whole(1, 4_096).default(TRIAL_LIMITS.answerTokens),
  ikeDemonstrations: whole(0, 256).default(TRIAL_LIMITS.ikeDemonstrations),
  seed: whole(0, 2 ** 31).default(0),
  selection: z.boolean().default(false),
  resume: z.boolean().default(false),
  reuse: z.boolean().default(true),
  out: z.string().optional(),
})
type Typed = z.output<typeof Typed>

/** Questions of each traffic file that are answered when no number is given: enough to see damage, few enough to wait for. */
const TRAFFIC_ANSWERED = 20
/** Slots: one for short prompts, one that keeps IKE's long prefix. */
const SLOTS = 2
const SAVED = { json: 'results.json', markdown: 'results.md', html: 'report.html', answers: 'answers.jsonl' } as const

export function addEvalCommand(program: Command): void {
  const command = program
    .command('eval')
    .description('compare the pipeline with other ways to edit a model, on a published benchmark file')
    .option('--data <file>', 'CounterFact, zsRE, KnowEdit, MQuAKE, WikiFactDiff, ConflictEdit or EasyEdit, as published')
    .option('--format <name>', `auto, ${PROBED_FORMATS.join(', ')}`, 'auto')
    .option('--methods <names>', `some of ${METHODS.join(', ')}, with commas between; default: all that fit the data`)
    .option('--protocols <names>', `some of ${PROTOCOLS.join(', ')}; default: both`)
    .option(
      '--selection [files...]',
      'only which edits are selected, without a model; with files, on these in place of --data: lines of an edit with in_scope and near_miss, HalluEditBench, CounterFact-Hard, multilingual records',
    )
    .option('--memory <files...>', 'more edits for the memory, as distractors')
    .option(
      '--traffic <files...>',
      'JSONL of questions no edit should touch: `question` or `turns`, with `choices` multiple choice',
    )
    .option('--limit <number>', "records asked about; every record's edits are in memory")
    .option('--per-kind <number>', 'probes of one kind for each record')
    .option('--kinds <names>', `only these kinds of probe: ${KINDS.join(', ')}`)
    .option('--traffic-limit <number>', `questions from each traffic file; default: ${TRAFFIC_ANSWERED}, with --selection all`)
    .option('--answer-tokens <number>', `tokens of an answer; default ${TRIAL_LIMITS.answerTokens}`)
    .option('--ike-demonstrations <number>', `demonstrations IKE shows if they fit; default ${TRIAL_LIMITS.ikeDemonstrations}`)
    .option('--seed <number>', 'draws records, probes and demonstrations; default 0')
    .option(
      '--out <folder>',
      'where results.json, results.md, report.html and answers.jsonl go; default: NAME-TIME in --reports-dir',
    )
  addFiringOptions(command)
  command
    .option('--resume', 'go on with the answers in the folder')
    .option('--no-reuse', 'generate anew even where an equal prompt has been answered')
  withSettings(command, 'model', 'upstreamModel', 'embedder', 'gpu', 'threads', 'contextTokens', 'template', 'threshold', 'home')
  withSettings(command, 'templatesDir', 'reportsDir', 'logLevel', 'multiHop')
  command.action(async () => {
    if (Array.isArray(command.opts().selection)) {
      process.stdout.write(`${await firing(command.opts(), configOf(command))}\n`)
      return
    }
    const typed = readTyped(Typed, command.opts())
    process.stdout.write(`${await evaluate(typed, configOf(command))}\n`)
  })
}

/** Opens everything, runs, writes the report; returns what to print. */
async function evaluate(typed: Typed, config: Config<Limits>): Promise<string> {
  if (typed.selection) checkNoModel(config)
  const dataset = readDatasetFile(typed.data, typed.format)
  const methods = typed.selection ? [] : methodsFor(typed, dataset)
  const traffic = typed.traffic.map(readTrafficFile)
  const distractors = readDistractors(typed.memory)
  const out = resolve(typed.out ?? ownFolder(config.reportsDir, dataset.name.replace(/\.[^.]*$/, ''), typed.resume))
  mkdirSync(out, { recursive: true })
  const stop = new AbortController()
  const interrupt = () => stop.abort(interrupted(out, typed.selection))
  process.once('SIGINT', interrupt)
  const closing: Closing = []
  const bar = new Bar(process.stderr, () => performance.now())
  try {
    const choice = typed.selection ? null : await choose(config)
    const { weights, embedder, parts } = await openScratch({ ...config, slots: SLOTS }, choice, closing, stop.signal)
    const { leftOut } = await landAll(parts.memory, dataset, distractors)
    const tick = ticker(bar)
    await indexed(parts.memory, tick, stop.signal)
    const trafficLimit = typed.trafficLimit ?? (typed.selection ? Number.MAX_SAFE_INTEGER : TRAFFIC_ANSWERED)
    const chosen = { ...typed, trafficLimit }
    const probes = traffic.flatMap((file) => file.probes)
    const prepared = await prepare(dataset, probes, parts.memory, embedder, chosen)
    const engine = choice === null ? withoutModel() : await weights.engine()
    closing.push(() => engine.close(0))
    const notes = [
      ...traffic.flatMap((file) => file.notes),
      ...(leftOut > 0 ? [`${count(leftOut, 'distractor')} left out, for asking what the data's edits ask.`] : []),
      ...prepared.notes,
    ]
    for (const note of notes) bar.log(printable(note))
    const inputs: Inputs = { typed, config, dataset, methods, parts, prepared, notes, engine, out, tick, signal: stop.signal }
    const trial = await trialOf(inputs, embedder)
    const results = typed.selection ? await selectAlone(inputs, trial) : await compare(inputs, trial)
    bar.clear()
    return await save(out, results)
  } finally {
    bar.clear()
    process.removeListener('SIGINT', interrupt)
    for (const close of closing.reverse()) await close()
  }
}

/** A folder of this run's own, so that runs can be compared; to resume, that of the latest run on this data which was not finished. */
function ownFolder(reportsDir: string, data: string, resume: boolean): string {
  const stamp = new Date().toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-')
  if (!resume) return join(reportsDir, `${data}-${stamp}`)
  const unfinished = (name: string) => name.startsWith(`${data}-`) && !existsSync(join(reportsDir, name, SAVED.json))
  const latest = (existsSync(reportsDir) ? readdirSync(reportsDir) : []).filter(unfinished).sort().at(-1)
  if (latest !== undefined) return join(reportsDir, latest)
  throw new PalimpsestError(
    'invalid_value',
    `--resume: ${reportsDir} holds no unfinished run on ${data}. Name its folder with --out.`,
    {
      param: '--resume',
    },
  )
}

interface Inputs {
  readonly typed: Typed
  readonly config: Config<Limits>
  readonly dataset: Dataset
  readonly methods: readonly Method[]
  readonly parts: Parts
  readonly prepared: Prepared
  readonly notes: readonly string[]
  readonly engine: Engine
  readonly out: string
  readonly tick: Tick
  readonly signal: AbortSignal
}

/** Base is always among them: locality is read against it. */
function methodsFor({ methods }: Typed, dataset: Dataset): Method[] {
  const wanted = methods ?? METHODS.filter((method) => misfit(method, dataset) === null)
  for (const method of wanted) {
    const reason = misfit(method, dataset)
    if (reason !== null) throw new PalimpsestError('invalid_value', `--methods: ${reason}. Leave it out.`, { param: '--methods' })
  }
  return METHODS.filter((method) => method === 'base' || wanted.includes(method))
}

async function trialOf({ typed, parts, prepared, engine }: Inputs, embedder: Trial['embedder']): Promise<Trial> {
  const { answerTokens, ikeDemonstrations, seed } = typed
  return {
    gateway: { ...(await parts.gateway(engine)), engine: rememberingEngine(engine, typed.reuse) },
    embedder,
    ...prepared,
    limits: { ...TRIAL_LIMITS, answerTokens, ikeDemonstrations },
    seed,
  }
}

interface Compared {
  readonly results: Results
  readonly outcomes: readonly Outcome[]
}

async function compare(inputs: Inputs, trial: Trial): Promise<Compared> {
  const { typed, methods, out, tick, signal, engine } = inputs
  if (typed.protocols.includes('forced') && engine.openScorer === undefined)
    throw new PalimpsestError(
      'invalid_value',
      `${engine.model.name} shows no probabilities, so it can't be teacher-forced; add --protocols generated.`,
    )
  const start = performance.now()
  const answers = openAnswers(join(out, SAVED.answers), typed.resume)
  const circumstances = circumstancesOf(inputs, trial)
  const { outcomes, cosine, resumed } = await run({ ...typed, trial, methods, answers, circumstances, tick, signal })
  const notes = [
    ...inputs.notes,
    ...(cosine === null ? [] : [`Cosine threshold, chosen with hindsight on these probes: ${cosine.threshold.toFixed(3)}.`]),
    ...(resumed > 0 ? [`${count(resumed, 'answer')} taken over from an earlier run.`] : []),
    `Answers have at most ${trial.limits.answerTokens} tokens, continuations whose fluency is measured ${trial.limits.fluencyTokens}.`,
  ]
  const scoring = { outcomes, methods, seed: typed.seed }
  const about = aboutOf(inputs, trial, (performance.now() - start) / 60_000)
  return { results: { about, notes, generated: generatedRows(scoring), forced: forcedRows(scoring), selection: null }, outcomes }
}

async function selectAlone(inputs: Inputs, trial: Trial): Promise<Compared> {
  const start = performance.now()
  const { outcomes, cosine } = await runSelection(trial, inputs.tick, inputs.signal)
  const latency = selectionLatency(outcomes)
  const selection: SelectionResults = {
    rows: selectionRows(outcomes, cosine.threshold),
    gate: selectionTotals(outcomes, ({ gate }) => gate.selected),
    cosine: selectionTotals(outcomes, ({ nearest }) => takes(nearest, cosine.threshold)),
    curve: selectionCurve(outcomes),
    cosineCurve: cosineCurve(outcomes),
    threshold: cosine.threshold,
    medianMs: latency.median,
    p99Ms: latency.p99,
  }
  const asked = { ...trial, probes: outcomes.map(({ probe }) => probe) }
  const about = { ...aboutOf(inputs, asked, (performance.now() - start) / 60_000), model: null }
  return { results: { about, notes: inputs.notes, generated: [], forced: [], selection }, outcomes: [] }
}

/** All that an answer depends on, for `--resume`. */
function circumstancesOf({ typed, dataset }: Inputs, { gateway, edits, limits, seed }: Trial): Circumstances {
  const { engine, templates, calibration } = gateway
  const { name, sha256, contextTokens, family } = engine.model
  const hash = (value: unknown) => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16)
  const common = {
    version: VERSION,
    model: sha256 ?? name,
    contextTokens,
    seed,
    reuse: String(typed.reuse),
    ...limits,
    memory: digestOf(edits),
    data: hash(dataset.records.map(({ probes }) => probes)),
  }
  const rendered = {
    ...common,
    template: `${templates.get(undefined, family).hash} ${templates.get(RAW_TEMPLATE, family).hash}`,
  }
  const selected = { ...rendered, calibration: hash(calibration), multiHop: gateway.multiHop?.mode ?? 'chain' }
  return (method) => (method === 'palimpsest' ? selected : method === 'base' || method === 'mello' ? common : rendered)
}

function aboutOf({ typed, dataset, methods, config }: Inputs, { gateway, edits, probes, seed }: Trial, minutes: number): About {
  const { name, device, threads, family } = gateway.engine.model
  const kinds = Object.fromEntries(
    KINDS.map((kind) => [kind, probes.filter((probe) => probe.kind === kind).length] as const).filter(([, n]) => n > 0),
  )
  const template = gateway.templates.get(config.template, family)
  return {
    version: VERSION,
    at: new Date().toISOString(),
    data: basename(typed.data),
    format: dataset.format,
    records: dataset.records.length,
    recordsAsked: new Set(probes.flatMap(({ record }) => record ?? [])).size,
    probes: kinds,
    editsLive: edits.size,
    methods,
    model: name,
    device,
    threads,
    seed,
    minutes,
    template: `${template.name} ${template.hash}`,
  }
}

async function save(out: string, { results, outcomes }: Compared): Promise<string> {
  const text = markdown(results)
  writeFileSync(join(out, SAVED.json), `${JSON.stringify(results, null, 2)}\n`)
  writeFileSync(join(out, SAVED.markdown), text)
  writeFileSync(join(out, SAVED.html), html(results, outcomes, await openPlotter()))
  return `${printable(text)}\nReport: ${join(out, SAVED.html)}`
}

function interrupted(out: string, selection: boolean): PalimpsestError {
  const advice = selection ? 'Run it again.' : `What was answered is in ${join(out, SAVED.answers)}: add --resume to go on.`
  return new PalimpsestError('cancelled', `Stopped. ${advice}`)
}
