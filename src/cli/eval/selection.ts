/** `eval --selection FILES`: which edits fire on which messages, with no answer generated. */
import { writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import type { Command } from 'commander'
import { z } from 'zod'
import type { Config } from '../../config.ts'
import { PalimpsestError } from '../../errors.ts'
import { indexed, readDistractors } from '../../evaluate/data/prepare.ts'
import { type Answered, answerAll, answeredFigures } from '../../evaluate/firing/answered.ts'
import { askAll, type Fired } from '../../evaluate/firing/ask.ts'
import { type Firing, firingOf } from '../../evaluate/firing/figures.ts'
import { firingPage } from '../../evaluate/firing/page.ts'
import { landCases, liveIn, settle } from '../../evaluate/firing/place.ts'
import { readCaseFiles } from '../../evaluate/firing/read.ts'
import { answeredText, type FiringAbout, firingText } from '../../evaluate/firing/text.ts'
import type { Limits } from '../../gateway.ts'
import { choose } from '../../server/models.ts'
import { Bar } from '../../terminal/progress-bar.ts'
import { printable } from '../../terminal/table.ts'
import { type Closing, checkNoModel, openScratch, readTyped, ticker, withoutModel } from './parts.ts'

/** Operating points of the curve, unless others are asked for. */
const THRESHOLDS: readonly number[] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]

/** Room for a sentence or two, and for what a rule asks to be added. */
const ANSWER_TOKENS = 96

const Thresholds = z.string().transform((typed, check) => {
  const numbers = typed.split(',').map((one) => (one.trim() === '' ? Number.NaN : Number(one)))
  if (numbers.every((one) => one >= 0 && one <= 1)) return numbers
  const message = `expected numbers from 0 to 1 with commas between, as in 0.3,0.5,0.7; got ${JSON.stringify(typed)}`
  check.addIssue({ code: 'custom', message })
  return z.NEVER
})
const Typed = z.object({
  selection: z.array(z.string()).min(1),
  data: z.undefined({ error: 'goes another way than --selection with files: leave one of the two out' }).optional(),
  memoryFill: z.array(z.string()).default([]),
  thresholds: Thresholds.optional(),
  editLanguage: z.string().optional(),
  askLanguage: z.string().optional(),
  json: z.string().optional(),
  answers: z.boolean().default(false),
  answerTokens: z.coerce
    .number({ error: 'expected a whole number from 1 to 4096' })
    .int()
    .min(1)
    .max(4_096)
    .default(ANSWER_TOKENS),
})

export function addFiringOptions(command: Command): void {
  command
    .option('--memory-fill <files...>', 'with --selection FILES: edits that fill every memory; what they say twice is left out')
    .option('--thresholds <numbers>', `with --selection FILES: points of the curve; default ${THRESHOLDS.join(',')}`)
    .option('--edit-language <code>', 'with multilingual files: the language that edits are in; default: each')
    .option('--ask-language <code>', 'with multilingual files: the language that questions are in; default: each')
    .option(
      '--answers',
      `with --selection FILES: the model answers, too: messages whose edit was selected, and some without (at most ${ANSWER_TOKENS} tokens, or --answer-tokens)`,
    )
    .option('--json <file>', 'with --selection FILES: where everything is written, with the plots as HTML beside it')
}

/** Opens a memory, asks everything, writes the report; returns what to print. */
export async function firing(options: Record<string, unknown>, config: Config<Limits>): Promise<string> {
  const typed = readTyped(Typed, options)
  checkNoModel(config)
  const cases = readCaseFiles(typed.selection, { edit: typed.editLanguage, ask: typed.askLanguage })
  const fill = readDistractors(typed.memoryFill)
  const stop = new AbortController()
  const interrupt = () => stop.abort(new PalimpsestError('cancelled', 'Stopped. Run it again.'))
  process.once('SIGINT', interrupt)
  const closing: Closing = []
  const bar = new Bar(process.stderr, () => performance.now())
  try {
    const choice = typed.answers ? await choose(config) : null
    const { weights, embedder, parts } = await openScratch(config, choice, closing, stop.signal)
    const tick = ticker(bar)
    const tenants = await landCases(parts.memory, cases, fill)
    await indexed(parts.memory, tick, stop.signal)
    const settled = await settle(cases, tenants, parts.memory, embedder)
    const engine = choice === null ? withoutModel() : await weights.engine()
    closing.push(() => engine.close(0))
    const gateway = await parts.gateway(engine)
    const fired = await askAll(settled.cases, { gateway, tenants, memories: cases.memories, tick, signal: stop.signal })
    const figures = firingOf(fired, typed.thresholds ?? THRESHOLDS)
    const about: FiringAbout = {
      files: typed.selection.map((file) => basename(file)),
      memories: tenants.size,
      messages: fired.length,
      edits: [...tenants.values()].reduce((sum, tenant) => sum + liveIn(parts.memory, tenant).length, 0),
      threshold: gateway.calibration.threshold,
      notes: [...cases.notes, ...settled.notes],
    }
    const { answerTokens } = typed
    const answered = typed.answers ? await answerAll(fired, { gateway, tenants, answerTokens, tick, signal: stop.signal }) : []
    bar.clear()
    const text = firingText(about, figures) + (typed.answers ? answeredText(answeredFigures(answered)) : '')
    return printable(text) + (typed.json === undefined ? '' : await save(typed.json, about, figures, fired, answered))
  } finally {
    bar.clear()
    process.removeListener('SIGINT', interrupt)
    for (const close of closing.reverse()) await close()
  }
}

async function save(
  file: string,
  about: FiringAbout,
  figures: Firing,
  fired: readonly Fired[],
  answered: readonly Answered[],
): Promise<string> {
  const page = `${file.replace(/\.json$/i, '')}.html`
  const cases = fired.map(({ case: one, ...outcome }) => ({ ...one, ...outcome }))
  const answers = answered.length > 0 && { answers: { ...answeredFigures(answered), all: answered } }
  try {
    writeFileSync(file, `${JSON.stringify({ about, ...figures, cases, ...answers }, null, 1)}\n`)
    writeFileSync(page, await firingPage(about, figures))
  } catch (cause) {
    const message = `--json: ${file} can't be written: ${(cause as Error).message}. Name a file in a folder that is there.`
    throw new PalimpsestError('invalid_value', message, { param: '--json', cause })
  }
  return `\nWritten: ${file}, ${page}`
}
