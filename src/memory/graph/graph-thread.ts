import { setImmediate as yieldToLoop } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { type Built, build, type Round } from './graph-build.ts'

/** What the thread sends. */
export type Answer = { readonly built: Built } | { readonly failed: string }

/** As built: node runs no TypeScript in a thread. Sources, as tests run them, build where they are called, the same graph each time. */
const THREAD = import.meta.url.endsWith('.js') ? new URL('./graph-worker.js', import.meta.url) : null
const HERE_POINTS = 64

/** Builds in a thread of its own, on all processors that nobody else wants. Rejects when it fails, and when `signal` ends it. */
export async function buildApart(round: Round, signal: AbortSignal): Promise<Built> {
  signal.throwIfAborted()
  if (THREAD === null) return buildHere(round, signal)
  const worker = new Worker(THREAD)
  let leave = () => {}
  try {
    const answer = await new Promise<Answer>((resolve, reject) => {
      leave = () => reject(signal.reason)
      signal.addEventListener('abort', leave, { once: true })
      worker.once('message', resolve)
      worker.once('error', reject)
      worker.once('exit', (code) => reject(new Error(`the thread that builds it ended with ${code}`)))
      worker.postMessage(round)
    })
    if ('failed' in answer) throw new Error(answer.failed)
    return answer.built
  } finally {
    signal.removeEventListener('abort', leave)
    // Nothing is written any more when this returns.
    await worker.terminate()
  }
}

function buildHere(round: Round, signal: AbortSignal): Promise<Built> {
  const pause = async () => {
    await yieldToLoop()
    signal.throwIfAborted()
  }
  return build(round, { threads: 1, atOnce: HERE_POINTS, pause })
}
