/** The thread of `batch-thread.ts`: reads one text, answers, and ends. */
import { spawnSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'
import { basename } from 'node:path'
import { platform } from 'node:process'
import { parentPort } from 'node:worker_threads'
import type { Parsed, ParseJob } from './batch-thread.ts'

/**
 * A batch of megabytes gives way to whoever waits for an answer: by niceness, and where chrt is, by a policy that any other thread preempts at
 * once. Under niceness alone the reader's threads, which wait for each other many times an answer, wait for this one's turn to end as well.
 */
const NICENESS = 10

// On Linux a thread has a priority of its own, and 0 is this one (setpriority(2), "C library/kernel differences"); elsewhere it is the process.
if (platform === 'linux') {
  setPriority(0, NICENESS)
  spawnSync('chrt', ['--idle', '--pid', '0', basename(readlinkSync('/proc/thread-self'))])
}
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
