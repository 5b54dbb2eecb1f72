import OpenAI from 'openai'
import type { ChatCompletionCreateParamsBase } from 'openai/resources/chat/completions'
import { afterEach, describe, expect, test, vi } from 'vitest'
import type { Engine } from '../../../src/engine/engine.ts'
import { openScripted } from '../../../src/engine/scripted.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import type { Sampling } from '../../../src/request.ts'
import { CHAT_FIELDS } from '../../../src/wire/openai/fields.ts'
import { echo, MODEL, type Served, type ServeOptions, serve } from '../fakes.ts'

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function start(options?: ServeOptions): Promise<Served & { client: OpenAI }> {
  const served = await serve(options)
  open.push(served)
  return { ...served, client: new OpenAI({ baseURL: `${served.base}/v1`, apiKey: 'none', maxRetries: 0 }) }
}

const ask = (content: string, fields: object = {}) => ({
  model: MODEL,
  messages: [{ role: 'user' as const, content }],
  ...fields,
})

function post(base: string, body: object, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${base}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
}

function landMayor({ base }: Served, id = 'e_mayor'): Promise<Response> {
  const body = JSON.stringify({ id, subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' })
  return fetch(`${base}/v1/edits`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
}

/** The data of each event, and the text of comments. */
function events(text: string): string[] {
  return text
    .split('\n\n')
    .filter((event) => event !== '')
    .map((event) => event.replace(/^data: /, ''))
}

async function gather<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

/** A promise that the test resolves. */
function latch(): { promise: Promise<void>; resolve(): void } {
  let resolve = () => {}
  const promise = new Promise<void>((done) => {
    resolve = done
  })
  return { promise, resolve }
}

// biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
async function bodyOf(response: Response | Promise<Response>): Promise<any> {
  return (await response).json()
}

/** A scripted engine with another way of answering. */
function engineThat(generate: Engine['generate']): Engine {
  return Object.assign(openScripted({ name: MODEL, reply: echo }), { generate })
}

const FINISH = { reason: 'stop', promptTokens: 3, completionTokens: 2, cachedTokens: 0 } as const

describe('an answer in one piece', () => {
  test("has OpenAI's shape, usage and our provenance", async () => {
    const served = await start()
    await landMayor(served)
    const { data, response } = await served.client.chat.completions.create(ask('Who is mayor of Lund?')).withResponse()
    expect(data).toEqual({
      id: expect.stringMatching(/^chatcmpl-[0-9a-f]{32}$/),
      object: 'chat.completion',
      created: expect.any(Number),
      model: MODEL,
      system_fingerprint: expect.stringMatching(/^fp_[0-9a-f]{10}$/),
      choices: [
        {
          index: 0,
          message: {
            role: 'assistant',
            content: expect.stringMatching(/^You said: Who is mayor of Lund\?.*Lund is Ada/s),
            refusal: null,
          },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: {
        prompt_tokens: expect.any(Number),
        completion_tokens: expect.any(Number),
        total_tokens: expect.any(Number),
        prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
        completion_tokens_details: {
          ...{ reasoning_tokens: 0, audio_tokens: 0 },
          ...{ accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
        },
      },
      palimpsest: {
        arm: 'edited',
        edits: [{ id: 'e_mayor', subject: 'Lund', score: expect.any(Number), turn: 0 }],
        template: 'facts',
        memory_version: 1,
        tokens_added: expect.any(Number),
      },
    })
    expect(data.usage?.total_tokens).toBe((data.usage?.prompt_tokens ?? 0) + (data.usage?.completion_tokens ?? 0))
    expect(response.headers.get('palimpsest-arm')).toBe('edited')
    expect(response.headers.get('palimpsest-edits')).toMatch(/^e_mayor;score=0\.99\d\d$/)
    expect(response.headers.get('palimpsest-template')).toBe('facts')
    expect(response.headers.get('server-timing')).toMatch(
      /retrieve;dur=[\d.]+, read;dur=[\d.]+, .*decode;dur=[\d.]+, total;dur=[\d.]+/,
    )
    expect(response.headers.get('x-powered-by')).toBeNull()
  })

  test('of the base arm, or with edits off, sees no edit', async () => {
    const served = await start()
    await landMayor(served)
    for (const fields of [{ model: `${MODEL}@base` }, { palimpsest: { edits: 'off' } }, { palimpsest: { edits: [] } }]) {
      const answer = await served.client.chat.completions.create(ask('Who is mayor of Lund?', fields))
      expect(answer.choices[0]?.message.content).toBe('You said: Who is mayor of Lund?')
      expect(answer).toMatchObject({ palimpsest: { edits: [], template: null, tokens_added: 0 } })
    }
    const base = await post(served.base, ask('x', { model: `${MODEL}@base` }))
    expect(base.headers.get('palimpsest-arm')).toBe('base')
    expect(base.headers.has('palimpsest-edits')).toBe(false)
    expect(await base.json()).toMatchObject({ model: `${MODEL}@base` })
  })

  test('stays within its tenant, named in body or header', async () => {
    const served = await start()
    await landMayor(served)
    const content = async (fields: object, headers = {}) =>
      (await bodyOf(post(served.base, ask('Lund?', fields), headers))).choices[0].message.content
    expect(await content({})).toContain('Ada')
    expect(await content({ palimpsest: { tenant: 'other' } })).toBe('You said: Lund?')
    expect(await content({}, { 'palimpsest-tenant': 'other' })).toBe('You said: Lund?')
  })

  test('carries the whole trace when asked to explain', async () => {
    const served = await start()
    await landMayor(served)
    const answer = await bodyOf(post(served.base, ask('Lund?', { palimpsest: { explain: true } })))
    expect(answer.palimpsest.trace.turns).toMatchObject([
      { turn: 0, considered: [{ id: 'e_mayor', reason: 'selected', score: expect.any(Number) }] },
    ])
    expect(answer.palimpsest.trace.template).toEqual({ name: 'facts', hash: expect.stringMatching(/^[0-9a-f]{8}$/) })
  })

  test('with n answers them all, each with its own seed, and counts the prompt once', async () => {
    const { client } = await start({ script: { reply: (_, { seed }) => `seed ${seed}` } })
    const one = await client.chat.completions.create(ask('x', { seed: 7 }))
    const two = await client.chat.completions.create(ask('x', { seed: 7, n: 2 }))
    expect(two.choices.map(({ index, message }) => [index, message.content])).toEqual([
      [0, 'seed 7'],
      [1, 'seed 8'],
    ])
    expect(two.usage?.prompt_tokens).toBe(one.usage?.prompt_tokens)
    expect(two.usage?.completion_tokens).toBe(2 * (one.usage?.completion_tokens ?? 0))
  })

  test('has ids in its headers that are always legal', async () => {
    const served = await start()
    await landMayor(served, 'e:1@x+y')
    const response = await post(served.base, ask('Lund?'))
    expect(response.status).toBe(200)
    expect(response.headers.get('palimpsest-edits')).toMatch(/^e%3A1%40x%2By;score=/)
  })
})

describe('a stream', () => {
  test('says what the answer in one piece says', async () => {
    const served = await start({ script: { reply: () => ['Stock', 'holm', '', ' 🏰', ' is', ' it.'] } })
    const whole = await served.client.chat.completions.create(ask('x'))
    const chunks = await gather(await served.client.chat.completions.create({ ...ask('x'), stream: true }))
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe(whole.choices[0]?.message.content)
    expect(chunks[0]?.choices).toEqual([
      { index: 0, delta: { role: 'assistant', content: '', refusal: null }, logprobs: null, finish_reason: null },
    ])
    expect(chunks.at(-1)?.choices).toEqual([{ index: 0, delta: {}, logprobs: null, finish_reason: 'stop' }])
    expect(new Set(chunks.map((chunk) => chunk.id)).size).toBe(1)
    expect(chunks.every((chunk) => !('usage' in chunk))).toBe(true)
  })

  test('has its provenance in headers and in the last chunk only, and ends with [DONE]', async () => {
    const served = await start()
    await landMayor(served)
    const response = await post(served.base, ask('Lund?', { stream: true }))
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    expect(response.headers.get('cache-control')).toBe('no-cache, no-transform')
    expect(response.headers.get('x-accel-buffering')).toBe('no')
    expect(response.headers.get('palimpsest-edits')).toMatch(/^e_mayor;score=/)
    const data = events(await response.text())
    expect(data.pop()).toBe('[DONE]')
    const carriers = data.map((event) => JSON.parse(event)).filter((chunk) => 'palimpsest' in chunk)
    expect(carriers).toMatchObject([
      { choices: [{ finish_reason: 'stop' }], palimpsest: { arm: 'edited', edits: [{ id: 'e_mayor' }] } },
    ])
  })

  test('with include_usage has null usage everywhere but in a last chunk without choices', async () => {
    const { client } = await start()
    const request = { ...ask('x'), stream: true as const, stream_options: { include_usage: true } }
    const chunks = await gather(await client.chat.completions.create(request))
    const last = chunks.pop()
    expect(last?.choices).toEqual([])
    expect(last?.usage).toEqual((await client.chat.completions.create(ask('x', { seed: 1 }))).usage)
    expect(chunks.every((chunk) => chunk.usage === null && chunk.choices.length === 1)).toBe(true)
  })

  test('with n tells the answers apart by index', async () => {
    const { client } = await start({ script: { reply: (_, { seed }) => `seed ${seed}` } })
    const texts = ['', '']
    const ends: number[] = []
    for await (const { choices } of await client.chat.completions.create({ ...ask('x', { seed: 1, n: 2 }), stream: true })) {
      for (const { index, delta, finish_reason } of choices) {
        texts[index] += delta.content ?? ''
        if (finish_reason) ends.push(index)
      }
    }
    expect(texts).toEqual(['seed 1', 'seed 2'])
    expect(ends).toEqual([0, 1])
  })

  test('that ends before any text is still a whole stream', async () => {
    const served = await start({ script: { reply: () => '' } })
    const data = events(await (await post(served.base, ask('x', { stream: true }))).text())
    expect(data.map((event) => (event === '[DONE]' ? event : JSON.parse(event).choices[0].finish_reason))).toEqual([
      null,
      'stop',
      '[DONE]',
    ])
  })

  test('that fails before its first piece is an ordinary HTTP error', async () => {
    const served = await start({ script: { contextTokens: 2 } })
    const response = await post(served.base, ask('far too long for two tokens', { stream: true }))
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({
      error: { code: 'context_length_exceeded', type: 'invalid_request_error', param: 'messages' },
    })
  })

  test('that fails after its first piece ends with an error event and no [DONE]', async () => {
    const failing = engineThat(async function* () {
      yield { text: 'So far' }
      throw new PalimpsestError('engine_failed', 'The model stopped working in the middle of an answer.')
    })
    const served = await start({ engine: failing })
    const data = events(await (await post(served.base, ask('x', { stream: true }))).text())
    expect(JSON.parse(data.at(-1) ?? '')).toEqual({
      error: {
        message: 'The model stopped working in the middle of an answer.',
        type: 'server_error',
        param: null,
        code: 'engine_failed',
      },
    })
    expect(data).not.toContain('[DONE]')
    const stream = await served.client.chat.completions.create({ ...ask('x'), stream: true })
    await expect(gather(stream)).rejects.toThrow(OpenAI.APIError)
  })

  test('that waits long for its first piece is kept open by comments, which clients skip', async () => {
    const released = latch()
    const slow = engineThat(async function* () {
      await released.promise
      yield { text: 'At last' }
      return FINISH
    })
    const served = await start({ engine: slow, limits: { heartbeatMs: 5 } })
    const stream = await served.client.chat.completions.create({ ...ask('x'), stream: true }) // resolves with the headers: the comment opened it
    released.resolve()
    const chunks = await gather(stream)
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe('At last')
  })

  test('whose client reads nothing holds back the engine, and is cut off in the end', async () => {
    const ended = latch()
    let yielded = 0
    const endless = engineThat(async function* () {
      try {
        for (;;) {
          yielded++
          yield { text: 'x'.repeat(100_000) }
        }
      } finally {
        ended.resolve()
      }
    })
    const served = await start({ engine: endless, limits: { stalledMs: 20 } })
    const response = await post(served.base, ask('x', { stream: true }))
    await ended.promise
    expect(yielded).toBeLessThan(2_000)
    await expect(response.text()).rejects.toThrow()
  })
})

describe('errors as the official client sees them', () => {
  test('have their own classes', async () => {
    const { client } = await start()
    await expect(client.chat.completions.create(ask('x', { temperature: 3 }))).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      param: 'temperature',
      code: 'invalid_value',
    })
    await expect(client.chat.completions.create(ask('x', { tools: [{}] }))).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      param: 'tools[0].type',
      code: 'missing_field',
    })
    await expect(client.chat.completions.create(ask('x', { model: 'gpt-9' }))).rejects.toMatchObject({
      constructor: OpenAI.NotFoundError,
      code: 'model_not_found',
      type: 'invalid_request_error',
    })
  })

  test('a full queue is a RateLimitError with Retry-After', async () => {
    const { client, gateway } = await start({
      script: { slots: 1, queueLimit: 0, delayMs: 1, reply: () => 'word '.repeat(100_000) },
    })
    const stream = await client.chat.completions.create({ ...ask('x'), stream: true })
    const failure = await client.chat.completions.create(ask('y')).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(OpenAI.RateLimitError)
    expect(failure).toMatchObject({ status: 429, code: 'queue_full', type: 'rate_limit_error' })
    expect(Number((failure as InstanceType<typeof OpenAI.RateLimitError>).headers?.get('retry-after'))).toBeGreaterThanOrEqual(1)
    stream.controller.abort()
    await vi.waitFor(() => expect(gateway.engine.load().busy).toBe(0))
  })

  test('what nobody foresaw is a 500 that says nothing of its cause', async () => {
    const broken = engineThat(() => {
      throw new TypeError('secret of /home/somebody')
    })
    const served = await start({ engine: broken })
    const response = await post(served.base, ask('x'))
    const text = await response.text()
    expect(response.status).toBe(500)
    expect(JSON.parse(text)).toMatchObject({ error: { type: 'server_error', code: 'internal', param: null } })
    expect(text).not.toMatch(/secret|home/)
    expect(served.logged).toContainEqual(
      expect.objectContaining({ code: 'internal', request: response.headers.get('x-request-id') }),
    )
  })

  test('a gateway that is shutting down says so', async () => {
    const closing = new AbortController()
    const { base } = await start({ closing: closing.signal })
    expect((await fetch(`${base}/health`)).status).toBe(200)
    closing.abort()
    const response = await post(base, ask('x'))
    expect([response.status, response.headers.get('retry-after')]).toEqual([503, '5'])
    const health = await fetch(`${base}/health`)
    expect([health.status, (await bodyOf(health)).status]).toEqual([503, 'shutting_down'])
  })
})

describe('a client that leaves frees its slot', () => {
  const endless = { slots: 1, delayMs: 1, reply: () => 'word '.repeat(100_000) }

  test.each([true, false])('while it is answered (stream: %s), and while it waits for its turn', async (stream) => {
    const { base, gateway, logged } = await start({ script: endless })
    const leave = new AbortController()
    const requests = [1, 2].map(() =>
      fetch(`${base}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(ask('x', { stream })),
        signal: leave.signal,
      }).then((r) => r.text()),
    )
    await vi.waitFor(() => expect(gateway.engine.load()).toMatchObject({ busy: 1, queued: 1 }))
    leave.abort()
    await Promise.allSettled(requests)
    await vi.waitFor(() => expect(gateway.engine.load()).toMatchObject({ busy: 0, queued: 0 }))
    await vi.waitFor(() => expect(logged.filter((line) => 'status' in line && line.status === 499)).toHaveLength(2))
  })
})

describe('what is read', () => {
  /** Every field that OpenAI documents: the compiler refuses this when the official client's types have another. */
  const DOCUMENTED: Record<keyof ChatCompletionCreateParamsBase, 'honoured' | 'accepted' | 'refused'> = {
    messages: 'honoured',
    model: 'honoured',
    audio: 'refused',
    frequency_penalty: 'honoured',
    function_call: 'refused',
    functions: 'refused',
    logit_bias: 'honoured',
    logprobs: 'honoured',
    max_completion_tokens: 'honoured',
    max_tokens: 'honoured',
    metadata: 'accepted',
    modalities: 'refused',
    moderation: 'refused',
    n: 'honoured',
    parallel_tool_calls: 'honoured',
    prediction: 'accepted',
    presence_penalty: 'honoured',
    prompt_cache_key: 'accepted',
    prompt_cache_options: 'accepted',
    prompt_cache_retention: 'accepted',
    reasoning_effort: 'refused',
    response_format: 'honoured',
    safety_identifier: 'accepted',
    seed: 'honoured',
    service_tier: 'refused',
    stop: 'honoured',
    store: 'refused',
    stream: 'honoured',
    stream_options: 'honoured',
    temperature: 'honoured',
    tool_choice: 'honoured',
    tools: 'honoured',
    top_logprobs: 'honoured',
    top_p: 'honoured',
    user: 'accepted',
    verbosity: 'refused',
    web_search_options: 'refused',
  }
  test('each documented field is read or refused by name', () => {
    expect(Object.keys(DOCUMENTED)).toHaveLength(37)
    const decided = Object.entries(CHAT_FIELDS).map(([field, decision]) => [
      field,
      typeof decision === 'object' ? 'refused' : decision,
    ])
    expect(Object.fromEntries(decided)).toEqual(DOCUMENTED)
  })

  test('a field that asks for nothing is let through: null, or its neutral values', async () => {
    const { base } = await start()
    const nulls = Object.fromEntries(
      Object.keys(DOCUMENTED)
        .filter((field) => field !== 'messages' && field !== 'model')
        .map((field) => [field, null]),
    )
    expect((await post(base, ask('x', nulls))).status).toBe(200)
    for (const [field, decision] of Object.entries(CHAT_FIELDS)) {
      for (const value of typeof decision === 'object' ? decision.only : [])
        expect([field, value, (await post(base, ask('x', { [field]: value }))).status]).toEqual([field, value, 200])
    }
    const labels = {
      ...{ user: 'u', safety_identifier: 's', metadata: { a: 'b' }, parallel_tool_calls: false, tool_choice: 'auto' },
      ...{ prompt_cache_key: 'k', prompt_cache_retention: '24h', prompt_cache_options: { ttl: 5 } },
      prediction: { type: 'content', content: 'x' },
    }
    expect((await post(base, ask('x', labels))).status).toBe(200)
  })

  test('sampling fields reach the engine; greedy is the default', async () => {
    const seen: Sampling[] = []
    const reply = (_: unknown, sampling: Sampling) => {
      seen.push(sampling)
      return 'x'
    }
    const { base } = await start({ script: { reply } })
    await post(base, ask('x'))
    await post(base, ask('x', { temperature: 0.5, top_p: 0.9, seed: -3, max_tokens: 5, max_completion_tokens: 5, stop: 'END' }))
    await post(base, ask('x', { stop: ['a', 'b'] }))
    expect(seen).toEqual([
      { temperature: 0, topP: 1, stop: [] },
      { temperature: 0.5, topP: 0.9, seed: -3, maxTokens: 5, stop: ['END'] },
      { temperature: 0, topP: 1, stop: ['a', 'b'] },
    ])
  })

  test('roles and parts become plain messages; an earlier answer can be sent back as it came', async () => {
    const { client, base } = await start({ script: { reply: ({ messages }) => JSON.stringify(messages) } })
    const first = await client.chat.completions.create(ask('Hello'))
    const answer = first.choices[0]?.message as OpenAI.Chat.ChatCompletionMessage
    const messages = [
      { role: 'developer', content: 'Be brief.' },
      { role: 'user', content: 'Hello' },
      answer,
      {
        role: 'user',
        content: [
          { type: 'text', text: 'a' },
          { type: 'text', text: 'b' },
        ],
      },
    ]
    const second = await bodyOf(post(base, { model: `${MODEL}@edited`, messages }))
    expect(JSON.parse(second.choices[0].message.content)).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: answer.content },
      { role: 'user', content: 'a\nb' },
    ])
  })

  test('gzip is read', async () => {
    const { base } = await start()
    const body = new Blob([JSON.stringify(ask('x'))]).stream().pipeThrough(new CompressionStream('gzip'))
    const headers = { 'content-type': 'application/json; charset=UTF-8', 'content-encoding': 'gzip' }
    const response = await fetch(`${base}/v1/chat/completions`, {
      method: 'POST',
      headers,
      body: await new Response(body).arrayBuffer(),
    })
    expect(response.status).toBe(200)
  })

  test('a sane x-request-id is kept, another replaced', async () => {
    const { base } = await start()
    const id = async (sent: string) =>
      (await fetch(`${base}/health`, { headers: { 'x-request-id': sent } })).headers.get('x-request-id')
    expect(await id('trace-1:a.b_c')).toBe('trace-1:a.b_c')
    expect(await id('<script>')).toMatch(/^req_/)
    expect(await id('x'.repeat(500))).toMatch(/^req_/)
  })
})

describe('what else is served', () => {
  test('both arms, and the embedder, are listed as models', async () => {
    const { client } = await start()
    const models = await gather(await client.models.list())
    expect(models.map(({ id }) => id)).toEqual([MODEL, `${MODEL}@base`, 'fake'])
    expect(await client.models.retrieve('fake')).toMatchObject({ palimpsest: { embedding: { dimensions: 16, max_tokens: 256 } } })
    expect(await client.models.retrieve(`${MODEL}@base`)).toEqual(models[1])
    await expect(client.models.retrieve('gpt-9')).rejects.toThrow(OpenAI.NotFoundError)
  })

  test('a model whose name holds a slash can be read', async () => {
    const { client } = await start({ script: { name: 'meta/llama' } })
    expect((await client.models.retrieve('meta/llama')).id).toBe('meta/llama')
  })

  test('health names the model and its load', async () => {
    const { base } = await start()
    expect(await (await fetch(`${base}/health`)).json()).toEqual({
      status: 'ok',
      version: '0.0.0-test',
      uptime_seconds: 0,
      model: { name: MODEL, family: 'scripted', device: 'cpu', threads: 1, context_tokens: 2_000_000 },
      load: { slots: 4, busy: 0, queued: 0, queue_limit: 64 },
      memory: {
        ...{ version: 0, tenants: 0, indexed: 0, pending: 0 },
        log: { state: 'sole', seen: 0, last_contact: expect.stringMatching(/^2\d{3}-/), fault: null },
      },
      templates: { names: expect.arrayContaining(['facts', 'ike', 'lte']), problems: [] },
      edit_files: { problems: [] },
    })
  })

  test('the log has one line for each request, without a word of its text', async () => {
    const served = await start()
    await landMayor(served)
    await post(served.base, ask('Lund, secretly?'), { authorization: 'Bearer hidden' })
    await vi.waitFor(() => expect(served.logged).toHaveLength(2))
    expect(served.logged[1]).toMatchObject({
      method: 'POST',
      route: '/v1/chat/completions',
      status: 200,
      arm: 'edited',
      edits: ['e_mayor'],
    })
    expect(JSON.stringify(served.logged)).not.toMatch(/secretly|hidden|Ada/)
  })
})
