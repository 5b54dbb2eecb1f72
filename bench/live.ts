/**
 * What users of a gateway wait while a hand-off is made beside them: one short question every few seconds over the real model, first with
 * nothing beside it, then while the editor works. `npm run bench:live -- [--method memit] [--quiet 20] [--minutes 4] [--out FILE.json]`
 * Prints first tokens and whole answers of both, and how many of the questions came while the editor had work. Needs `palimpsest handoff setup`.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, homedir, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { isOver, type Job } from '../src/handoff/job.ts'
import { at, clientOf, median } from './client.ts'
import { ask } from './gateway/first.ts'
import { name } from './scale/vectors.ts'
import { startChild } from './served.ts'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string', default: join(homedir(), '.cache/palimpsest/models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf') },
    method: { type: 'string', default: 'memit' },
    edits: { type: 'string', default: '10' },
    quiet: { type: 'string', default: '20' },
    'pause-ms': { type: 'string', default: '3000' },
    minutes: { type: 'string', default: '4' },
    out: { type: 'string', default: '' },
  },
})
const TOKENS = 16

interface Waited {
  readonly firstMs: number
  readonly wholeMs: number
  /** Of the hand-off, when the question came; null: there was none. */
  readonly phase: string | null
}

const folder = mkdtempSync(join(tmpdir(), 'palimpsest-bench-live-'))
const folders = ['--data-dir', join(folder, 'data'), '--edits-dir', join(folder, 'edits')]
const gateway = await startChild(['--model', flags.model, '--threads', String(cpus().length), '--no-watch', ...folders])
const call = clientOf(gateway.url)

const model = basename(flags.model, '.gguf')
let serial = 0
async function waited(phase: string | null): Promise<Waited> {
  const content = `Question ${++serial}: write a short line about an old harbour in the rain.`
  const start = performance.now()
  const { firstMs } = await ask(gateway.url, { model, messages: [{ role: 'user', content }], max_tokens: TOKENS }, null)
  return { firstMs, wholeMs: performance.now() - start, phase }
}

async function asked(until: (count: number) => boolean, phaseOf = async (): Promise<string | null> => null): Promise<Waited[]> {
  const all: Waited[] = []
  while (!until(all.length)) {
    all.push(await waited(await phaseOf()))
    await sleep(Number(flags['pause-ms']))
  }
  return all
}

try {
  const edits = Array.from({ length: Number(flags.edits) }, (_, i) => {
    const subject = name(60_000_000 + i)
    return { id: `live-${i}`, subject, prompt: `The mayor of ${subject} is`, target_new: 'Ottilie Brandvold' }
  })
  await call('POST', '/v1/edits', edits)
  await asked((count) => count === 3)
  const quiet = await asked((count) => count === Number(flags.quiet))
  const { id } = await call<Job>('POST', '/v1/handoffs', { method: flags.method, edits: edits.map((edit) => edit.id) })
  const job = () => call<Job>('GET', `/v1/handoffs/${id}`)
  const ends = performance.now() + Number(flags.minutes) * 60_000
  let last = await job()
  const beside = await asked(
    () => isOver(last) || performance.now() > ends,
    async () => {
      last = await job()
      return last.progress?.phase ?? last.state
    },
  )
  if (!isOver(last)) await call('POST', `/v1/handoffs/${id}/cancel`)
  const figures = (all: readonly Waited[], of: (one: Waited) => number) =>
    [median(all.map(of)), at(all.map(of), 0.9)].map((ms) => ms.toFixed(0)).join(' / ')
  const phases = [...new Set(beside.map(({ phase }) => phase))].map(
    (phase) => `${phase} ${beside.filter((one) => one.phase === phase).length}`,
  )
  const ratio = median(beside.map(({ firstMs }) => firstMs)) / median(quiet.map(({ firstMs }) => firstMs))
  console.log(`| | questions | first token p50 / p90, ms | whole answer p50 / p90, ms |\n|---|---|---|---|`)
  for (const [what, all] of [
    ['quiet', quiet],
    [`beside ${flags.method}`, beside],
  ] as const)
    console.log(`| ${what} | ${all.length} | ${figures(all, (one) => one.firstMs)} | ${figures(all, (one) => one.wholeMs)} |`)
  console.log(`first token ${ratio.toFixed(2)} × quiet; questions by phase: ${phases.join(', ')}`)
  if (flags.out !== '') writeFileSync(flags.out, JSON.stringify({ setup: flags, quiet, beside }, null, 1))
} finally {
  await gateway.stop()
  rmSync(folder, { recursive: true, force: true })
}
