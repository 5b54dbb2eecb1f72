import { setTimeout as sleep } from 'node:timers/promises'
import { PalimpsestError } from '../errors.ts'
import { duration } from '../handoff/advise.ts'
import { isOver, type Job } from '../handoff/job.ts'
import { Bar } from '../models/progress.ts'
import type { Client } from './client.ts'
import { stageText } from './handoff-text.ts'

const POLL_MS = 500
const INTERRUPTED = 130

export const handoffPath = (id: string, what = ''): string => `/v1/handoffs/${encodeURIComponent(id)}${what}`

/**
 * Follows a hand-off to its end, with a bar, each stage's figures as they come. Ctrl-C cancels it where the gateway is this very process,
 * and otherwise only stops watching.
 */
export async function follow(client: Client, begun: Job): Promise<Job> {
  const bar = new Bar(process.stderr, () => performance.now())
  let interrupted = false
  const interrupt = () => {
    interrupted = true
  }
  process.on('SIGINT', interrupt)
  let job = begun
  let shown = job.stages.filter(({ ok }) => ok !== null).length
  let told = false
  try {
    for (;;) {
      job = await client.json<Job>('GET', handoffPath(job.id))
      for (const stage of job.stages.slice(shown).filter(({ ok }) => ok !== null)) {
        bar.log(`\n${stageText(stage)}\n`)
        shown++
      }
      if (isOver(job) || job.state === 'interrupted') return job
      if (!told && job.estimate_s !== null) {
        bar.log(`The editor expects about ${duration(job.estimate_s)} for this stage.`)
        told = true
      }
      draw(bar, job)
      if (interrupted) return await letGo(client, job)
      await sleep(POLL_MS)
    }
  } finally {
    bar.clear()
    process.off('SIGINT', interrupt)
  }
}

async function letGo(client: Client, { id }: Job): Promise<Job> {
  if (client.inProcess) return client.json<Job>('POST', handoffPath(id, '/cancel'))
  process.exitCode = INTERRUPTED
  throw new PalimpsestError(
    'cancelled',
    `It goes on in the gateway. See: palimpsest handoff status ${id}; end it: palimpsest handoff cancel ${id}`,
  )
}

function draw(bar: Bar, { progress, state, plan }: Job): void {
  const waiting = { label: state, done: 0, total: null, unit: '', perSecond: 0, secondsLeft: null }
  if (progress === null) {
    bar.update(waiting)
    return
  }
  const { stage, phase, done, of, seconds_left: secondsLeft } = progress
  const label = `stage ${stage} of ${plan.length}, ${phase}`
  bar.update({ label, done, total: of, unit: '', perSecond: 0, secondsLeft })
}
