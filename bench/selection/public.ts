/**
 * Which edits fire, on every set of docs/results/selection.md: `npm run bench:selection -- --data FOLDER [--only trial,held] [--out FOLDER]`.
 * FOLDER has the development data. What is too long is cut, always in the same way, and written beside the results; each set is one
 * `palimpsest eval`, whose command is printed before its tables.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { heldOut } from './held-out.ts'

const { values: flags } = parseArgs({
  options: {
    data: { type: 'string', default: '../shared/data' },
    out: { type: 'string', default: 'eval-selection' },
    only: { type: 'string', default: 'trial,held,dune,hallueditbench,hard,within,across,knowedit,crowd' },
    corpus: { type: 'string', default: 'corpus' },
  },
})
const LANGUAGES = ['zh-cn', 'de', 'fr', 'es', 'ja', 'ar']
const LANGUAGE_RECORDS = 60
/** Every so manieth line: they are sorted by topic. */
const HALLUCINATION_STEP = 4
const HARD_RECORDS = 200
/** With the 500 of the development set, less what both have, 9,925 edits. */
const CROWD_RECORDS = 10_000
/** Every so manieth message of the held-out teams. */
const HELD_STEP = 22

interface Line {
  readonly team: string
  readonly in_scope: readonly unknown[]
  readonly near_miss: readonly unknown[]
}

const given = (path: string) => join(flags.data, path)
const out = resolve(flags.out)
mkdirSync(out, { recursive: true })

function written(name: string, text: string): string {
  const path = join(out, name)
  writeFileSync(path, text)
  return path
}

const linesOf = (path: string) => readFileSync(path, 'utf8').split('\n').filter(Boolean)
const records = (name: string, path: string, count: number) =>
  written(name, JSON.stringify((JSON.parse(readFileSync(given(path), 'utf8')) as unknown[]).slice(0, count)))

function heldOutTeams(): string {
  const files = readdirSync(flags.corpus).filter((name) => name.endsWith('.jsonl'))
  const lines = files.sort().flatMap((name) => linesOf(join(flags.corpus, name)))
  let asked = 0
  const some = (messages: readonly unknown[]) => messages.filter(() => asked++ % HELD_STEP === 0)
  const kept = lines
    .map((line) => JSON.parse(line) as Line)
    .filter(({ team }) => heldOut(team))
    .map((line) => JSON.stringify({ ...line, in_scope: some(line.in_scope), near_miss: some(line.near_miss) }))
  return written('held-out.jsonl', `${kept.join('\n')}\n`)
}

const ofLanguage = (language: string) =>
  records(`${language}.json`, `multilingual/wikifactdiff-train-${language}-400.json`, LANGUAGE_RECORDS)
const asking = (edits: string, language: string) => [
  '--selection',
  ofLanguage(language),
  ...['--edit-language', edits, '--ask-language', language],
]

/** The arguments of `palimpsest eval`, one list a run. */
const SETS: Readonly<Record<string, () => readonly (readonly string[])[]>> = {
  trial: () => [['--selection', given('trial/trial-dev.jsonl')]],
  held: () => [['--selection', heldOutTeams()]],
  dune: () => [['--selection', given('dune/new-info-dev-100.jsonl')]],
  hallueditbench: () => {
    const some = linesOf(given('hallueditbench/dev-8-topics.jsonl')).filter((_, i) => i % HALLUCINATION_STEP === 0)
    return [['--selection', written('hallueditbench.jsonl', `${some.join('\n')}\n`)]]
  },
  hard: () => [['--selection', records('hard.json', 'counterfact/counterfact-dev-500.json', HARD_RECORDS)]],
  within: () => LANGUAGES.map((language) => asking(language, language)),
  across: () => LANGUAGES.map((language) => asking('en', language)),
  knowedit: () => [
    [
      '--data',
      given('knowedit/wiki_counterfact_train_500.json'),
      '--selection',
      '--limit',
      '100',
      '--out',
      join(out, 'knowedit'),
    ],
  ],
  crowd: () => [
    [
      ...['--data', given('counterfact/counterfact-dev-500.json'), '--selection', '--limit', '40', '--out', join(out, 'crowd')],
      ...['--memory', records('crowd.json', 'counterfact/counterfact-flat-12k.json', CROWD_RECORDS)],
      ...['--traffic', ...readdirSync(given('traffic')).map((name) => given(`traffic/${name}`)), '--traffic-limit', '100'],
    ],
  ],
}

for (const name of flags.only.split(',')) {
  const runs = SETS[name]?.()
  if (runs === undefined) throw new Error(`Expected some of ${Object.keys(SETS).join(', ')} for --only, got ${name}.`)
  for (const args of runs) {
    console.log(`\n$ palimpsest eval ${args.join(' ')}\n`)
    const { status } = spawnSync(process.execPath, ['bin/palimpsest.mjs', 'eval', ...args], { stdio: 'inherit' })
    if (status !== 0) throw new Error(`eval ended with ${status}.`)
  }
}
