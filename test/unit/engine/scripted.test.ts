import { describe, expect, it } from 'vitest'
import type { Finish, Piece } from '../../../src/engine/engine.ts'
import { openScripted, type ScriptedOptions } from '../../../src/engine/scripted.ts'
import type { Sampling } from '../../../src/request.ts'
import { Trace } from '../../../src/trace.ts'

const GREEDY: Sampling = { temperature: 0, topP: 1, stop: [] }
const never = new AbortController().signal
const prompt = (content: string) => ({ messages: [{ role: 'user' as const, content }] })
const open = (options: Partial<ScriptedOptions> = {}) => openScripted({ name: 'scripted', reply: () => 'a reply', ...options })
const trace = () => new Trace('t', () => 0)

async function collect(stream: AsyncGenerator<Piece, Finish>): Promise<{ pieces: string[]; finish: Finish }> {
  const pieces: string[] = []
  for (;;) {
    const { value, done } = await stream.next()
    if (done) return { pieces, finish: value }
    pieces.push(value.text)
  }
}

describe('the scripted engine', () => {
  it('gives the reply in pieces, one a token, and counts them', async () => {
    const { pieces, finish } = await collect(
      open({ reply: () => ['Par', 'is', '.'] }).generate(prompt('Hi'), GREEDY, trace(), never),
    )
    expect(pieces).toEqual(['Par', 'is', '.'])
    expect(finish).toMatchObject({ reason: 'stop', completionTokens: 3 })
  })

  it('ends at maxTokens with the reason length, and at a stop string without it', async () => {
    const engine = open({ reply: () => ['one ', 'two ', 'thr', 'ee'] })
    const short = await collect(engine.generate(prompt('Hi'), { ...GREEDY, maxTokens: 2 }, trace(), never))
    expect(short).toMatchObject({ pieces: ['one ', 'two '], finish: { reason: 'length', completionTokens: 2 } })
    const stopped = await collect(engine.generate(prompt('Hi'), { ...GREEDY, stop: ['three'] }, trace(), never))
    expect(stopped).toMatchObject({ pieces: ['one ', 'two '], finish: { reason: 'stop' } })
  })

  it('takes the beginning of a repeated prompt from the cache and says so in the trace', async () => {
    const engine = open()
    const long = 'word '.repeat(200)
    const [before, after] = [trace(), trace()]
    await collect(engine.generate(prompt(long), GREEDY, before, never))
    const { finish } = await collect(engine.generate(prompt(`${long}and more`), GREEDY, after, never))
    expect(before.tokensCached).toBe(0)
    expect(after.tokensCached).toBeGreaterThan(after.promptTokens / 2)
    expect(finish.cachedTokens).toBe(after.tokensCached)
  })

  it('refuses a prompt that leaves no room for an answer, with both numbers', async () => {
    const engine = open({ contextTokens: 10 })
    await expect(collect(engine.generate(prompt('x'.repeat(100)), GREEDY, trace(), never))).rejects.toMatchObject({
      code: 'context_length_exceeded',
      message: expect.stringMatching(/\b27\b.*\b10\b/),
    })
  })

  it('frees its slot when the reader leaves early', async () => {
    const engine = open({ reply: () => ['a', 'b', 'c'] })
    const stream = engine.generate(prompt('Hi'), GREEDY, trace(), never)
    await stream.next()
    expect(engine.load().busy).toBe(1)
    await stream.return({ reason: 'stop', promptTokens: 0, completionTokens: 0, cachedTokens: 0 })
    expect(engine.load().busy).toBe(0)
  })

  it('throws the reason of an abort, in the queue and while decoding', async () => {
    const engine = open({ slots: 1, delayMs: 60_000 })
    const [running, waiting] = [new AbortController(), new AbortController()]
    const decoding = collect(engine.generate(prompt('a'), GREEDY, trace(), running.signal))
    const queued = collect(engine.generate(prompt('b'), GREEDY, trace(), waiting.signal))
    const [first, second] = [expect(decoding).rejects.toThrow('first'), expect(queued).rejects.toThrow('second')]
    waiting.abort(new Error('second'))
    await second
    expect(engine.load()).toMatchObject({ busy: 1, queued: 0 })
    running.abort(new Error('first'))
    await first
    expect(engine.load().busy).toBe(0)
  })

  it('refuses with queue_full before the first piece', async () => {
    const engine = open({ slots: 1, queueLimit: 0, delayMs: 60_000 })
    const gone = new AbortController()
    const running = collect(engine.generate(prompt('a'), GREEDY, trace(), gone.signal)).catch(() => null)
    await expect(engine.generate(prompt('b'), GREEDY, trace(), never).next()).rejects.toMatchObject({
      code: 'queue_full',
      retryAfterSeconds: 1,
    })
    gone.abort()
    await running
  })

  it('closes: lets the running request end and refuses new ones', async () => {
    const engine = open({ reply: () => ['a', 'b'], delayMs: 1 })
    const stream = engine.generate(prompt('Hi'), GREEDY, trace(), never)
    await stream.next()
    const closed = engine.close(60_000)
    expect((await collect(stream)).finish.reason).toBe('stop')
    await closed
    await expect(engine.generate(prompt('Hi'), GREEDY, trace(), never).next()).rejects.toMatchObject({ code: 'shutting_down' })
  })
})
