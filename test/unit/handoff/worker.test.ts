import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { endOrphan, runWorker } from '../../../src/handoff/editor/process.ts'
import { readEvent, type WorkerEvent, type WorkerJob } from '../../../src/handoff/editor/protocol.ts'
import { HandoffFault } from '../../../src/handoff/fault.ts'

const STAND_IN = join(import.meta.dirname, '../../support/stand-ins/editor-stand-in.mjs')
const folder = mkdtempSync(join(tmpdir(), 'palimpsest-worker-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
let runs = 0

const EDITS = ['one', 'two', 'three', 'four'].map((id) => ({
  id,
  subject: id,
  prompt: `${id} is`,
  target_new: id.toUpperCase(),
  paraphrases: [],
}))

async function work(
  act: string,
  more: {
    ms?: number
    signal?: AbortSignal
    in?: string
    python?: string
    onEvent?: (e: WorkerEvent) => void
    isBusy?: () => boolean
    pauseMs?: number
    silenceMs?: number
  } = {},
) {
  const own = more.in ?? join(folder, String(runs++))
  const events: WorkerEvent[] = []
  const job: WorkerJob = {
    ...{
      task: 'edit',
      base: { path: 'base.gguf', sha256: 'a' },
      work_dir: join(own, 'work'),
      out_dir: join(own, 'out'),
      cache_dir: own,
    },
    ...{ method: 'memit', edits: EDITS, hparams: { act, ms: more.ms ?? 0 }, device: 'cpu', dtype: 'auto', threads: 1, seed: 0 },
    ...{ limits: {}, export: { name: 'adapter' } },
  }
  const run = runWorker({
    editor: { python: more.python ?? STAND_IN, source: null, environment: process.env },
    ...{ job, folder: own },
    limits: {
      ...{ handoffCancelMs: 300, handoffEventBytes: 100_000 },
      handoffSilenceMs: more.silenceMs ?? (act === 'silent' ? 1_500 : 60_000),
      ...{ handoffQuietMs: 100, handoffPauseMs: more.pauseMs ?? 60_000, handoffRunMs: 300 },
    },
    isBusy: more.isBusy ?? (() => false),
    signal: more.signal ?? new AbortController().signal,
    onEvent: (event) => {
      events.push(event)
      more.onEvent?.(event)
    },
  })
  const outcome = await run.then(
    ({ result, pausedSeconds }) => ({ result, pausedSeconds, fault: null }),
    (error: unknown) => ({ result: null, pausedSeconds: 0, fault: error instanceof HandoffFault ? error.fault : error }),
  )
  return { ...outcome, events, folder: own }
}

describe('the worker', () => {
  it('is given a job, tells how far it is, and brings a result', async () => {
    const { result, events, folder: own } = await work('work')
    expect(events.map(({ event }) => event)).toEqual([
      'started',
      'plan',
      'progress',
      'progress',
      'progress',
      'progress',
      'note',
      'result',
    ])
    expect(result).toMatchObject({ seconds: 2, adapter: { rank: 4 } })
    const job = JSON.parse(readFileSync(join(own, 'worker-job.json'), 'utf8'))
    expect(job).toMatchObject({ protocol: 1, task: 'edit', base: { sha256: 'a' }, edits: [{ id: 'one' }, {}, {}, {}] })
  })

  it.each([
    ['wrong_base', 'wrong_base', /sha256 b…/, /being served/],
    ['nan', 'nan', /not finite/, /Lower hparams\.lr/],
    ['memory', 'memory', /10\.2 GB in use/, /limits\.memory_bytes/],
    ['killed', 'killed', /ran out of memory/, /--memory.*bfloat16.*resume/],
    ['crash', 'crashed', /status 139.*Segmentation fault/, /resume/],
    ['malformed', 'malformed_event', /no JSON: Loading weights/, /setup/],
    ['odd_event', 'malformed_event', /done: .*three/, /setup/],
    ['long', 'malformed_event', /more than 100000 bytes/, /setup/],
    ['other_protocol', 'protocol', /protocol 2/, /setup/],
    ['silent', 'hung', /said nothing/, /resume/],
  ])('%s ends as %s, and says what to change', async (act, code, message, change) => {
    const { fault } = await work(act)
    expect(fault).toMatchObject({ code, message: expect.stringMatching(message), change: expect.stringMatching(change) })
  })

  describe.skipIf(process.platform === 'win32')('gives way while answers are written', () => {
    /** When each event came, in milliseconds since the first. */
    const timed = () => {
      const at: number[] = []
      return { at, onEvent: () => void at.push(performance.now()) }
    }
    const longestGap = (at: readonly number[]) => Math.max(...at.slice(1).map((time, i) => time - (at[i] ?? 0)))

    it('paused at once, going on when it is quiet; a pause is no silence, and no time that it worked', async () => {
      const { at, onEvent } = timed()
      let busy = false
      const paused = (event: WorkerEvent) => {
        onEvent()
        if (event.event !== 'progress' || event.done !== 1) return
        busy = true
        setTimeout(() => {
          busy = false
        }, 2_500)
      }
      const { result, pausedSeconds } = await work('work', { ms: 100, onEvent: paused, isBusy: () => busy, silenceMs: 1_500 })
      expect(result).toMatchObject({ seconds: 0, adapter: { rank: 4 } })
      expect(pausedSeconds).toBeGreaterThan(2.4)
      expect(longestGap(at)).toBeGreaterThan(2_400)
      expect(at).toHaveLength(8)
    })

    it('and goes on for a while where answers never end', async () => {
      const { result, pausedSeconds } = await work('work', { ms: 50, isBusy: () => true, pauseMs: 400 })
      expect(result).toMatchObject({ adapter: { rank: 4 } })
      expect(pausedSeconds).toBeGreaterThan(0.3)
    })

    it('and is cancelled while it is paused', async () => {
      const stop = new AbortController()
      setTimeout(() => stop.abort(new Error('enough')), 1_000)
      const began = performance.now()
      expect((await work('work', { ms: 50, isBusy: () => true, signal: stop.signal })).fault).toMatchObject({ message: 'enough' })
      expect(performance.now() - began).toBeLessThan(20_000)
    })
  })

  it('says so where there is no Python, or no editor in it', async () => {
    expect((await work('work', { python: '/nowhere/python' })).fault).toMatchObject({
      code: 'no_editor',
      change: expect.stringMatching(/setup/),
    })
    expect((await work('work', { python: 'python3' })).fault).toMatchObject({
      code: 'no_editor',
      message: expect.stringMatching(/No module named/),
    })
  })

  it('ends at its next check when it is told to, and goes on from there', async () => {
    const stop = new AbortController()
    const first = await work('work', {
      ms: 40,
      signal: stop.signal,
      onEvent: (event) => event.event === 'progress' && event.done === 2 && stop.abort(new Error('cancelled')),
    })
    expect(first.fault).toMatchObject({ message: 'cancelled' })
    const second = await work('work', { in: first.folder })
    expect(second.events.filter(({ event }) => event === 'progress').map((e) => (e as { done: number }).done)).toEqual([2, 3])
    expect(second.result).not.toBeNull()
  })

  it('is killed when it does not listen', async () => {
    const stop = new AbortController()
    const began = performance.now()
    const { fault } = await work('deaf', {
      ms: 20_000,
      signal: stop.signal,
      onEvent: ({ event }) => event === 'plan' && stop.abort(new Error('cancelled')),
    })
    expect(fault).toMatchObject({ message: 'cancelled' })
    expect(performance.now() - began).toBeLessThan(10_000)
  })

  it('leaves a process alone that is none of its own', () => {
    endOrphan(process.pid, folder)
    expect(process.pid).toBeGreaterThan(0)
  })
})

describe('an event', () => {
  it('may bring fields that this version does not know', () => {
    expect(readEvent('{"event":"progress","stage":"layers","done":1,"of":5,"layer":4}')).toMatchObject({ layer: 4 })
  })

  it('is refused with the field at fault', () => {
    expect(() => readEvent('{"event":"result","seconds":1}')).toThrow(/peak_bytes/)
    expect(() => readEvent('{"event":"surprise"}')).toThrow(/not as agreed/)
  })
})
