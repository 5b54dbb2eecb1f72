/** What both roads of `eval` need. */
import type { Engine } from '../engine/engine.ts'
import { openScripted } from '../engine/scripted.ts'
import type { Tick } from '../evaluate/run.ts'
import type { Bar } from '../models/progress.ts'

/** Vectors of every probe and masked text of a large run. */
export const EMBED_CACHE_BYTES = 256 * 1024 * 1024

/** Bar with rate and time left, afresh for each label's stretch of work. */
export function ticker(bar: Bar): Tick {
  let began = { total: -1, at: 0 }
  return ({ label, done, total }) => {
    if (began.total !== total) began = { total, at: performance.now() - 1 }
    const perSecond = (done * 1000) / (performance.now() - began.at)
    bar.update({ label, done, total, unit: '', perSecond, secondsLeft: done === 0 ? null : (total - done) / perSecond })
  }
}

export function withoutModel(): Engine {
  return openScripted({
    name: 'none',
    reply: () => {
      throw new Error('selection alone asks no model')
    },
  })
}
