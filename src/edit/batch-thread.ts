import { Worker } from 'node:worker_threads'
import { PalimpsestError } from '../errors.ts'
import { type Batch, type ParseOptions, parseBatch } from './batch.ts'

/** A text from which on reading it takes long enough to be felt by others: some tens of milliseconds. */
const LONG_BYTES = 256 * 1_024
/** YAML is read some ten times slower. */
const LONG_YAML_BYTES = 16 * 1_024
/** 128 MiB of JSON take some ten seconds. */
const LONGEST_MS = 120_000
const MEMORY_MIB = 4_096

/** What the thread is sent, and sends. */
export interface ParseJob {
  readonly input: Uint8Array
  readonly options: ParseOptions
}
export type Parsed =
  | { readonly batch: Batch }
  | { readonly refused: Pick<PalimpsestError, 'code' | 'message' | 'param' | 'problems'> }
  | { readonly thrown: unknown }

/** As built: node runs no TypeScript in a thread. Sources, as tests run them, are read where they are called. */
const THREAD = import.meta.url.endsWith('.js') ? new URL('./batch-worker.js', import.meta.url) : null

/** One long text after the other: they would take each other's processor. */
let last: Promise<unknown> = Promise.resolve()

/** `parseBatch`, a long text in a thread of its own, so that everybody else is answered meanwhile. Throws `request_too_large` where that takes too long. */
export function parseBatchApart(input: Uint8Array, options: ParseOptions, signal: AbortSignal): Promise<Batch> {
  const isYaml = options.contentType?.includes('yaml') === true
  if (THREAD === null || input.length < (isYaml ? LONG_YAML_BYTES : LONG_BYTES))
    return Promise.resolve().then(() => parseBatch(input, options))
  const url = THREAD
  const mine = last.then(() => inThread(url, { input, options }, signal))
  last = mine.catch(() => {})
  return mine
}

async function inThread(url: URL, job: ParseJob, signal: AbortSignal): Promise<Batch> {
  signal.throwIfAborted()
  const worker = new Worker(url, { resourceLimits: { maxOldGenerationSizeMb: MEMORY_MIB } })
  let timer: NodeJS.Timeout | undefined
  let leave = () => {}
  try {
    const parsed = await new Promise<Parsed>((resolve, reject) => {
      timer = setTimeout(() => reject(tooLong(`takes more than ${LONGEST_MS / 1_000} s to read`)), LONGEST_MS)
      leave = () => reject(signal.reason)
      signal.addEventListener('abort', leave, { once: true })
      worker.once('message', resolve)
      worker.once('error', (error: NodeJS.ErrnoException) =>
        reject(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? tooLong(`takes more than ${MEMORY_MIB} MiB to read`) : error),
      )
      worker.postMessage(job)
    })
    return batchOf(parsed)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', leave)
    await worker.terminate()
  }
}

function batchOf(parsed: Parsed): Batch {
  if ('batch' in parsed) return parsed.batch
  if ('thrown' in parsed) throw parsed.thrown
  const { code, message, param, problems } = parsed.refused
  throw new PalimpsestError(code, message, { param, problems })
}

function tooLong(why: string): PalimpsestError {
  return new PalimpsestError('request_too_large', `The batch ${why}, and nothing of it was taken. Send it in parts.`)
}
