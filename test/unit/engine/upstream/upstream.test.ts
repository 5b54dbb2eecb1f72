import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import type { Finish, Piece } from '../../../../src/engine/engine.ts'
import { openUpstream, type UpstreamOptions } from '../../../../src/engine/upstream/engine.ts'
import { eventData } from '../../../../src/engine/upstream/sse-parser.ts'
import type { Sampling } from '../../../../src/request.ts'
import { Trace } from '../../../../src/trace.ts'
import { Gathering } from '../../../../src/wire/openai/completion.ts'

const SAMPLING: Sampling = { temperature: 0.5, topP: 0.9, seed: 7, maxTokens: 20, stop: ['END'] }
const PROMPT = { messages: [{ role: 'user' as const, content: 'Hello there' }] }
const never = new AbortController().signal

type Handler = (request: IncomingMessage, response: ServerResponse, body: string) => void

let server: Server | undefined
afterEach(() => {
  server?.closeAllConnections()
  server?.close()
})

async function standIn(handle: Handler): Promise<string> {
  server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    handle(request, response, body)
  })
  await new Promise<void>((listening) => server?.listen(0, '127.0.0.1', listening))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const delta = (content: string) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason: null }] })}\n\n`
const finish = (reason: string) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: reason }] })}\n\n`
const USAGE = `data: ${JSON.stringify({ choices: [], usage: { prompt_tokens: 31, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 16 } } })}\n\n`
const DONE = 'data: [DONE]\n\n'

const speaks =
  (...chunks: string[]): Handler =>
  (_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const chunk of chunks) response.write(chunk)
    response.end()
  }
const refuses =
  (status: number, body: unknown, headers: Record<string, string> = {}): Handler =>
  (_, response) =>
    response.writeHead(status, headers).end(typeof body === 'string' ? body : JSON.stringify(body))

async function ask(handle: Handler, options: Partial<UpstreamOptions> & { apiKey?: string } = {}, signal = never) {
  const { apiKey, ...rest } = options
  const server = { url: await standIn(handle), model: 'served', ...(apiKey === undefined ? {} : { apiKey }) }
  const engine = await openUpstream({ servers: [server], healthMs: 0, ...rest })
  const trace = new Trace('t', () => 0)
  const result = await collect(engine.generate(PROMPT, SAMPLING, trace, signal))
  return { ...result, trace, engine }
}

async function collect(stream: AsyncGenerator<Piece, Finish>): Promise<{ pieces: string[]; finish: Finish }> {
  const pieces: string[] = []
  for (;;) {
    const { value, done } = await stream.next()
    if (done) return { pieces, finish: value }
    pieces.push(value.text)
  }
}

describe('the upstream engine', () => {
  it('relays the pieces, the usage and the reason', async () => {
    const { pieces, finish: end, trace } = await ask(speaks(delta('Par'), delta('is.'), finish('length'), USAGE, DONE))
    expect(pieces.join('')).toBe('Paris.')
    expect(end).toEqual({ reason: 'length', promptTokens: 31, completionTokens: 5, cachedTokens: 16 })
    expect(trace).toMatchObject({ promptTokens: 31, tokensCached: 16 })
  })

  it('sends what it was asked, with the key, under /v1', async () => {
    const seen: unknown[] = []
    const record: Handler = (request, response, body) => {
      seen.push(request.method, request.url, request.headers.authorization, JSON.parse(body))
      speaks(delta('x'), finish('stop'), DONE)(request, response, body)
    }
    await ask(record, { apiKey: 'k' })
    expect(seen).toEqual([
      'POST',
      '/v1/chat/completions',
      'Bearer k',
      {
        model: 'served',
        messages: [{ role: 'user', content: 'Hello there' }],
        temperature: 0.5,
        top_p: 0.9,
        seed: 7,
        max_tokens: 20,
        stop: ['END'],
        stream: true,
        stream_options: { include_usage: true },
      },
    ])
  })

  it('asks for the model’s name and context when none is given', async () => {
    const list = { data: [{ id: 'llama-2', max_model_len: 2048 }, { id: 'other' }] }
    const url = await standIn((request, response) =>
      (request.url === '/base/models' ? refuses(200, list) : refuses(404, ''))(request, response, ''),
    )
    const engine = await openUpstream({ servers: [{ url: `${url}/base/` }] })
    expect(engine.model).toMatchObject({ name: 'llama-2', contextTokens: 2048, family: 'upstream', device: 'remote' })
    await expect(openUpstream({ servers: [{ url }] })).rejects.toMatchObject({ code: 'upstream_failed' })
  })

  it('ends at a stop string that the server let through', async () => {
    const { pieces, finish: end } = await ask(speaks(delta('so E'), delta('ND more'), finish('length'), DONE))
    expect(pieces.join('')).toBe('so ')
    expect(end.reason).toBe('stop')
  })

  it('estimates the usage of a server that tells none', async () => {
    const { finish: end } = await ask(speaks(delta('12345678'), finish('stop')))
    expect(end).toEqual({ reason: 'stop', promptTokens: 3, completionTokens: 2, cachedTokens: 0 })
  })

  it.each(['-5', '0.5', '1e999', '"7"', '9007199254740993', 'null', '{}'])(
    'takes a usage of %s for none, and one that is cached for 0',
    async (value) => {
      const said = (prompt: string, completion: string, cached: string) =>
        `data: {"choices":[],"usage":{"prompt_tokens":${prompt},"completion_tokens":${completion},"prompt_tokens_details":{"cached_tokens":${cached}}}}\n\n`
      for (const usage of [said(value, '5', '0'), said('31', value, '0')]) {
        const { finish: end } = await ask(speaks(delta('12345678'), finish('stop'), usage, DONE))
        expect(end).toEqual({ reason: 'stop', promptTokens: 3, completionTokens: 2, cachedTokens: 0 })
        server?.close()
      }
      const { finish: end } = await ask(speaks(delta('x'), finish('stop'), said('31', '5', value), DONE))
      expect(end).toMatchObject({ promptTokens: 31, completionTokens: 5, cachedTokens: 0 })
    },
  )

  it.each<[string, Handler, object]>([
    [
      '429 with its Retry-After',
      refuses(429, { error: { message: 'slow down' } }, { 'retry-after': '7' }),
      { code: 'queue_full', retryAfterSeconds: 7, message: /slow down/ },
    ],
    [
      '400 with its message and field',
      refuses(400, { error: { message: 'temperature too high', param: 'temperature' } }),
      { code: 'invalid_value', message: /^temperature too high$/, param: 'temperature' },
    ],
    [
      'a context too long',
      refuses(400, { error: { message: 'too long', code: 'context_length_exceeded' } }),
      { code: 'context_length_exceeded' },
    ],
    ['401', refuses(401, { error: { message: 'no key' } }), { code: 'upstream_failed', message: /API key/ }],
    ['404', refuses(404, 'nope'), { code: 'upstream_failed', message: /404: nope/ }],
    ['500 without a body', refuses(500, ''), { code: 'upstream_failed', message: /status 500/ }],
    [
      '503 with its Retry-After',
      refuses(503, { error: 'loading' }, { 'retry-after': '3' }),
      { code: 'upstream_failed', retryAfterSeconds: 3, message: /loading/ },
    ],
    [
      'an error in mid-stream',
      speaks(delta('a'), 'data: {"error":{"message":"out of memory"}}\n\n'),
      { code: 'upstream_failed', message: /middle.*out of memory/ },
    ],
    ['a stream without an end', speaks(delta('a')), { code: 'upstream_failed', message: /without saying why/ }],
    ['a page instead of a stream', speaks('<html></html>'), { code: 'upstream_failed' }],
    ['a piece that is not JSON', speaks('data: {"choices":[{"del\n\n'), { code: 'upstream_failed', message: /not JSON/ }],
    [
      'a connection that breaks',
      (_, response) => void response.write(delta('a'), () => response.destroy()),
      { code: 'upstream_failed', message: /connection/i },
    ],
    ['silence', () => {}, { code: 'upstream_failed', message: /silent for 0.05 s/ }],
    ['silence in mid-stream', (_, response) => void response.write(delta('a')), { code: 'upstream_failed', message: /silent/ }],
  ])('reports %s', async (what, handle, expected) => {
    const error = await ask(
      handle,
      what.startsWith('silence') ? { patience: { firstByteMs: 50, betweenBytesMs: 50 } } : {},
    ).catch((thrown: unknown) => thrown)
    const { message, ...rest } = expected as { message?: RegExp }
    expect(error).toMatchObject(rest)
    if (message !== undefined) expect((error as Error).message).toMatch(message)
  })

  it('reports a refused connection, and a URL that is none', async () => {
    const url = await standIn(() => {})
    await new Promise((closed) => server?.close(closed))
    const engine = await openUpstream({ servers: [{ url, model: 'm' }] })
    await expect(collect(engine.generate(PROMPT, SAMPLING, new Trace('t', () => 0), never))).rejects.toMatchObject({
      code: 'upstream_failed',
      message: expect.stringContaining('ECONNREFUSED'),
    })
    expect(engine.load().busy).toBe(0)
    await expect(openUpstream({ servers: [{ url: 'localhost', model: 'm' }] })).rejects.toMatchObject({ code: 'invalid_value' })
  })

  it('hangs up on the server when the client leaves, by abort or by return', async () => {
    let closed = 0
    let hungUp: () => void = () => {}
    const url = await standIn((_, response) => {
      response.on('close', () => {
        closed++
        hungUp()
      })
      response.write(delta('first'))
    })
    const engine = await openUpstream({ servers: [{ url, model: 'm' }] })
    const gone = new AbortController()
    for (const leave of ['abort', 'return'] as const) {
      const noticed = new Promise<void>((resolve) => {
        hungUp = resolve
      })
      const stream = engine.generate(PROMPT, { ...SAMPLING, stop: [] }, new Trace('t', () => 0), gone.signal)
      if (leave === 'return') {
        // A fresh signal: the first one is spent.
        const second = engine.generate(PROMPT, { ...SAMPLING, stop: [] }, new Trace('t', () => 0), never)
        expect((await second.next()).value).toEqual({ text: 'first' })
        await second.return({ reason: 'stop', promptTokens: 0, completionTokens: 0, cachedTokens: 0 })
      } else {
        expect((await stream.next()).value).toEqual({ text: 'first' })
        const rest = expect(stream.next()).rejects.toThrow('left')
        gone.abort(new Error('left'))
        await rest
      }
      await noticed
      expect(engine.load().busy).toBe(0)
    }
    expect(closed).toBe(2)
  })
})

describe('connections', () => {
  const HEAD = { 'content-type': 'text/event-stream' }

  /** A stand-in that counts its connections. */
  async function counted(handle: Handler, options: Partial<UpstreamOptions> = {}) {
    const url = await standIn(handle)
    const seen = { connections: 0, closed: 0 }
    server?.on('connection', (socket) => {
      seen.connections++
      socket.on('close', () => seen.closed++)
    })
    const engine = await openUpstream({ servers: [{ url, model: 'm' }], healthMs: 0, ...options })
    const ask = (sampling: Sampling = { ...SAMPLING, stop: [] }, whole = false) =>
      collect(engine.generate({ ...PROMPT, ...(whole && { whole }) }, sampling, new Trace('t', () => 0), never))
    return { seen, ask, engine }
  }

  it('are kept, after streams and after whole answers', async () => {
    const whole = { choices: [{ message: { content: 'x' }, finish_reason: 'stop' }] }
    const { seen, ask } = await counted((request, response, body) =>
      (body.includes('"stream":true') ? speaks(delta('x'), finish('stop'), DONE) : refuses(200, whole))(request, response, body),
    )
    for (let i = 0; i < 8; i++) await ask(undefined, i % 2 === 0)
    // A second one, where the end of a stream came a moment after its last event.
    expect(seen.connections).toBeLessThanOrEqual(2)
  })

  it('are kept where the stream ends a little after it says so, and cut where it goes on', async () => {
    let late = 20
    const { seen, ask } = await counted((_, response) => {
      response.writeHead(200, HEAD)
      response.write(delta('x') + finish('stop') + DONE)
      if (late > 0) setTimeout(() => response.end(': bye\n\n'), late)
      else response.write('x'.repeat(100_000))
    })
    await ask()
    await new Promise((resolve) => setTimeout(resolve, 100))
    late = 0
    await ask()
    expect(seen).toEqual({ connections: 1, closed: 0 })
    await expect.poll(() => seen.closed).toBe(1)
  })

  it('that the server closed in the meantime are made anew', async () => {
    const { seen, ask } = await counted((request, response, body) => {
      // It takes the request on a kept connection and hangs up, as a server does whose patience ends at that moment.
      if (seen.connections === 1 && again++ > 0) request.socket.destroy()
      else speaks(delta('x'), finish('stop'), DONE)(request, response, body)
    })
    let again = 0
    await ask()
    expect((await ask()).pieces.join('')).toBe('x')
    expect(seen.connections).toBe(2)
  })

  it('that break at once when new are a fault', async () => {
    const { seen, ask } = await counted((request) => void request.socket.destroy())
    await expect(ask()).rejects.toMatchObject({ code: 'upstream_failed', message: expect.stringMatching(/connection/) })
    expect(seen.connections).toBe(1)
  })

  it('end with the engine, and who waits is told', async () => {
    const { ask, engine } = await counted((_, response) => void response.writeHead(200, HEAD).write(delta('x')))
    const waiting = expect(ask()).rejects.toMatchObject({ code: 'shutting_down' })
    await expect.poll(() => engine.load().busy).toBe(1)
    await engine.close(0)
    await waiting
  })

  it('read no further ahead than the client does', async () => {
    let sentBytes = 0
    const { engine } = await counted((_, response) => {
      response.writeHead(200, HEAD)
      const long = delta('x'.repeat(10_000))
      const on = () => {
        while (!response.destroyed && sentBytes < 15_000_000) {
          sentBytes += long.length
          if (!response.write(long)) return void response.once('drain', on)
        }
        response.end(finish('stop') + DONE)
      }
      on()
    })
    const stream = engine.generate(PROMPT, { ...SAMPLING, stop: [] }, new Trace('t', () => 0), never)
    let read = 0
    const first = await stream.next()
    read += (first.value as Piece).text.length
    await new Promise((resolve) => setTimeout(resolve, 300))
    // What the sockets hold, and no more.
    expect(sentBytes).toBeLessThan(14_000_000)
    for (let step = await stream.next(); !step.done; step = await stream.next()) read += step.value.text.length
    expect(read).toBeGreaterThan(14_000_000)
  })
})

describe('an answer in one part', () => {
  const SHORT: Sampling = { ...SAMPLING, maxTokens: 256 }
  async function askWhole(handle: Handler, sampling: Sampling = SHORT, options: { apiKey?: string } = {}) {
    const engine = await openUpstream({ servers: [{ url: await standIn(handle), model: 'm', ...options }], healthMs: 0 })
    const trace = new Trace('t', () => 0)
    const steps = engine.generate({ ...PROMPT, whole: true }, sampling, trace, never)
    const pieces: Piece[] = []
    for (;;) {
      const { value, done } = await steps.next()
      if (done) return { pieces, finish: value, trace }
      pieces.push(value)
    }
  }
  const json = (body: unknown) => refuses(200, body, { 'content-type': 'application/json' })
  const said = (message: object, more: object = {}) => ({
    choices: [{ index: 0, message: { role: 'assistant', ...message }, finish_reason: 'stop', ...more }],
    usage: { prompt_tokens: 31, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 16 } },
  })

  it('is asked for where nobody streams and it is short, and a stream otherwise', async () => {
    const asked: (boolean | undefined)[] = []
    const record: Handler = (request, response, body) => {
      const { stream } = JSON.parse(body) as { stream?: boolean }
      asked.push(stream)
      ;(stream === true ? speaks(delta('x'), finish('stop'), DONE) : json(said({ content: 'x' })))(request, response, body)
    }
    const { maxTokens: _, ...unbounded } = SHORT
    for (const sampling of [SHORT, { ...SHORT, maxTokens: 257 }, unbounded])
      expect((await askWhole(record, sampling)).pieces).toEqual([{ text: 'x' }])
    await ask(record)
    expect(asked).toEqual([undefined, true, true, true])
  })

  it('is the same as its stream', async () => {
    const token = { token: 'x', logprob: -0.5, bytes: [120], top_logprobs: [] }
    const call = (i: number) => ({ id: `c${i}`, type: 'function', function: { name: `f${i}`, arguments: '{}' } })
    const body = said({ content: 'Par\ud83d', tool_calls: [call(0), call(1)] }, { logprobs: { content: [token] } })
    const { pieces, finish: end, trace } = await askWhole(json({ ...body, usage: { ...body.usage, prompt_tokens: 31 } }))
    expect(pieces).toEqual([
      {
        text: 'Par\ufffd',
        calls: [0, 1].map((i) => ({ index: i, id: `c${i}`, name: `f${i}`, arguments: '{}' })),
        tokens: [{ text: 'x', logprob: -0.5, bytes: [120], top: [] }],
      },
    ])
    expect(end).toEqual({ reason: 'stop', promptTokens: 31, completionTokens: 5, cachedTokens: 16 })
    expect(trace).toMatchObject({ promptTokens: 31, tokensCached: 16 })
  })

  it('ends at a stop string, and may come as a stream all the same', async () => {
    const stopped = await askWhole(json(said({ content: 'so END more' }, { finish_reason: 'length' })))
    expect([stopped.pieces, stopped.finish.reason]).toEqual([[{ text: 'so ' }], 'stop'])
    const streamed = await askWhole(speaks(delta('so '), delta('on'), finish('length'), USAGE, DONE))
    expect([streamed.pieces.map(({ text }) => text).join(''), streamed.finish.reason]).toEqual(['so on', 'length'])
  })

  it.each<[string, Handler, RegExp]>([
    ['an error', json({ error: { message: 'no such model' } }), /answered with an error: no such model/],
    ['no JSON', refuses(200, '<html>'), /not JSON/],
    ['nothing', json({}), /without saying why/],
    ['no reason', json({ choices: [{ message: { content: 'x' } }] }), /without saying why/],
    ['too many calls', json(said({ tool_calls: Array(200).fill({ function: { name: 'f' } }) })), /more than 128 calls/],
    ['a body without end', (_, response) => void response.writeHead(200).write('x'.repeat(17 * 1024 * 1024)), /not JSON/],
    ['our key', json({ error: { message: 'it is sk-whole-0123456789' } }), /it is \[key\]/],
  ])('is a fault where it is %s', async (_, handle, message) => {
    const failed = askWhole(handle, SHORT, { apiKey: 'sk-whole-0123456789' })
    await expect(failed).rejects.toMatchObject({ code: 'upstream_failed', message: expect.stringMatching(message) })
  })
})

describe('an answer of a server that means us no good', () => {
  const part = (fields: string) => `data: {"choices":[{"index":0,"delta":{"tool_calls":[${fields}]}}]}\n\n`
  const called = (index: string, n: number) =>
    `{${index === '' ? '' : `"index":${index},`}"id":"c${n}","function":{"name":"f${n}","arguments":"{\\"n\\":${n}}"}}`

  async function calls(...chunks: string[]) {
    const engine = await openUpstream({
      servers: [{ url: await standIn(speaks(...chunks, finish('tool_calls'), DONE)), model: 'm' }],
    })
    const gathering = new Gathering('a')
    const stream = engine.generate(PROMPT, SAMPLING, new Trace('t', () => 0), never)
    for (;;) {
      const { value, done } = await stream.next()
      if (done) return gathering.answer(value, false).calls
      gathering.add(value)
    }
  }

  it.each(['1e6', '2e8', '1e999', '-1', '0.5', '"__proto__"', 'null', '{}', ''])(
    'loses no call whose index is %s',
    async (index) => {
      const made = await calls(part(called('0', 0)), part(called(index, 1)), part('{"function":{"arguments":" "}}'))
      expect(made.map(({ id, name }) => [id, name])).toEqual([
        ['c0', 'f0'],
        ['c1', 'f1'],
      ])
      expect(made[1]?.arguments).toBe('{"n":1} ')
      expect(JSON.stringify(made).length).toBeLessThan(200)
    },
  )

  it('keeps calls apart that it counts as one, and together that come in turns', async () => {
    expect((await calls(part(called('0', 0)), part(called('0', 1)))).map(({ id }) => id)).toEqual(['c0', 'c1'])
    const more = (index: number, text: string) => `{"index":${index},"function":{"arguments":"${text}"}}`
    const turns = await calls(part(`${called('7', 0)},${called('3', 1)}`), part(`${more(3, 'b')},${more(7, 'a')}`))
    expect(turns.map((call) => call.arguments)).toEqual(['{"n":0}a', '{"n":1}b'])
  })

  it('is ended at too many calls, and at too many characters', async () => {
    const many = Array.from({ length: 200 }, (_, i) => part(called(String(i), i)))
    await expect(calls(...many)).rejects.toMatchObject({ code: 'upstream_failed', message: /more than 128 calls/ })
    const endless: Handler = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const long = delta('x'.repeat(500_000))
      const on = () => {
        while (!response.destroyed && response.write(long)) {}
      }
      response.on('drain', on)
      on()
    }
    await expect(ask(endless)).rejects.toMatchObject({
      code: 'upstream_failed',
      message: /answer of more than 16777216 characters/,
    })
  })

  it('is ended where it says nothing for ever, and where one event has no end', async () => {
    const pings: Handler = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const timer = setInterval(() => response.write(': ping\n\n'), 10)
      response.on('close', () => clearInterval(timer))
    }
    await expect(ask(pings, { patience: { answerMs: 200 } })).rejects.toMatchObject({
      code: 'upstream_failed',
      message: /did not end its answer within 0.2 s/,
    })
    const line = `data: ${'x'.repeat(100_000)}\n`
    await expect(ask(speaks(...Array(60).fill(line)))).rejects.toMatchObject({ message: /an event of more than \d+ characters/ })
  })

  it.each([
    ['an error', { error: { message: 'no such model' } }, /answered with an error: no such model/],
    ['an error of vLLM’s', { object: 'error', message: 'no such model' }, /answered with an error: no such model/],
    ['a whole answer', { object: 'chat.completion', choices: [] }, /did not stream its answer/],
  ])('is a fault where it is 200 with %s', async (_, body, message) => {
    const error = await ask(refuses(200, body, { 'content-type': 'application/json' })).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'upstream_failed', message: expect.stringMatching(message) })
  })

  it.each(['99999999999', '9'.repeat(400), 'Fri, 31 Dec 9999 23:59:59 GMT'])(
    'holds nobody off for Retry-After: %s',
    async (after) => {
      for (const status of [429, 503])
        await expect(ask(refuses(status, {}, { 'retry-after': after }))).rejects.toMatchObject({ retryAfterSeconds: 600 })
    },
  )

  const KEY = 'sk-up/stream+secret-0123456789'
  it.each<[string, Handler]>([
    ['401', refuses(401, { error: { message: `Incorrect API key provided: ${KEY}` } })],
    ['403 of a proxy', refuses(403, `you sent Bearer ${KEY}`)],
    ['400', refuses(400, { error: { message: `bad header ${KEY}` } })],
    ['429', refuses(429, { error: { message: `slow down, ${KEY}` } })],
    ['500', refuses(500, `headers: {"authorization":"Bearer ${KEY}"}`)],
    ['500 that escapes it', refuses(500, `{"error":"${KEY.replace('/', '\\/').replace('+', '\\u002B')}"}`)],
    ['200 with an error', refuses(200, { error: { message: KEY } }, { 'content-type': 'application/json' })],
    ['an error in mid-stream', speaks(delta('a'), `data: {"error":{"message":"${KEY}"}}\n\n`)],
    ['a piece that is not JSON', speaks(`data: ${KEY}\n\n`)],
  ])('does not tell our key: %s', async (_, handle) => {
    const url = await standIn(handle)
    const engine = await openUpstream({ servers: [{ url, model: 'm', apiKey: KEY }], healthMs: 0 })
    const trace = new Trace('t', () => 0)
    const error = (await collect(engine.generate(PROMPT, SAMPLING, trace, never)).catch((thrown: unknown) => thrown)) as Error
    for (const told of [error.message, JSON.stringify(trace.route), JSON.stringify(engine.backends?.())])
      expect(told).not.toMatch(/sk-up|secret/)
  })

  it('does not tell our key in what it writes', async () => {
    const { pieces } = await ask(speaks(delta(`it is ${KEY}.`), finish('stop'), DONE), { apiKey: KEY })
    expect(pieces.join('')).toBe('it is [key].')
  })
})

describe('eventData', () => {
  async function* chunks(bytes: Uint8Array, at: readonly number[]) {
    const points = [0, ...at.map((n) => n % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
    for (let i = 1; i < points.length; i++) yield bytes.subarray(points[i - 1], points[i])
  }
  async function read(text: string, at: readonly number[] = []) {
    const all: string[] = []
    for await (const data of eventData(chunks(Buffer.from(text), at))) all.push(data)
    return all
  }

  it('reads comments, CR, CRLF, several data lines and other fields, however the bytes are cut', async () => {
    const text = ': ping\n\ndata: a\r\n\r\nevent: x\ndata:b\ndata:  c\nid: 1\n\ndata\n\ndata: é漢\r\rdata: last'
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(200)), async (at) => {
        expect(await read(text, at)).toEqual(['a', 'b\n c', '', 'é漢', 'last'])
      }),
    )
  })
})

describe('tools, formats and log probabilities upstream', () => {
  it('are passed on, and only what was asked for', async () => {
    let body: Record<string, unknown> = {}
    const url = await standIn((_, response, sent) => {
      body = JSON.parse(sent) as Record<string, unknown>
      response.writeHead(200, { 'content-type': 'text/event-stream' }).end(`${delta('x')}${finish('stop')}${DONE}`)
    })
    const engine = await openUpstream({ servers: [{ url, model: 'served' }] })
    const tool = (name: string) => ({ name, parameters: { type: 'object' }, param: 'tools[0]' })
    const tools = { tools: [tool('f'), tool('g')], allowed: ['g'], required: true, parallel: false }
    const call = { id: 'c1', name: 'f', arguments: '{}' }
    const messages = [
      { role: 'user', content: 'Hi', name: 'Ada' },
      { role: 'assistant', content: '', toolCalls: [call] },
      { role: 'tool', content: 'done', toolCallId: 'c1' },
    ] as const
    const sampling = { ...SAMPLING, stop: [], frequencyPenalty: 1, topK: 5, logitBias: new Map([[7, -100]]), logprobs: 2 }
    const format = { kind: 'schema', name: 'x', schema: { type: 'object' }, strict: true, param: 'p' } as const
    await collect(engine.generate({ messages, tools }, { ...sampling, format }, new Trace('t', () => 0), never))
    const wireFunction = (name: string) => ({ type: 'function', function: { name, parameters: { type: 'object' } } })
    expect(body).toMatchObject({
      ...{ frequency_penalty: 1, top_k: 5, logit_bias: { 7: -100 }, logprobs: true, top_logprobs: 2, parallel_tool_calls: false },
      tools: [wireFunction('f'), wireFunction('g')],
      tool_choice: { type: 'function', function: { name: 'g' } },
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { type: 'object' }, strict: true } },
      messages: [
        { role: 'user', content: 'Hi', name: 'Ada' },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
        },
        { role: 'tool', content: 'done', tool_call_id: 'c1' },
      ],
    })
    await collect(engine.generate(PROMPT, { temperature: 0, topP: 1, stop: [] }, new Trace('t', () => 0), never))
    expect(Object.keys(body).sort()).toEqual(['messages', 'model', 'stream', 'stream_options', 'temperature', 'top_p'])
  })

  it('come back as parts of the answer', async () => {
    const chunk = (choice: object) => `data: ${JSON.stringify({ choices: [{ index: 0, finish_reason: null, ...choice }] })}\n\n`
    const part = (fields: object) => chunk({ delta: { tool_calls: [fields] } })
    const token = { token: 'x', logprob: -0.5, bytes: [120], top_logprobs: [{ token: 'x', logprob: -0.5, bytes: [120] }] }
    const url = await standIn(
      speaks(
        chunk({ delta: { content: 'x' }, logprobs: { content: [token] } }),
        part({ index: 0, id: 'c9', type: 'function', function: { name: 'f', arguments: '' } }),
        part({ index: 0, function: { arguments: '{}' } }),
        finish('tool_calls'),
        DONE,
      ),
    )
    const engine = await openUpstream({ servers: [{ url, model: 'served' }] })
    const pieces: Piece[] = []
    const stream = engine.generate(PROMPT, { ...SAMPLING, stop: [] }, new Trace('t', () => 0), never)
    let step = await stream.next()
    for (; !step.done; step = await stream.next()) pieces.push(step.value)
    expect(pieces).toEqual([
      { text: 'x', tokens: [{ text: 'x', logprob: -0.5, bytes: [120], top: [{ text: 'x', logprob: -0.5, bytes: [120] }] }] },
      { text: '', calls: [{ index: 0, id: 'c9', name: 'f', arguments: '' }] },
      { text: '', calls: [{ index: 0, arguments: '{}' }] },
    ])
    expect(step.value.reason).toBe('tool_calls')
  })
})
