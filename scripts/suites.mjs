#!/usr/bin/env node
// Runs test suites that others wrote against a gateway that runs, and prints a page of what they said (docs/results/suites.md).
//   node scripts/suites.mjs --base-url http://127.0.0.1:8080/v1 --model NAME [--embedder NAME] [--note WORDS] [--write FILE] [SUITE…]
// Needs npm, git, go and python3, as the suites do. Ends with 1 where a test failed for a reason that is not listed in suites/reasons.json.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { SUITES } from './suites/suites.mjs'

const OPTIONS = {
  'base-url': { type: 'string', default: 'http://127.0.0.1:8080/v1' },
  model: { type: 'string' },
  embedder: { type: 'string', default: 'multilingual-e5-small' },
  // What the page says of the model that answered.
  note: { type: 'string' },
  write: { type: 'string' },
}

/** Why a failure stands: the first pattern that the test's name fits, by suite. */
const REASONS = JSON.parse(readFileSync(new URL('./suites/reasons.json', import.meta.url), 'utf8'))

const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true })
const unknown = positionals.find((name) => !Object.hasOwn(SUITES, name))
if (values.model === undefined || unknown !== undefined) {
  console.error(
    unknown === undefined
      ? 'Expected --model NAME, the model that the gateway serves.'
      : `There is no suite '${unknown}'. There are: ${Object.keys(SUITES).join(', ')}.`,
  )
  process.exit(2)
}

const results = []
for (const name of positionals.length > 0 ? positionals : Object.keys(SUITES)) {
  const work = mkdtempSync(join(tmpdir(), 'palimpsest-suites-'))
  try {
    const { version, rows } = await SUITES[name]({
      baseUrl: values['base-url'],
      model: values.model,
      embedder: values.embedder,
      work,
    })
    results.push({
      name,
      version,
      rows: rows.map((row) => ({ ...row, reason: row.outcome === 'failed' ? reasonFor(name, row.test) : null })),
    })
  } catch (error) {
    results.push({ name, version: '', rows: [{ test: 'the suite itself', outcome: 'failed', why: error.message, reason: null }] })
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  console.error(tally(results.at(-1)))
}
const page = pageOf(results)
if (values.write === undefined) console.log(page)
else writeFileSync(values.write, page)
const unexplained = results.flatMap(({ rows }) => rows).filter(({ outcome, reason }) => outcome === 'failed' && reason === null)
process.exit(unexplained.length > 0 ? 1 : 0)

function reasonFor(suite, test) {
  const [, reason = null] = Object.entries(REASONS[suite] ?? {}).find(([pattern]) => new RegExp(pattern).test(test)) ?? []
  return reason
}

function sum(rows, outcome) {
  return rows.filter((row) => row.outcome === outcome).reduce((total, { count = 1 }) => total + count, 0)
}

function tally({ name, rows }) {
  return `${name}: ${sum(rows, 'passed')} passed, ${sum(rows, 'failed')} failed`
}

function pageOf(suites) {
  const cell = (text) => text.replaceAll('|', '\\|').replaceAll('\n', ' ').replaceAll('<', '&lt;')
  const summary = suites.map(
    ({ name, version, rows }) => `| ${name} | ${version} | ${sum(rows, 'passed')} | ${sum(rows, 'failed')} |`,
  )
  const failures = suites.flatMap(({ name, rows }) =>
    rows
      .filter(({ outcome }) => outcome === 'failed')
      .map(
        ({ test, count, why, reason }) =>
          `| ${name} | ${cell(test)} | ${count ?? 1} | ${cell(reason ?? `not explained: ${why}`)} |`,
      ),
  )
  return [
    '# Suites that others wrote',
    '',
    `Written by \`node scripts/suites.mjs --model ${values.model} --write docs/results/suites.md\`, which fetches each suite and runs it against a gateway.`,
    ...(values.note === undefined ? [] : [values.note]),
    '',
    '| suite | version | passed | failed |',
    '|---|---|---|---|',
    ...summary,
    '',
    '## What fails, and why',
    '',
    '| suite | test | times | reason |',
    '|---|---|---|---|',
    ...failures,
    '',
  ].join('\n')
}
