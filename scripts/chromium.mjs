#!/usr/bin/env node
// Prints the path of a Chromium that starts: the one at CHROMIUM, else one that is installed, else the one that the package
// @sparticuz/chromium carries, unpacked beside it. Plain JavaScript without dependencies of its own, since tests and benchmarks call it.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath, pathToFileURL } from 'node:url'

const MODULES = join(dirname(dirname(fileURLToPath(import.meta.url))), 'node_modules')
const CARRIED = join(MODULES, '@sparticuz', 'chromium')
const INSTALLED = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const MAC = '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'
const START_MS = 60_000

export const MEND = 'Debian: apt install chromium; elsewhere: install Chrome or Chromium, and set CHROMIUM to its program.'

const starts = (program) => spawnSync(program, ['--version'], { stdio: 'ignore', timeout: START_MS }).status === 0

function installed() {
  const folders = (process.env.PATH ?? '').split(process.platform === 'win32' ? ';' : ':').filter((folder) => folder !== '')
  const programs = [...folders.flatMap((folder) => INSTALLED.map((name) => join(folder, name))), MAC]
  return programs.find((program) => existsSync(program) && starts(program)) ?? null
}

/** In front of the carried browser: its libraries and fonts, where they were unpacked, and a locale: without one it calls its language "en-US@posix", which is no tag. */
const script = (folder) => `#!/bin/sh
export LD_LIBRARY_PATH="${folder}/al2023/lib\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" FONTCONFIG_FILE="${folder}/fonts/fonts.conf"
export LC_ALL=en_US.UTF-8
exec "${folder}/chromium" "$@"
`
const fontconfig = (folder) => `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>${folder}/fonts</dir>
  <cachedir>${folder}/fonts-cache</cachedir>
</fontconfig>
`

/** The package unpacks into the temporary folder of its process; told that it is on a Lambda, the libraries too. */
function carried() {
  if (process.platform !== 'linux' || process.arch !== 'x64' || !existsSync(CARRIED)) return null
  const { version } = JSON.parse(readFileSync(join(CARRIED, 'package.json'), 'utf8'))
  const cache = join(MODULES, '.cache')
  const folder = join(cache, `chromium-${version}`)
  const program = join(folder, 'palimpsest-chromium')
  if (!existsSync(program)) {
    mkdirSync(cache, { recursive: true })
    const fresh = mkdtempSync(join(cache, 'chromium-'))
    try {
      const unpack = `const { default: chromium } = await import(${JSON.stringify(pathToFileURL(join(CARRIED, 'build/esm/index.js')))}); await chromium.executablePath()`
      const env = { ...process.env, TMPDIR: fresh, VERCEL: '1' }
      const { status } = spawnSync(process.execPath, ['--input-type=module', '-e', unpack], { env, stdio: 'inherit' })
      if (status !== 0) return null
      writeFileSync(join(fresh, 'fonts', 'fonts.conf'), fontconfig(folder))
      writeFileSync(join(fresh, 'palimpsest-chromium'), script(folder), { mode: 0o755 })
      renameSync(fresh, folder)
    } catch (error) {
      // Another process was quicker.
      if (!existsSync(program)) throw error
    } finally {
      rmSync(fresh, { recursive: true, force: true })
    }
  }
  return starts(program) ? program : null
}

/** Null where there is none. */
export const findChromium = () => process.env.CHROMIUM || (installed() ?? carried())

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const found = findChromium()
  if (found === null) {
    process.stderr.write(`Expected a Chromium, but none is here that starts. ${MEND}\n`)
    process.exitCode = 1
  } else process.stdout.write(`${found}\n`)
}
