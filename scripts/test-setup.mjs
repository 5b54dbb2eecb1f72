// What `npm test` needs beyond Node and npm, set up by itself: Debian's packages where it is root there, a browser, a llama-server.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import process from 'node:process'
import { findChromium, MEND } from './chromium.mjs'
import { say } from './prepare.mjs'

const CMAKE = 'cmake==3.31.10'
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

/** Names the browser in CHROMIUM; returns null, or what to do where there is none. */
export function setUpBrowser() {
  const found = findChromium() ?? (apt('chromium') ? findChromium() : null)
  if (found === null) return `no Chromium is here that starts. ${MEND}`
  process.env.CHROMIUM = found
  return null
}

/** The folder of a cmake that runs, to be put on the PATH ('' where it is there already); null where there is none. */
function cmakeFolder(home) {
  if (runs('cmake', '--version')) return ''
  const tools = join(home, 'tools', CMAKE.replace('==', '-'))
  const folder = join(tools, 'cmake', 'data', 'bin')
  const works = () => existsSync(folder) && runs(join(folder, 'cmake'), '--version')
  if (!works()) {
    say(`Installing ${CMAKE} (pip)`)
    quietly(PYTHON, '-m', 'pip', 'install', '--no-input', '--quiet', '--no-deps', '--upgrade', '--target', tools, CMAKE)
  }
  if (works()) return folder
  return apt('cmake') ? '' : null
}

/** The environment that a llama-server is built in. Where cmake is missing and cannot be had, the build names it. */
export function buildEnvironment(home) {
  const folder = cmakeFolder(home)
  return { ...process.env, ...(folder && { PATH: `${folder}${delimiter}${process.env.PATH}` }) }
}
