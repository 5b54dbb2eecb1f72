// Fetches what others wrote into a folder of this run. Nothing of it is kept in the repository.
import { spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'

/** Where suites lie already, as `OWNER+NAME`; each is a checkout or a bare repository. Absent: they are cloned. */
const KEPT = process.env.PALIMPSEST_TEST_SUITES ?? ''

/** Runs a program to its end; what it said, and how it ended. Never throws. */
export function ran(program, args, { cwd, env = {}, timeoutMs = 600_000 } = {}) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    let [out, err] = ['', '']
    child.stdout.on('data', (chunk) => {
      out += chunk
    })
    child.stderr.on('data', (chunk) => {
      err += chunk
    })
    child.on('error', (error) => {
      err += error.message
    })
    child.on('close', (code) => {
      clearTimeout(timer)
      resolve({ code, out, err })
    })
  })
}

/** The same; throws where it failed. */
export async function done(program, args, options) {
  const { code, out, err } = await ran(program, args, options)
  if (code !== 0)
    throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${(err || out).trim().split('\n').slice(-3).join(' ')}`)
  return out
}

/** A fresh copy of a public repository, `owner/name`, in `work`; its folder and the commit. */
export async function repository(ownerAndName, work) {
  const name = ownerAndName.replace('/', '+')
  const folder = join(work, name)
  const kept = join(KEPT, name)
  if (KEPT !== '' && existsSync(kept)) {
    const bare = [join(kept, 'repo'), kept].find((place) => existsSync(join(place, 'HEAD')))
    if (bare === undefined) cpSync(kept, folder, { recursive: true })
    else await done('git', ['clone', '--quiet', bare, folder])
  } else await done('git', ['clone', '--quiet', '--depth', '1', `https://github.com/${ownerAndName}.git`, folder])
  const commit = (await ran('git', ['rev-parse', '--short', 'HEAD'], { cwd: folder })).out.trim()
  return { folder, version: `${ownerAndName} ${commit}` }
}

/** npm packages, installed into a folder whose own list of packages is put aside. */
export async function packages(folder, names) {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{"private":true,"type":"module"}')
  await done('npm', ['install', '--no-audit', '--no-fund', '--silent', ...names], { cwd: folder })
}
