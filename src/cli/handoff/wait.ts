import { setTimeout as sleep } from 'node:timers/promises'
import { PalimpsestError } from '../../errors.ts'
import { duration } from '../../handoff/advice.ts'
import { isOver, type Job } from '../../handoff/job.ts'
import { Bar } from '../../terminal/progress-bar.ts'
import type { Client } from '../client/client.ts'
import { stageText } from '../text/handoff-text.ts'

const POLL_MS = 500
const TRIES = 6
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
  let before = ''
  try {
    for (;;) {
      job = await patiently(() => client.json<Job>('GET', handoffPath(begun.id)))
      for (const stage of job.stages.slice(shown).filter(({ ok }) => ok !== null)) {
        bar.log(`\n${stageText(stage)}\n`)
        shown++
      }
      if (isOver(job) || job.state === 'interrupted') return job
      if (!told && job.estimate_s !== null) {
        bar.log(`The editor expects about ${duration(job.estimate_s)} for this stage.`)
        told = true
      }
      // A log is told what is new, and no line twice.
      const at = JSON.stringify([job.state, job.progress])
      if (process.stderr.isTTY || at !== before) draw(bar, job)
      before = at
      if (interrupted) return await letGo(client, job)
      await sleep(POLL_MS)
    }
  } finally {
    bar.clear()
    process.off('SIGINT', interrupt)
  }
}

/** A machine at its limit drops a connection now and then. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask()
    } catch (error) {
      if (tries === TRIES || !(error instanceof PalimpsestError && error.code === 'network')) throw error
      await sleep(POLL_MS * tries)
    }
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
  bar.update({ label, done, total: of, unit: 'steps', perSecond: 0, secondsLeft })
}
