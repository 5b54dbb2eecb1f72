/** The thread of `batch-thread.ts`: reads one text, answers, and ends. */
import { parentPort } from 'node:worker_threads'
import { giveWay } from '../storage/background-thread.ts'
import type { Parsed, ParseJob } from './batch-thread.ts'

giveWay()
// Only then, since loading what reads takes as long as a small batch.
const [{ parseBatch }, { PalimpsestError }] = await Promise.all([import('./batch.ts'), import('../errors.ts')])

parentPort?.once('message', ({ input, options }: ParseJob) => {
  parentPort?.postMessage(parsed(input, options))
})

function parsed(input: Uint8Array, options: ParseJob['options']): Parsed {
  try {
    return { batch: parseBatch(input, options) }
  } catch (error) {
    if (!(error instanceof PalimpsestError)) return { thrown: error }
    const { code, message, param, problems } = error
    return { refused: { code, message, param, problems } }
  }
}
