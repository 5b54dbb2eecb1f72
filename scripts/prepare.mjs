// Brings a clone up to date: installs what is missing and builds what has changed. Plain JavaScript without dependencies, since nothing is
// installed yet. `node scripts/prepare.mjs` does no more than that.
import { spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import process from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const NODE_MAJOR = 20
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
export const MODULES = join(ROOT, 'node_modules')
export const DIST = join(ROOT, 'dist')
const SHOWN_LINES = 25
/** Compiling the native modules takes minutes on a small machine: say now and then that it goes on. */
const STILL_ALIVE_MS = 30_000
/** A lock folder without an owner's note this old was left by a process killed between the two steps. */
const NOTELESS_LOCK_MS = 5_000
const LOCK_POLL_MS = 300

export class Trouble extends Error {}

export const say = (line) => process.stderr.write(`${line}\n`)
const sha256 = (text) => createHash('sha256').update(text).digest('hex')
export const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(1)} s`

export function readOr(path, otherwise) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return otherwise
  }
}

function checkNode() {
  if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR) return
  throw new Trouble(
    `Palimpsest needs Node ${NODE_MAJOR} or newer; this is ${process.versions.node}. Install a newer one from nodejs.org, or with nvm: nvm install 22`,
  )
}

/** Runs a command to its end without showing it; resolves to its exit code and what it said. */
export function quietly(command, args, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'], ...options })
    const stop = () => child.kill()
    process.once('exit', stop)
    let said = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text))
    child.on('error', (error) => resolve({ code: 127, said: `${said}${error.message}` }))
    child.on('close', (code, signal) => {
      process.off('exit', stop)
      resolve({ code: code ?? 1, said: signal ? `${said}ended by ${signal}` : said })
    })
  })
}

/** npm as the one that started us (`npm start` names itself), else the one on the PATH. */
function npm(args, options) {
  const own = process.env.npm_execpath ?? ''
  if (basename(own) === 'npm-cli.js') return quietly(process.execPath, [own, ...args], options)
  return quietly(process.platform === 'win32' ? 'npm.cmd' : 'npm', args, { shell: process.platform === 'win32', ...options })
}

export const tail = (text) => text.trimEnd().split('\n').slice(-SHOWN_LINES).join('\n')

// ---- one start at a time -------------------------------------------------------------------------------------------------------

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

/** Pid of the process that holds the lock folder; 0 when it is dead or never wrote its note; null when the note may yet come. */
function lockOwner(lock) {
  const pid = Number(readOr(join(lock, 'pid'), '0'))
  if (pid > 0) return isAlive(pid) ? pid : 0
  const age = Date.now() - (statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? 0)
  return age < NOTELESS_LOCK_MS ? null : 0
}

/** Moves a dead process's lock out of the way. Moving is atomic; should it turn out to be a living one's, it goes back. */
function clearStale(lock) {
  const aside = `${lock}.${randomBytes(4).toString('hex')}`
  try {
    renameSync(lock, aside)
    if (lockOwner(aside) !== 0) renameSync(aside, lock)
    else rmSync(aside, { recursive: true, force: true })
  } catch {
    // Another start was quicker.
  }
}

/** Holds `lock` while `work` runs; a second start in the same clone waits for the first. */
async function alone(lock, work) {
  mkdirSync(dirname(lock), { recursive: true })
  for (let told = false; ; ) {
    try {
      mkdirSync(lock)
      break
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    const owner = lockOwner(lock)
    if (owner === 0) {
      clearStale(lock)
      continue
    }
    if (!told && owner !== null) say(`Process ${owner} is installing or building in this clone: waiting for it`)
    told ||= owner !== null
    await sleep(LOCK_POLL_MS)
  }
  const release = () => rmSync(lock, { recursive: true, force: true })
  process.once('exit', release)
  writeFileSync(join(lock, 'pid'), String(process.pid))
  try {
    return await work()
  } finally {
    process.off('exit', release)
    release()
  }
}

// ---- dependencies --------------------------------------------------------------------------------------------------------------

/** True when what an `npm ci` by hand left in node_modules is what package-lock.json asks for. */
function handInstalled(lockText) {
  try {
    const wanted = JSON.parse(lockText).packages
    const there = JSON.parse(readFileSync(join(MODULES, '.package-lock.json'), 'utf8')).packages
    const same = Object.entries(there).every(
      ([path, p]) => wanted[path]?.version === p.version && wanted[path]?.integrity === p.integrity,
    )
    return (
      same &&
      Object.entries(wanted).every(
        ([path, p]) => path === '' || p.optional || p.devOptional || p.peer || there[path] !== undefined,
      )
    )
  } catch {
    return false
  }
}

function installAdvice(said) {
  if (/node-gyp|not found: make|g\+\+|\bCXX\b|gyp ERR/.test(said)) {
    return 'A dependency without a binary for this machine is compiled: a C++ compiler, make and Python 3 are needed (Debian: apt install g++ make python3; macOS: xcode-select --install).'
  }
  if (/ENOTFOUND|ETIMEDOUT|ECONNREFUSED|ECONNRESET|EAI_AGAIN/.test(said))
    return "npm could not reach its registry: check the network and npm's proxy settings (npm config list)."
  if (/ENOSPC/.test(said)) return 'The disk is full: about 600 MB are needed here.'
  if (/EACCES|EPERM/.test(said)) return `${ROOT} cannot be written by this user.`
  if (/spawn npm\S* ENOENT|npm: (?:command )?not found/.test(said))
    return 'npm was not found: it comes with Node; install both from nodejs.org.'
  if (/in sync/.test(said))
    return 'package-lock.json does not fit package.json: run "npm install" once, and look at what it changes.'
  return 'The lines above are npm\'s. Run "npm ci" by hand to see all of them.'
}

async function install() {
  const lockText = readOr(join(ROOT, 'package-lock.json'), '')
  const stamp = join(MODULES, '.palimpsest-lock')
  if (readOr(stamp, '') === sha256(lockText)) return
  if (!handInstalled(lockText)) {
    if (lstatSync(MODULES, { throwIfNoEntry: false })?.isSymbolicLink())
      throw new Trouble(
        `${MODULES} is a link, and what it leads to does not fit this package-lock.json. Installing here would empty that folder for whoever else uses it: remove the link and start again.`,
      )
    const start = Date.now()
    say('Installing dependencies (npm ci), a minute or two the first time')
    const alive = setInterval(() => say(`Still installing, ${seconds(start)} so far`), STILL_ALIVE_MS)
    const { code, said } = await npm(['ci', '--no-audit', '--no-fund', '--loglevel=error'])
    clearInterval(alive)
    if (code !== 0) throw new Trouble(`${tail(said)}\n\nInstalling the dependencies failed. ${installAdvice(said)}`)
    say(`Dependencies installed in ${seconds(start)}`)
  }
  writeFileSync(stamp, sha256(lockText))
}

/** package.json replaces node-llama-cpp's CUDA builds (over 400 MB) by an empty package, since most machines cannot use them. Where there is an NVIDIA GPU, the real ones of the same version are put in their place. */
async function installCuda() {
  if (process.platform !== 'linux' || process.arch !== 'x64' || process.env.PALIMPSEST_GPU === 'off') return
  const scope = join(MODULES, '@node-llama-cpp')
  const isStub = (name) => JSON.parse(readOr(join(scope, name, 'package.json'), '{}')).name === 'empty-npm-package'
  const stubs = ['linux-x64-cuda', 'linux-x64-cuda-ext'].filter(isStub)
  if (stubs.length === 0 || spawnSync('nvidia-smi', ['-L'], { timeout: 10_000, stdio: 'ignore' }).status !== 0) return
  const { version } = JSON.parse(readFileSync(join(MODULES, 'node-llama-cpp', 'package.json'), 'utf8'))
  const start = Date.now()
  say('An NVIDIA GPU is here: fetching the CUDA builds (PALIMPSEST_GPU=off skips this)')
  const prefix = mkdtempSync(join(MODULES, '.cuda-'))
  try {
    writeFileSync(join(prefix, 'package.json'), '{"private":true}')
    const specs = stubs.map((name) => `@node-llama-cpp/${name}@${version}`)
    const args = [
      'install',
      '--prefix',
      prefix,
      '--no-save',
      '--no-package-lock',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      '--loglevel=error',
      ...specs,
    ]
    const { code, said } = await npm(args, { cwd: prefix })
    if (code !== 0)
      return say(
        `${tail(said)}\nThe CUDA builds could not be fetched; the processor answers instead. The next start tries again.`,
      )
    for (const name of stubs) {
      rmSync(join(scope, name), { recursive: true, force: true })
      renameSync(join(prefix, 'node_modules', '@node-llama-cpp', name), join(scope, name))
    }
    say(`CUDA builds installed in ${seconds(start)}`)
  } finally {
    rmSync(prefix, { recursive: true, force: true })
  }
}

// ---- build ---------------------------------------------------------------------------------------------------------------------

/** Changes whenever a source file does: paths, times of change and lengths. */
function sourceStamp() {
  const files = readdirSync(join(ROOT, 'src'), { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => join(e.parentPath ?? e.path, e.name))
  const configs = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json']
    .map((f) => join(ROOT, f))
    .filter((f) => existsSync(f))
  const lines = [...files, ...configs].sort().map((f) => {
    const { mtimeMs, size } = statSync(f)
    return `${f} ${mtimeMs} ${size}`
  })
  return sha256(lines.join('\n'))
}

async function build() {
  const stamp = join(DIST, '.stamp')
  const now = sourceStamp()
  if (existsSync(join(DIST, 'main.js')) && readOr(stamp, '') === now) return
  const start = Date.now()
  say('Building')
  const { code, said } = await quietly(process.execPath, [join(MODULES, 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json'])
  if (code !== 0) throw new Trouble(`${tail(said)}\n\nThe build failed: the lines above are the compiler's.`)
  writeFileSync(stamp, now)
  say(`Built in ${seconds(start)}`)
}

async function prepare() {
  checkNode()
  await alone(join(DIST, '.preparing'), async () => {
    await install()
    await installCuda()
    await build()
  })
}

// An interrupt during preparation ends npm and the compiler with us, and must free the lock ("exit" handlers do not run on signals).
const interrupted = () => process.exit(130)

/** Says what failed and sets the exit code; true where all is ready. `first`: what is set up before anything is installed. */
export async function prepared(first = () => {}) {
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, interrupted)
  try {
    first()
    await prepare()
    return true
  } catch (error) {
    say(error instanceof Trouble ? error.message : (error?.stack ?? String(error)))
    process.exitCode = 1
    return false
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM']) process.off(signal, interrupted)
  }
}

// `--clean` is for `npm pack`: what an earlier build left must not be published.
if (process.argv[1] === fileURLToPath(import.meta.url))
  await prepared(() => process.argv.includes('--clean') && rmSync(DIST, { recursive: true, force: true }))
