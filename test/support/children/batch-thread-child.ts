/** Reads a long batch as the gateway does, and prints what came of it and for how long nobody else would have been answered. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseBatchApart } from '../../../src/edit/batch-thread.ts'
// Built with this, since a thread is named by its file.
import '../../../src/edit/batch-worker.ts'
import { PalimpsestError } from '../../../src/errors.ts'

const never = new AbortController().signal
const yaml = (count: number) => Buffer.from('- text: It rains.\n'.repeat(count))
const options = { tenant: 'default', contentType: 'application/yaml' }

const delay = monitorEventLoopDelay({ resolution: 5 })
const begun = performance.now()
delay.enable()
const { edits } = await parseBatchApart(yaml(20_000), options, never)
delay.disable()
const ms = performance.now() - begun
const refused = await parseBatchApart(Buffer.from(`${'- text: a\n'.repeat(5_000)}- txt: b\n`), options, never).catch(
  (error: unknown) => (error instanceof PalimpsestError ? { code: error.code, problems: error.problems } : String(error)),
)
const leaving = new AbortController()
const left = parseBatchApart(yaml(200_000), options, leaving.signal).catch((error: unknown) => String(error))
await sleep(50)
leaving.abort(new Error('the client left'))
process.stdout.write(JSON.stringify({ edits: edits.length, ms, longestMs: delay.max / 1e6, refused, left: await left }))
