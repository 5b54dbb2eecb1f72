// The suites: how each is fetched and run, and what it said of each of its tests.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { gunzipSync, gzipSync } from 'node:zlib'
import { done, packages, ran, repository } from './obtain.mjs'
import { compared } from './openapi.mjs'

/** `count`: tests that the row stands for; absent: one. @typedef {{test: string, outcome: 'passed' | 'failed', count?: number, why: string}} Row */
/** @typedef {{baseUrl: string, model: string, embedder: string, work: string}} Target */

const COMPATCANARY = 'compatcanary@0.2.2'
const EXAMPLE_MS = 300_000

async function compatcanary({ baseUrl, model, work }) {
  const rows = []
  for (const profile of ['chat', 'modern']) {
    const report = join(work, `${profile}.json`)
    const asked = ['scan', '--base-url', baseUrl, '--model', model, '--profile', profile, '--format', 'json', '--output', report]
    await ran('npx', ['--yes', COMPATCANARY, ...asked, '--fail-on', 'never'])
    for (const { name, title, id, status, message, summary } of JSON.parse(readFileSync(report, 'utf8')).results)
      rows.push({ test: `${profile}: ${title ?? name ?? id}`, outcome: passed(status === 'pass'), why: message ?? summary ?? '' })
  }
  return { version: COMPATCANARY, rows }
}

async function openresponses({ baseUrl, model, work }) {
  const { folder, version } = await repository('openresponses/openresponses', work)
  await packages(folder, ['zod@3.25.76', 'tsx@4'])
  const asked = ['--base-url', baseUrl, '--api-key', process.env.OPENAI_API_KEY || 'none', '--model', model, '--json']
  const { out } = await ran('npx', ['tsx', 'bin/compliance-test.ts', ...asked], {
    cwd: folder,
    env: { NODE_OPTIONS: '--experimental-websocket' },
  })
  const rows = JSON.parse(out).results.map(({ id, status, errors = [] }) => ({
    test: id,
    outcome: passed(status === 'passed'),
    why: errors.join('; ').slice(0, 160),
  }))
  return { version, rows }
}

async function tester({ baseUrl, model, work }) {
  const { folder, version } = await repository('avelrl/openai-compatible-tester', work)
  const models = join(work, 'models.yaml')
  writeFileSync(models, `profiles:\n  - {name: one, chat_model: "${model}", responses_model: "${model}", extra: {}}\n`)
  await ran(
    'go',
    ['run', '.', '--base-url', baseUrl, '--models', models, '--no-tui', '--json', '--out-dir', join(work, 'tester')],
    {
      cwd: folder,
    },
  )
  const [report] = named(work, /^tester/)
  const [head, ...lines] = csv(readFileSync(join(work, report, 'raw.csv'), 'utf8'))
  const at = (line, column) => line[head.indexOf(column)] ?? ''
  const rows = lines.map((line) => ({
    test: at(line, 'test_id'),
    outcome: passed(at(line, 'status') === 'pass'),
    why: at(line, 'error_message').slice(0, 160),
  }))
  return { version, rows }
}

/** Asks what OpenAI was asked, and compares status and structure with what it answered then. */
async function fauxpenai({ baseUrl, model, embedder, work }) {
  const { folder, version } = await repository('aliok/FauxpenAI-conformance', work)
  const { folder: spec } = await repository('aliok/FauxpenAI-spec', work)
  await packages(folder, ['openai@4', 'yargs@17', 'tsx@4'])
  writeFileSync(join(folder, 'package.json'), '{"private":true}')
  const rows = []
  for (const [api, served] of [
    ['embeddings', embedder],
    ['chatcompletions', model],
  ]) {
    const [recorded, scenarios, results] = ['recorded.json.gz', 'scenarios.json', 'results.json.gz'].map((file) =>
      join(work, `${api}-${file}`),
    )
    recordedFor(join(spec, api, 'results.json.gz'), served, recorded, scenarios)
    const cli = (...args) =>
      ran('npx', ['tsx', 'src/index.ts', ...args], { cwd: folder, env: { OPENAI_API_KEY: 'none' }, timeoutMs: 3_600_000 })
    await cli(
      'runScenarios',
      `--api=${api}`,
      `--scenariosFile=${scenarios}`,
      `--resultsFile=${results}`,
      `--baseUrl=${baseUrl}`,
      '--rateLimit=200',
    )
    rows.push(...statuses(api, recorded, results))
  }
  return { version, rows }
}

/** The recorded requests that name a model of OpenAI's, for the model that is served here. */
function recordedFor(from, model, recorded, scenarios) {
  const all = Object.entries(JSON.parse(gunzipSync(readFileSync(from)).toString()))
  const kept = all.filter(([, { response }]) => response !== null)
  for (const [, { scenario }] of kept)
    if (/^(gpt|o\d|chatgpt|text-embedding)/.test(scenario.requestBody.model ?? '')) scenario.requestBody.model = model
  writeFileSync(recorded, gzipSync(JSON.stringify(Object.fromEntries(kept))))
  writeFileSync(scenarios, JSON.stringify(Object.fromEntries(kept.map(([key, { scenario }]) => [key, scenario]))))
}

/** A row for requests whose status is the recorded one, and one for each way in which others differ, with the reason that either side gave. */
function statuses(api, recorded, results) {
  const read = (file) => JSON.parse(gunzipSync(readFileSync(file)).toString())
  const [theirs, ours] = [read(recorded), read(results)]
  const differences = new Map()
  let same = 0
  for (const [key, { response: their }] of Object.entries(theirs)) {
    const our = ours[key]?.response
    if (our?.status === their.status) same++
    else {
      const refusal = String((their.status >= 400 ? their.body : our?.body)?.error?.message ?? '')
      const said = refusal.replace(/\d{4,}/g, 'N').slice(0, 90)
      const way = `${api}: ${their.status} recorded, ${our?.status ?? 'none'} here: ${said}`
      differences.set(way, (differences.get(way) ?? 0) + 1)
    }
  }
  const rows = [...differences].sort((a, b) => b[1] - a[1]).map(([test, count]) => ({ test, outcome: 'failed', count, why: '' }))
  return [{ test: `${api}: status as recorded`, outcome: 'passed', count: same, why: '' }, ...rows]
}

/** Examples that ask what this gateway serves: no audio, images, assistants, other clouds or sockets. */
const NODE_EXAMPLES = [
  ...'demo function-call-diy function-call-stream-raw function-call-stream function-call logprobs parsing-run-tools parsing-stream parsing-tools-stream parsing-tools parsing stream tool-call-helpers-zod tool-call-helpers tool-calls-stream types'
    .split(' ')
    .map((name) => `chat-completions/${name}.ts`),
  ...['client/errors.ts', 'client/raw-response.ts'],
  ...'manual-conversation-state stream streaming-tools structured-outputs-tools structured-outputs'
    .split(' ')
    .map((name) => `responses/${name}.ts`),
]
const PYTHON_EXAMPLES = [
  ...'async_demo demo module_client parsing parsing_stream parsing_tools parsing_tools_stream streaming'
    .split(' ')
    .map((name) => `${name}.py`),
  ...'streaming streaming_tools structured_outputs structured_outputs_tools'.split(' ').map((name) => `responses/${name}.py`),
]
/** Models that examples name. */
const NAMED = /(model\s*[:=]\s*|^model\s*=\s*)(['"])(gpt|o\d|chatgpt)[^'"]*\2/gm

async function nodeExamples({ baseUrl, model, work }) {
  const { folder, version } = await repository('openai/openai-node', work)
  const own = join(work, 'node-examples')
  await packages(own, ['openai@6', 'zod@4', 'tsx@4', 'zod-to-json-schema@3'])
  return {
    version,
    rows: await examples(join(folder, 'examples'), own, NODE_EXAMPLES, { baseUrl, model }, (file) => ['npx', ['tsx', file]]),
  }
}

async function pythonExamples({ baseUrl, model, work }) {
  const { folder, version } = await repository('openai/openai-python', work)
  const own = join(work, 'python-examples')
  await done('python3', ['-m', 'venv', own])
  const python = join(own, 'bin', 'python')
  await done(python, ['-m', 'pip', 'install', '--quiet', 'openai', 'rich'])
  return {
    version,
    rows: await examples(join(folder, 'examples'), own, PYTHON_EXAMPLES, { baseUrl, model }, (file) => [python, [file]]),
  }
}

/** Each runs as it is but for the model's name; one that ends by itself without an error has passed. */
async function examples(from, to, names, { baseUrl, model }, command) {
  const rows = []
  for (const name of names) {
    if (!existsSync(join(from, name))) continue
    const file = join(to, name.replaceAll('/', '-'))
    const text = readFileSync(join(from, name), 'utf8').replace(NAMED, (_, before, quote) => `${before}${quote}${model}${quote}`)
    writeFileSync(file, text.replaceAll("'openai/index'", "'openai'"))
    const [program, args] = command(file)
    const env = { OPENAI_BASE_URL: baseUrl, OPENAI_API_KEY: process.env.OPENAI_API_KEY || 'none' }
    const { code, err } = await ran(program, args, { cwd: to, env, timeoutMs: EXAMPLE_MS })
    const said = err.split('\n').filter((line) => /error/i.test(line))[0] ?? ''
    rows.push({
      test: name,
      outcome: passed(code === 0),
      why: code === 0 ? '' : code === null ? 'did not end' : said.trim().slice(0, 160),
    })
  }
  return rows
}

async function openapi({ baseUrl, work }) {
  const { folder, version } = await repository('openai/openai-openapi', work)
  const theirs = JSON.parse(readFileSync(join(folder, 'openapi.json'), 'utf8'))
  const ours = await (await fetch(new URL('/openapi.json', baseUrl))).json()
  return { version: `${version}, ${theirs.info.version}`, rows: compared(theirs, ours) }
}

export const SUITES = {
  compatcanary,
  openresponses,
  'openai-compatible-tester': tester,
  'fauxpenai-conformance': fauxpenai,
  'openai-node examples': nodeExamples,
  'openai-python examples': pythonExamples,
  openapi,
}

const passed = (yes) => (yes ? 'passed' : 'failed')

function named(folder, pattern) {
  return readdirSync(folder).filter((name) => pattern.test(name))
}

/** Rows of comma-separated values. */
function csv(text) {
  const fields = text.matchAll(/(?:"((?:[^"]|"")*)"|([^,"\n]*))(,|\n|$)/g)
  const rows = [[]]
  for (const [whole, quoted, plain, end] of fields) {
    if (whole === '') break
    rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'))
    if (end === '\n') rows.push([])
  }
  return rows.filter((row) => row.length > 1)
}
