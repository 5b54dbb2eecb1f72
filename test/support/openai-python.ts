import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const VERSION = '3.57.0'

/** A Python that has OpenAI's client; installed once, beside the models, which takes minutes. */
export async function openaiPython(): Promise<string> {
  const cache = process.env.PALIMPSEST_HOME ?? join(homedir(), '.cache', 'palimpsest')
  const folder = join(cache, `python-openai-${VERSION}`)
  const program = join(folder, 'bin', 'python')
  if (existsSync(program)) return program
  const made = `${folder}.${process.pid}`
  mkdirSync(cache, { recursive: true })
  try {
    await run('python3', ['-m', 'venv', made])
    await run(join(made, 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', `openai==${VERSION}`])
    // Only `bin/python` is used, which does not mind having been moved.
    renameSync(made, folder)
  } catch (error) {
    // Another test was quicker.
    if (!existsSync(program)) throw error
  } finally {
    rmSync(made, { recursive: true, force: true })
  }
  return program
}
