import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { MODEL, serve } from '../http/fakes.ts'
import { openaiPython } from '../support/openai-python.ts'
import { talk } from './script.ts'

const run = promisify(execFile)
/** Installing takes a while the first time. */
const PATIENCE_MS = 300_000

test(
  'the official Python client: chat, streams, tools, responses, completions, embeddings, models, errors',
  async () => {
    const program = await openaiPython()
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
        embeddings_equal: true,
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
