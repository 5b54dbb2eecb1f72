/** What both ways of `eval` need. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { z } from 'zod'
import type { Config } from '../../config.ts'
import type { Engine } from '../../engine/engine.ts'
import { openScripted } from '../../engine/scripted.ts'
import { PalimpsestError } from '../../errors.ts'
import type { Tick } from '../../evaluate/run.ts'
import type { Limits } from '../../gateway.ts'
import { cachedEmbedder } from '../../memory/vectors/cached-embedder.ts'
import type { Choice } from '../../models/default-model.ts'
import { openLog } from '../../server/console-log.ts'
import { openWeights } from '../../server/models.ts'
import { openParts } from '../../server/parts.ts'
import type { Bar } from '../../terminal/progress-bar.ts'

/** Vectors of every probe and masked text of a large run. */
const EMBED_CACHE_BYTES = 256 * 1024 * 1024

/** What was typed, checked. Throws `invalid_value`, naming the flag. */
export function readTyped<T extends z.ZodType>(schema: T, options: Record<string, unknown>): z.output<T> {
  const parsed = schema.safeParse(options)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const flag = `--${String(issue?.path[0]).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
  throw new PalimpsestError('invalid_value', `${flag}: ${issue?.message}.`, { param: flag })
}

/** Selection alone has no model to ask. Throws `invalid_value`. */
export function checkNoModel({ multiHop }: Config<Limits>): void {
  if (multiHop === 'model')
    throw new PalimpsestError('invalid_value', '--selection asks no model: give --multi-hop chain or off.', {
      param: '--multi-hop',
    })
}

/** What has to be closed at the end, the last opened first. */
export type Closing = (() => Promise<unknown>)[]

/** A gateway's parts over an empty memory in a folder of its own, which goes when `closing` is worked off. */
export async function openScratch(config: Config<Limits>, choice: Choice | null, closing: Closing, signal: AbortSignal) {
  const scratch = mkdtempSync(join(tmpdir(), 'palimpsest-eval-'))
  closing.push(async () => rmSync(scratch, { recursive: true, force: true }))
  const log = openLog(config.logLevel, [config.upstreamKey, config.hubToken])
  const weights = openWeights({ ...config, engine: 'embedded' }, choice, log, signal)
  closing.push(() => weights.close())
  const embedder = cachedEmbedder(await weights.embedder(), EMBED_CACHE_BYTES)
  const place = { dataDir: join(scratch, 'data'), editsDir: join(scratch, 'edits') }
  const reader = weights.reader()
  const parts = await openParts({ config: { ...config, ...place }, embedder, reader, log, watch: false, closing: signal })
  closing.push(() => parts.close())
  return { weights, embedder, parts }
}

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
