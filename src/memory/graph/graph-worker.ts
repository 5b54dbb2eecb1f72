/** The thread of `graph-thread.ts`: builds one graph, answers, and ends. */
import { availableParallelism } from 'node:os'
import { parentPort } from 'node:worker_threads'
import { giveWay } from '../../storage/background-thread.ts'
import { build, type Round } from './graph-build.ts'
import type { Answer } from './graph-thread.ts'

/** Points given to the library at once, for each of its threads: some hundredths of a second, after which it can be ended. */
const POINTS_A_THREAD = 256

parentPort?.once('message', async (round: Round) => {
  // The library's threads are children of this one, and as low.
  giveWay()
  const threads = availableParallelism()
  const pace = { threads, atOnce: threads * POINTS_A_THREAD, pause: () => undefined }
  const answer: Answer = await build(round, pace).then(
    (built) => ({ built }),
    (error: unknown) => ({ failed: error instanceof Error ? error.message : String(error) }),
  )
  parentPort?.postMessage(answer)
})
