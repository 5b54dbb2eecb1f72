import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import type { Engine, Finish } from '../../../../src/engine/engine.ts'
import { Breaker } from '../../../../src/engine/upstream/circuit-breaker.ts'
import { openUpstream, type UpstreamOptions } from '../../../../src/engine/upstream/engine.ts'
import type { Sampling } from '../../../../src/request.ts'
import { Trace } from '../../../../src/trace.ts'

const SAMPLING: Sampling = { temperature: 0, topP: 1, stop: [] }
const never = new AbortController().signal
const LIMITS = { faults: 2, firstOpenMs: 100, maxOpenMs: 400 }

/** What a server does with a request for an answer; changed while it runs. */
type Mood =
  | 'well'
  | 'slow'
  | 'cut'
  | 'cut before a word'
  | '500'
  | '429'
  | '503'
  | 'malformed'
  | 'hang'
  | 'hang midway'
  | '400'
  | 'destroy'

interface StandIn {
  readonly url: string
  readonly host: string
  mood: Mood
  /** Requests for an answer, and looks at its models. */
  asked: number
  looked: number
  readonly server: Server
}

const open: Server[] = []
const engines: Engine[] = []
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close(0)
  for (const server of open.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

const event = (value: object) => `data: ${JSON.stringify(value)}\n\n`
const delta = (content: string) => event({ choices: [{ index: 0, delta: { content }, finish_reason: null }] })
const ROLE = event({ choices: [{ index: 0, delta: { role: 'assistant' }, finish_reason: null }] })
const END = `${event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] })}data: [DONE]\n\n`

async function behave(mood: Mood, response: ServerResponse): Promise<void> {
  const refuse = (status: number, headers = {}) =>
    response.writeHead(status, headers).end(JSON.stringify({ error: { message: `it is ${mood}` } }))
  switch (mood) {
    case 'well':
      return void response.end(`${ROLE}${delta('all ')}${delta('is well')}${END}`)
    case 'slow':
      for (const piece of [ROLE, delta('all '), delta('is well'), END]) {
        await sleep(30)
        response.write(piece)
      }
      return void response.end()
    case 'cut':
      return void response.end(`${ROLE}${delta('all ')}`)
    case 'cut before a word':
      return void response.end(ROLE)
    case '500':
      return void refuse(500)
    case '429':
      return void refuse(429, { 'retry-after': '1' })
    case '503':
      return void refuse(503, { 'retry-after': new Date(Date.now() + 1_500).toUTCString() })
    case '400':
      return void refuse(400)
    case 'malformed':
      return void response.end('data: {"choices": [\n\n')
    case 'hang':
      return
    case 'hang midway':
      return void response.write(`${ROLE}${delta('all ')}`)
    case 'destroy':
      return void response.destroy()
    default:
      return mood satisfies never
  }
}

async function standIn(mood: Mood = 'well'): Promise<StandIn> {
  const server = createServer(async (request: IncomingMessage, response) => {
    for await (const _ of request);
    if (request.url === '/v1/models') {
      self.looked++
      response.end(JSON.stringify({ data: [{ id: 'm' }] }))
      return
    }
    self.asked++
    response.setHeader('content-type', 'text/event-stream')
    await behave(self.mood, response)
  })
  open.push(server)
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const self: StandIn = { url: `http://${host}`, host, mood, asked: 0, looked: 0, server }
  return self
}

async function engineOf(
  servers: readonly (StandIn | { url: string; weight?: number })[],
  options: Partial<UpstreamOptions> = {},
) {
  const engine = await openUpstream({
    servers: servers.map(({ url, ...more }) => ({
      url,
      model: 'm',
      ...('weight' in more ? { weight: more.weight as number } : {}),
    })),
    patience: { connectMs: 200, firstByteMs: 200, betweenBytesMs: 200 },
    ...{ breaker: LIMITS, healthMs: 0 },
    ...options,
  })
  engines.push(engine)
  return engine
}

async function ask(engine: Engine, content = 'hello', signal = never, sampling = SAMPLING) {
  const trace = new Trace('t', () => performance.now())
  const stream = engine.generate({ messages: [{ role: 'user', content }] }, sampling, trace, signal)
  let text = ''
  for (;;) {
    const { value, done } = await stream.next()
    if (done) return { ...(value as Finish), text, trace }
    text += value.text
  }
}

/** The one that this conversation goes to while both are well, and the other. */
async function ranked(a: StandIn, b: StandIn, content = 'hello'): Promise<[StandIn, StandIn]> {
  const engine = await engineOf([a, b])
  await ask(engine, content)
  const first = a.asked === 1 ? a : b
  for (const server of [a, b]) server.asked = 0
  return first === a ? [a, b] : [b, a]
}

describe('a fleet of servers', { timeout: 60_000 }, () => {
  it.each<Mood>(['500', '429', '503', 'malformed', 'hang', 'cut before a word', 'destroy'])(
    'asks the next one when the first is: %s',
    async (mood) => {
      const [first, second] = await ranked(await standIn(), await standIn())
      first.mood = mood
      const engine = await engineOf([first, second])
      const { text, trace } = await ask(engine)
      expect(text).toBe('all is well')
      expect([first.asked, second.asked]).toEqual([1, 1])
      expect(trace.route.map(({ to }) => to)).toEqual([first.host, second.host])
      expect(trace.route[1]?.outcome).toBe('answers')
      expect(trace.route[0]?.outcome).not.toBe('answers')
    },
  )

  it.each<Mood>(['cut', 'hang midway'])('never asks again once a word has come: %s', async (mood) => {
    const [first, second] = await ranked(await standIn(), await standIn())
    first.mood = mood
    const engine = await engineOf([first, second])
    await expect(ask(engine)).rejects.toMatchObject({ code: 'upstream_failed' })
    expect(second.asked).toBe(0)
  })

  it('passes a refusal of the request on, and holds it against nobody', async () => {
    const [first, second] = await ranked(await standIn(), await standIn())
    first.mood = '400'
    const engine = await engineOf([first, second])
    for (let i = 0; i < 3; i++) await expect(ask(engine)).rejects.toMatchObject({ code: 'invalid_value', message: 'it is 400' })
    expect([first.asked, second.asked]).toEqual([3, 0])
    expect(engine.backends?.().every(({ state }) => state === 'closed')).toBe(true)
  })

  it('leaves a server alone after some faults, tries it once later, and takes it back', async () => {
    const [first, second] = await ranked(await standIn(), await standIn())
    first.mood = '500'
    const engine = await engineOf([first, second])
    const state = () => engine.backends?.().find(({ name }) => name === first.host)
    for (let i = 0; i < 4; i++) expect((await ask(engine)).text).toBe('all is well')
    expect(first.asked).toBe(LIMITS.faults)
    expect(state()).toMatchObject({ state: 'open', faults: 2, lastFault: expect.stringContaining('500') })
    await sleep(LIMITS.firstOpenMs + 20)
    expect(state()?.state).toBe('half-open')
    first.mood = 'slow'
    await Promise.all([ask(engine), ask(engine), ask(engine)])
    expect(first.asked).toBe(LIMITS.faults + 1)
    expect(state()).toMatchObject({ state: 'closed', faults: 0 })
  })

  it('tells nobody else what a server said to one', async () => {
    let isSilent = false
    const server = createServer((_, response) => {
      if (isSilent) response.destroy()
      else response.writeHead(500).end(JSON.stringify({ error: { message: 'can’t parse "my secret prompt"' } }))
    })
    open.push(server)
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const engine = await openUpstream({ servers: [{ url, model: 'm' }], breaker: LIMITS, healthMs: 0 })
    engines.push(engine)
    for (let i = 0; i < LIMITS.faults; i++) await expect(ask(engine)).rejects.toThrow(/my secret prompt/)
    expect(engine.backends?.()).toMatchObject([{ lastFault: 'answered with status 500', state: 'open' }])
    isSilent = true
    for (let i = 0; i < LIMITS.faults; i++) await expect(ask(engine)).rejects.toMatchObject({ code: 'upstream_failed' })
    const other = (await ask(engine).catch((thrown: unknown) => thrown)) as Error
    expect(other).toMatchObject({ code: 'engine_unavailable', message: expect.stringMatching(/127\.0\.0\.1:\d+: open\)/) })
    expect(other.message).not.toContain('secret')
  })

  it('asks the last that answers, however badly it answered others', async () => {
    const [first, second] = await ranked(await standIn(), await standIn())
    for (const one of [first, second]) one.mood = '500'
    const engine = await engineOf([first, second])
    for (let i = 0; i < LIMITS.faults; i++) await expect(ask(engine)).rejects.toMatchObject({ code: 'upstream_failed' })
    expect(engine.backends?.().map(({ state }) => state)).toEqual(['open', 'open'])
    for (const one of [first, second]) one.mood = 'well'
    expect((await ask(engine)).text).toBe('all is well')
    expect(engine.backends?.().map(({ state }) => state)).toContain('closed')
  })

  it('waits as long as a busy server asked for, and tells the client when all are', async () => {
    const [first, second] = [await standIn('429'), await standIn('429')]
    const engine = await engineOf([first, second])
    await expect(ask(engine)).rejects.toMatchObject({ code: 'queue_full', retryAfterSeconds: 1 })
    await expect(ask(engine)).rejects.toMatchObject({ code: 'engine_unavailable', status: 503, retryAfterSeconds: 1 })
    expect([first.asked, second.asked]).toEqual([1, 1])
    first.mood = 'well'
    second.mood = 'well'
    await sleep(1_050)
    expect((await ask(engine)).text).toBe('all is well')
  })

  it('gives up on a connection that is never made', async () => {
    // It takes the connection and never greets, as TLS would have it.
    const deaf = createTcpServer((socket) => void socket.on('error', () => {}))
    await new Promise<void>((listening) => deaf.listen(0, '127.0.0.1', listening))
    const well = await standIn()
    const url = `https://127.0.0.1:${(deaf.address() as AddressInfo).port}`
    const engine = await engineOf([{ url, weight: 1e9 }, well])
    const { text, trace } = await ask(engine)
    deaf.close()
    expect(text).toBe('all is well')
    expect(trace.route[0]).toMatchObject({ outcome: expect.stringContaining('could not be connected to within 0.2 s') })
  })

  it('notices between requests that a server has ended', async () => {
    const [first, second] = await ranked(await standIn(), await standIn())
    const engine = await engineOf([first, second], { healthMs: 20 })
    await expect.poll(() => first.looked).toBeGreaterThan(1)
    first.server.closeAllConnections()
    first.server.close()
    await expect.poll(() => engine.backends?.().find(({ name }) => name === first.host)?.state).toBe('open')
    const { text, trace } = await ask(engine)
    expect(text).toBe('all is well')
    expect(trace.route).toEqual([{ to: second.host, outcome: 'answers' }])
  })

  it('keeps a conversation with one server, and shares conversations out by weight', async () => {
    const servers = await Promise.all([standIn(), standIn()])
    const [a, b] = servers as [StandIn, StandIn]
    const engine = await engineOf([
      { ...a, weight: 3 },
      { ...b, weight: 1 },
    ])
    for (let i = 0; i < 5; i++) await ask(engine, 'the same conversation')
    expect([a.asked, b.asked].toSorted()).toEqual([0, 5])
    a.asked = 0
    b.asked = 0
    for (let i = 0; i < 200; i++) await ask(engine, `conversation ${i}`)
    // 150 expected; four standard deviations.
    expect(a.asked).toBeGreaterThan(125)
    expect(a.asked).toBeLessThan(175)
  })

  it('sends no more than its share to one server at a time', async () => {
    const [first, second] = await ranked(await standIn('slow'), await standIn('slow'))
    const engine = await engineOf([first, second])
    await Promise.all(Array.from({ length: 8 }, () => ask(engine)))
    expect(first.asked).toBeLessThanOrEqual(6)
    expect(first.asked + second.asked).toBe(8)
  })

  it('learns nothing of a server from a client that leaves', async () => {
    const [first, second] = await ranked(await standIn(), await standIn())
    first.mood = 'hang midway'
    const engine = await engineOf([first, second])
    for (let i = 0; i < 3; i++) {
      const gone = new AbortController()
      setTimeout(() => gone.abort(new Error('gone')), 20)
      await expect(ask(engine, 'hello', gone.signal)).rejects.toThrow('gone')
    }
    expect(engine.backends?.()).toMatchObject([
      { state: 'closed', busy: 0 },
      { state: 'closed', busy: 0 },
    ])
    expect(engine.load().busy).toBe(0)
  })

  it('answers whatever moods two of three servers are in', async () => {
    const moods: Mood[] = ['well', '500', '429', 'malformed', 'cut before a word', 'destroy']
    const [a, b, c] = await Promise.all([standIn(), standIn(), standIn()])
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...moods),
        fc.constantFrom(...moods),
        fc.string({ maxLength: 8 }),
        async (one, two, content) => {
          a.mood = one
          b.mood = two
          c.mood = 'well'
          const engine = await engineOf([a, b, c])
          expect((await ask(engine, content)).text).toBe('all is well')
          expect(engine.backends?.().every(({ busy }) => busy === 0)).toBe(true)
          await engine.close(0)
        },
      ),
      { numRuns: 40 },
    )
  })
})

describe('a breaker', () => {
  it('opens twice as long each time, up to a bound, and lets one request through in between', () => {
    let now = 0
    const breaker = new Breaker(() => now, LIMITS)
    for (let i = 0; i < LIMITS.faults; i++) {
      expect(breaker.admit()).toBe(true)
      breaker.failed('silent')
    }
    for (const openMs of [100, 200, 400, 400]) {
      expect(breaker).toMatchObject({ state: 'open', waitMs: openMs })
      now += openMs
      expect([breaker.admit(), breaker.admit(), breaker.admitLast()]).toEqual([true, false, false])
      breaker.failed('silent')
    }
    now += 400
    expect(breaker.admit()).toBe(true)
    breaker.undecided()
    expect(breaker.admit()).toBe(true)
    breaker.succeeded()
    expect([breaker.state, breaker.admit(), breaker.admit()]).toEqual(['closed', true, true])
  })

  it('lets the last one be asked that answers, but not while it wants peace', () => {
    let now = 0
    const breaker = new Breaker(() => now, LIMITS)
    for (let i = 0; i < LIMITS.faults; i++) breaker.failed(i === 0 ? 'silent' : 'answered')
    expect([breaker.state, breaker.admit(), breaker.admitLast()]).toEqual(['open', false, true])
    breaker.paused(50)
    expect(breaker.admitLast()).toBe(false)
    now += 50
    expect(breaker.admitLast()).toBe(true)
  })
})
