import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { MODEL, serve } from '../http/fakes.ts'
import { talk } from './script.ts'

const run = promisify(execFile)
const VERSION = '3.57.0'
/** Installing takes a while the first time. */
const PATIENCE_MS = 300_000

/** A Python that has the official client; installed once, beside the models. */
async function python(): Promise<string> {
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
  } finally {
    rmSync(made, { recursive: true, force: true })
  }
  return program
}

test(
  'the official Python client: chat, streams, tools, responses, completions, embeddings, models, errors',
  async () => {
    const program = await python()
    const served = await serve({ script: { reply: talk } })
    try {
      const { stdout } = await run(program, [join(import.meta.dirname, 'python.py'), served.base, MODEL])
      expect(JSON.parse(stdout)).toEqual({
        chat: 'You said: Hello',
        arm: 'edited',
        streamed: 'You said: Hello',
        usage: true,
        // As the model wrote it, blanks and all.
        tool: ['tool_calls', '{"city": "Lund"}'],
        response: 'You said: Hello',
        response_streamed: 'You said: Hello',
        completion: ' and so on',
        dimensions: 16,
        models: [MODEL, `${MODEL}@base`, 'fake'],
        errors: {
          bad_request: ['BadRequestError', 400, 'invalid_value', 'temperature'],
          not_found: ['NotFoundError', 404, 'model_not_found', 'model'],
        },
      })
    } finally {
      await served.close()
    }
  },
  PATIENCE_MS,
)
