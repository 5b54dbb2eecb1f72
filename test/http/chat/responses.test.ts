import OpenAI from 'openai'
import type { ResponseStreamEvent } from 'openai/resources/responses/responses'
import { afterEach, describe, expect, test, vi } from 'vitest'
import type { Engine, Prompt } from '../../../src/engine/engine.ts'
import { openScripted } from '../../../src/engine/scripted.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import type { Sampling } from '../../../src/request.ts'
import { echo, MODEL, type Served, type ServeOptions, serve } from '../fakes.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000 })

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function start(options?: ServeOptions): Promise<Served & { client: OpenAI }> {
  const served = await serve(options)
  open.push(served)
  return { ...served, client: new OpenAI({ baseURL: `${served.base}/v1`, apiKey: 'none', maxRetries: 0 }) }
}

async function post({ base }: Pick<Served, 'base'>, body: object) {
  const response = await fetch(`${base}/v1/responses`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: MODEL, ...body }),
  })
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  return { status: response.status, headers: response.headers, json: (await response.json()) as any }
}

function landMayor({ base }: Pick<Served, 'base'>): Promise<Response> {
  const body = JSON.stringify({ id: 'e_mayor', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' })
  return fetch(`${base}/v1/edits`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
}

async function gather<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

const seeMessages = { reply: ({ messages }: { messages: unknown }) => JSON.stringify(messages) }

describe('a response', () => {
  test("has every field of OpenAI's, and our provenance", async () => {
    const served = await start()
    await landMayor(served)
    const { data, response } = await served.client.responses
      .create({ model: MODEL, input: 'Who is mayor of Lund?' })
      .withResponse()
    const { output_text: text, ...sent } = data
    expect(text).toContain('Lund is Ada')
    expect(sent).toEqual({
      id: expect.stringMatching(/^resp_[0-9a-f]{32}$/),
      object: 'response',
      created_at: expect.any(Number),
      completed_at: expect.any(Number),
      status: 'completed',
      background: false,
      error: null,
      incomplete_details: null,
      instructions: null,
      max_output_tokens: null,
      max_tool_calls: null,
      metadata: {},
      model: MODEL,
      output: [
        {
          id: expect.stringMatching(/^msg_/),
          type: 'message',
          status: 'completed',
          role: 'assistant',
          content: [{ type: 'output_text', text, annotations: [], logprobs: [] }],
        },
      ],
      parallel_tool_calls: true,
      previous_response_id: null,
      prompt_cache_key: null,
      reasoning: { effort: null, summary: null },
      safety_identifier: null,
      service_tier: 'default',
      store: true,
      temperature: 0,
      text: { format: { type: 'text' }, verbosity: 'medium' },
      tool_choice: 'auto',
      tools: [],
      top_logprobs: 0,
      top_p: 1,
      frequency_penalty: 0,
      presence_penalty: 0,
      truncation: 'disabled',
      usage: {
        input_tokens: expect.any(Number),
        input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
        output_tokens: expect.any(Number),
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: expect.any(Number),
      },
      palimpsest: {
        arm: 'edited',
        edits: [{ id: 'e_mayor', subject: 'Lund', score: expect.any(Number), turn: 0 }],
        template: 'facts',
        memory_version: 1,
        tokens_added: expect.any(Number),
      },
    })
    expect(response.headers.get('palimpsest-arm')).toBe('edited')
    expect(response.headers.get('server-timing')).toMatch(/decode;dur=/)
  })

  test('of the base arm, or with edits off, sees no edit', async () => {
    const served = await start()
    await landMayor(served)
    for (const fields of [{ model: `${MODEL}@base` }, { palimpsest: { edits: 'off' } }]) {
      const { json } = await post(served, { input: 'Who is mayor of Lund?', ...fields })
      expect(json.output[0].content[0].text).toBe('You said: Who is mayor of Lund?')
    }
  })

  test('is made of instructions and items of every shape', async () => {
    const { client } = await start({ script: seeMessages })
    const answer = await client.responses.create({
      model: MODEL,
      instructions: 'Be brief.',
      input: [
        { role: 'developer', content: 'Be kind.' },
        {
          type: 'message',
          role: 'user',
          content: [
            { type: 'input_text', text: 'a' },
            { type: 'input_text', text: 'b' },
          ],
        },
        { type: 'reasoning', id: 'rs_1', summary: [] },
        {
          ...{ type: 'message', id: 'msg_1', role: 'assistant', status: 'completed' },
          content: [{ type: 'output_text', text: 'c', annotations: [] }],
        },
        { role: 'user', content: 'd' },
      ],
    })
    expect(JSON.parse(answer.output_text)).toMatchObject([
      { role: 'system', content: 'Be brief.' },
      { role: 'system', content: 'Be kind.' },
      { role: 'user', content: 'a\nb' },
      { role: 'assistant', content: 'c' },
      { role: 'user', content: 'd' },
    ])
  })

  test('cut off by max_output_tokens is incomplete', async () => {
    const { client } = await start({ script: { reply: () => 'one two three four five' } })
    const answer = await client.responses.create({ model: MODEL, input: 'x', max_output_tokens: 2 })
    expect(answer).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_output_tokens' },
      completed_at: null,
    })
    const events = await gather(await client.responses.create({ model: MODEL, input: 'x', max_output_tokens: 2, stream: true }))
    expect(events.at(-1)?.type).toBe('response.incomplete')
  })

  test('takes what Codex sends', async () => {
    const { client } = await start()
    const stream = await client.responses.create({
      model: MODEL,
      instructions: 'You are a coding agent.',
      input: [{ type: 'message', role: 'user', content: [{ type: 'input_text', text: 'hello' }] }],
      tools: [],
      tool_choice: 'auto',
      parallel_tool_calls: false,
      reasoning: null,
      store: false,
      stream: true,
      include: [],
      prompt_cache_key: '019a-b',
    })
    const last = (await gather(stream)).at(-1)
    expect(last).toMatchObject({ type: 'response.completed', response: { store: false, parallel_tool_calls: false } })
  })
})

test('tools that Codex offers beside its functions are left out, which a header says, and what it says of itself is taken', async () => {
  const served = await start()
  const { base } = served
  const body = {
    model: MODEL,
    input: 'hello',
    client_metadata: { 'x-codex-installation-id': '019a' },
    tools: [
      { type: 'function', name: 'shell', description: 'Runs a command.', strict: false, parameters: { type: 'object' } },
      { type: 'custom', name: 'apply_patch', format: { type: 'grammar', syntax: 'lark', definition: 'start: "x"' } },
      { type: 'web_search', external_web_access: false },
    ],
  }
  const response = await fetch(`${base}/v1/responses`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  const { tools } = (await response.json()) as { tools: { name: string }[] }
  expect([response.status, tools.map(({ name }) => name)]).toEqual([200, ['shell']])
  expect(response.headers.get('palimpsest-warning')).toMatch(/left out.*custom, web_search/)
})

describe('a streamed response', () => {
  const numbered = (events: ResponseStreamEvent[]) => events.map((event) => event.sequence_number)

  test('has the full sequence of events, numbered, and ends as the answer in one piece', async () => {
    const { client } = await start({ script: { reply: () => ['Stock', '', 'holm', ' 🏰'] } })
    const whole = await client.responses.create({ model: MODEL, input: 'x' })
    const events = await gather(await client.responses.create({ model: MODEL, input: 'x', stream: true }))
    expect(events.map(({ type }) => type)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      ...Array(3).fill('response.output_text.delta'),
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ])
    expect(numbered(events)).toEqual(events.map((_, i) => i))
    const deltas = events.flatMap((event) => (event.type === 'response.output_text.delta' ? [event.delta] : []))
    expect(deltas.join('')).toBe(whole.output_text)
    const last = events.at(-1)
    if (last?.type !== 'response.completed') throw new Error('the last event is the completed response')
    const timeless = (value: object) => JSON.stringify(value).replace(/(resp|msg)_[0-9a-f]+|"c\w+_at":\d+/g, '')
    expect(timeless(last.response)).toBe(timeless({ ...whole, output_text: undefined }))
  })

  test('names each event on the line above it, and has no [DONE]', async () => {
    const { base } = await start()
    const response = await fetch(`${base}/v1/responses`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: MODEL, input: 'x', stream: true }),
    })
    expect(response.headers.get('palimpsest-arm')).toBe('edited')
    const text = await response.text()
    for (const event of text.trim().split('\n\n')) {
      const [name, data] = event.split('\n')
      expect(name).toBe(`event: ${JSON.parse(data?.slice('data: '.length) ?? '').type}`)
    }
    expect(text).not.toContain('[DONE]')
  })

  test("is followed by the official client's own accumulator", async () => {
    const { client } = await start({ script: { reply: () => ['a', 'b', 'c'] } })
    const response = await client.responses.stream({ model: MODEL, input: 'x' }).finalResponse()
    expect(response.output_text).toBe('abc')
  })

  test('without a word is a whole response', async () => {
    const { client } = await start({ script: { reply: () => '' } })
    const response = await client.responses.stream({ model: MODEL, input: 'x' }).finalResponse()
    expect(response).toMatchObject({ status: 'completed', output: [{ type: 'message', content: [{ text: '' }] }] })
  })

  const failing = (generate: Engine['generate']): Engine =>
    Object.assign(openScripted({ name: MODEL, reply: echo }), { generate })

  test('that fails before its first piece is an ordinary HTTP error', async () => {
    const { client } = await start({ script: { contextTokens: 2 } })
    const asked = client.responses.create({ model: MODEL, input: 'far too long for two tokens', stream: true })
    await expect(asked).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded', param: 'input' })
  })

  test('that fails later ends with an error event and the failed response', async () => {
    const engine = failing(async function* () {
      yield { text: 'So far' }
      throw new PalimpsestError('engine_failed', 'The model stopped working in the middle of an answer.')
    })
    const { base, client } = await start({ engine })
    const response = await fetch(`${base}/v1/responses`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: MODEL, input: 'x', stream: true }),
    })
    const events = (await response.text())
      .trim()
      .split('\n\n')
      .map((event) => JSON.parse(event.replace(/^.*\ndata: /, '')))
    expect(events.slice(-2)).toMatchObject([
      { type: 'error', code: 'engine_failed', message: expect.stringContaining('stopped working'), param: null },
      { type: 'response.failed', response: { status: 'failed', error: { code: 'server_error' } } },
    ])
    await expect(client.responses.create({ model: MODEL, input: 'x', stream: true }).then(gather)).rejects.toThrow(
      OpenAI.APIError,
    )
  })
})

describe('a conversation that is kept', () => {
  test('is gone on with by previous_response_id, without the instructions of before', async () => {
    const { client } = await start({ script: seeMessages })
    const first = await client.responses.create({ model: MODEL, input: 'one', instructions: 'Be brief.' })
    const second = await client.responses.create({ model: MODEL, input: 'two', previous_response_id: first.id })
    const third = await client.responses.create({ model: MODEL, input: 'three', previous_response_id: second.id })
    expect(JSON.parse(third.output_text)).toMatchObject([
      { role: 'user', content: 'one' },
      { role: 'assistant', content: first.output_text },
      { role: 'user', content: 'two' },
      { role: 'assistant', content: second.output_text },
      { role: 'user', content: 'three' },
    ])
    expect(third.previous_response_id).toBe(second.id)
  })

  test('is found by the ids of its items, read, and deleted', async () => {
    const { client } = await start({ script: seeMessages })
    const first = await client.responses.create({ model: MODEL, input: 'one' })
    const id = first.output[0]?.id ?? ''
    const input = [
      { type: 'item_reference' as const, id },
      { role: 'user' as const, content: 'two' },
    ]
    expect(JSON.parse((await client.responses.create({ model: MODEL, input })).output_text)).toMatchObject([
      { role: 'assistant', content: first.output_text },
      { role: 'user', content: 'two' },
    ])
    expect((await client.responses.retrieve(first.id)).output).toEqual(first.output)
    await client.responses.delete(first.id)
    await expect(client.responses.retrieve(first.id)).rejects.toMatchObject({ status: 404, code: 'response_not_found' })
  })

  test('belongs to its tenant; one with store: false, or pushed out by later ones, is refused by name', async () => {
    const served = await start({ limits: { responseStoreBytes: 20_000 } })
    const { client } = served
    const refused = async (id: string, palimpsest: object = {}) => {
      const { status, json } = await post(served, { input: 'x', previous_response_id: id, palimpsest })
      return [status, json.error?.param]
    }
    const kept = await client.responses.create({ model: MODEL, input: 'one' })
    expect(await refused(kept.id, { tenant: 'other' })).toEqual([400, 'previous_response_id'])
    const lost = await client.responses.create({ model: MODEL, input: 'one', store: false })
    expect(await refused(lost.id)).toEqual([400, 'previous_response_id'])
    for (let i = 0; i < 10; i++) await client.responses.create({ model: MODEL, input: 'x'.repeat(500) })
    expect(await refused(kept.id)).toEqual([400, 'previous_response_id'])
  })
})

describe('what a response can not be asked for is refused by the name it has here', () => {
  test.each([
    ['no input', { input: undefined }, 'input', 'missing_field'],
    ['no items', { input: [] }, 'input', 'invalid_value'],
    ['a number for input', { input: 5 }, 'input', 'invalid_value'],
    ['an unknown item', { input: [{ type: 'computer_call' }] }, 'input[0].type', 'unsupported_field'],
    [
      'an image',
      { input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'x' }] }] },
      'input[0].content[0].type',
      'unsupported_field',
    ],
    ['an unknown role', { input: [{ role: 'robot', content: 'x' }] }, 'input[0].role', 'invalid_value'],
    ['an item without content', { input: [{ role: 'user' }] }, 'input[0].content', 'missing_field'],
    ['an unknown field of an item', { input: [{ role: 'user', content: 'x', colour: 1 }] }, 'input[0].colour', 'unknown_field'],
    ['an item that is not kept', { input: [{ type: 'item_reference', id: 'msg_0' }] }, 'input[0].id', 'invalid_value'],
    ['a tool of no type', { tools: [{ name: 'x' }] }, 'tools[0].type', 'missing_field'],
    [
      'a faulty function behind a tool that is left out',
      { tools: [{ type: 'web_search' }, { type: 'function', name: 'x', colour: 1 }] },
      'tools[1].colour',
      'unknown_field',
    ],
    [
      'a function behind a tool that is left out, which a chat would refuse',
      { tools: [{ type: 'web_search' }, { type: 'function', name: 'no name' }] },
      'tools[1].name',
      'invalid_value',
    ],
    [
      'a call of a tool that is left out',
      { tools: [{ type: 'web_search' }], tool_choice: { type: 'web_search' } },
      'tool_choice.type',
      'unsupported_field',
    ],
    [
      'a call where every tool is left out',
      { tools: [{ type: 'web_search' }], tool_choice: 'required' },
      'tool_choice',
      'invalid_value',
    ],
    ['effort', { reasoning: { effort: 'high' } }, 'reasoning.effort', 'unsupported_field'],
    ['verbosity', { text: { verbosity: 'low' } }, 'text.verbosity', 'unsupported_field'],
    ['a conversation', { conversation: 'conv_1' }, 'conversation', 'unsupported_field'],
    ['background', { background: true }, 'background', 'unsupported_field'],
    ['truncation', { truncation: 'auto' }, 'truncation', 'unsupported_field'],
    ['a prompt', { prompt: { id: 'p' } }, 'prompt', 'unsupported_field'],
    ['an unknown response', { previous_response_id: 'resp_0' }, 'previous_response_id', 'invalid_value'],
    ['too much heat', { temperature: 3 }, 'temperature', 'invalid_value'],
    ['no tokens', { max_output_tokens: 0 }, 'max_output_tokens', 'invalid_value'],
    ['something unknown to include', { include: ['everything'] }, 'include[0]', 'invalid_value'],
    ['an unknown field', { colour: 'red' }, 'colour', 'unknown_field'],
    ['an unknown template', { palimpsest: { template: 'none' } }, 'palimpsest.template', 'template_not_found'],
  ])('%s', async (_, fields, param, code) => {
    const { status, json } = await post(await start(), { input: 'x', ...fields })
    expect([status, json.error?.param, json.error?.code]).toEqual([400, param, code])
  })

  test('null counts as absent', async () => {
    const names =
      'instructions previous_response_id store stream include text tools max_tool_calls temperature top_p frequency_penalty presence_penalty max_output_tokens metadata reasoning user background conversation prompt truncation service_tier'
    const nulls = Object.fromEntries(names.split(' ').map((name) => [name, null]))
    expect((await post(await start(), { input: 'x', ...nulls })).status).toBe(200)
  })
})

describe('tools', () => {
  const call = (name: string, given: object) => `<tool_call>\n${JSON.stringify({ name, arguments: given })}\n</tool_call>`
  const weather = {
    type: 'function' as const,
    name: 'weather',
    description: 'The weather of a city.',
    parameters: { type: 'object', properties: { city: { type: 'string' } } },
    strict: null,
  }

  test('are called, streamed event by event, and their results are gone on from', async () => {
    const seen: Prompt[] = []
    const reply = (prompt: Prompt) => {
      seen.push(prompt)
      if (prompt.messages.at(-1)?.role === 'tool') return 'Rain in Lund, sun in Malmö.'
      return `Let me see.\n${call('weather', { city: 'Lund' })}\n${call('weather', { city: 'Malmö' })}`
    }
    const { client } = await start({ script: { reply } })
    const ask = { model: MODEL, input: 'Weather?', tools: [weather], tool_choice: 'auto' as const }
    const first = await client.responses.create(ask)
    expect(first.output).toMatchObject([
      { type: 'message', content: [{ text: expect.stringContaining('Let me see.') }] },
      {
        type: 'function_call',
        name: 'weather',
        arguments: '{"city":"Lund"}',
        status: 'completed',
        call_id: expect.stringMatching(/^call_/),
      },
      { type: 'function_call', name: 'weather', arguments: '{"city":"Malmö"}', status: 'completed' },
    ])
    expect(first.tools).toEqual([{ ...weather, strict: false }])
    expect(seen[0]?.tools).toMatchObject({ tools: [{ name: 'weather', parameters: weather.parameters }], required: false })

    const events = await gather(await client.responses.create({ ...ask, stream: true }))
    const types = events.map(({ type }) => type.replace(/^response\./, ''))
    expect(types.filter((type, i) => type !== types[i - 1])).toEqual([
      ...['created', 'in_progress', 'output_item.added', 'content_part.added', 'output_text.delta'],
      ...['output_text.done', 'content_part.done', 'output_item.done'],
      ...['output_item.added', 'function_call_arguments.delta', 'function_call_arguments.done', 'output_item.done'],
      ...['output_item.added', 'function_call_arguments.delta', 'function_call_arguments.done', 'output_item.done', 'completed'],
    ])
    expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, i) => i))
    const second = events.flatMap((event) =>
      event.type === 'response.function_call_arguments.delta' && event.output_index === 2 ? [event.delta] : [],
    )
    expect(second.join('')).toBe('{"city":"Malmö"}')

    const results = first.output.flatMap((item) =>
      item.type === 'function_call' ? [{ type: 'function_call_output' as const, call_id: item.call_id, output: 'wet' }] : [],
    )
    const byId = await client.responses.create({ ...ask, input: results, previous_response_id: first.id })
    const bySending = await client.responses.create({
      ...ask,
      input: [{ role: 'user', content: 'Weather?' }, ...first.output, ...results] as OpenAI.Responses.ResponseInput,
    })
    for (const { output_text: text } of [byId, bySending]) expect(text).toBe('Rain in Lund, sun in Malmö.')
    expect(seen.at(-1)?.messages).toEqual(seen.at(-2)?.messages)
    expect(seen.at(-1)?.messages).toMatchObject([
      { role: 'user', content: 'Weather?' },
      { role: 'assistant', toolCalls: [{ name: 'weather' }, { name: 'weather' }] },
      { role: 'tool', content: 'wet' },
      { role: 'tool', content: 'wet' },
    ])
  })

  test.each([
    ['a choice of a tool that is not there', { tools: [weather], tool_choice: { type: 'function', name: 'x' } }, 'tool_choice'],
    [
      'a result without its call',
      {
        input: [
          { role: 'user', content: 'x' },
          { type: 'function_call_output', call_id: 'c', output: '' },
        ],
      },
      'input[1].call_id',
    ],
    ['a bad name', { tools: [{ ...weather, name: 'a b' }] }, 'tools[0].name'],
    ['a choice without tools', { tool_choice: 'required' }, 'tool_choice'],
  ])('refuse %s', async (_, fields, param) => {
    const { status, json } = await post(await start(), { input: 'x', ...fields })
    expect([status, json.error?.param]).toEqual([400, param])
  })
})

test('the penalties of Open Responses are honoured and repeated', async () => {
  const seen: Sampling[] = []
  const reply = (_: Prompt, sampling: Sampling) => {
    seen.push(sampling)
    return 'x'
  }
  const penalties = { frequency_penalty: 0.5, presence_penalty: -1 }
  const { json } = await post(await start({ script: { reply } }), { input: 'x', ...penalties })
  expect(json).toMatchObject(penalties)
  expect(seen[0]).toMatchObject({ frequencyPenalty: 0.5, presencePenalty: -1 })
})

test('a format, the log probabilities and padding are as in a chat', async () => {
  const seen: Sampling[] = []
  const reply = (_: Prompt, sampling: Sampling) => {
    seen.push(sampling)
    return ['{"a"', ':1}']
  }
  const { client } = await start({ script: { reply } })
  const schema = { type: 'object', properties: { a: { type: 'number' } } }
  const answer = await client.responses.create({
    ...{ model: MODEL, input: 'x', top_logprobs: 2, include: ['message.output_text.logprobs'] },
    text: { format: { type: 'json_schema', name: 'one', schema, strict: true } },
  })
  expect(seen[0]).toMatchObject({ logprobs: 2, format: { kind: 'schema', name: 'one', schema, strict: true } })
  expect(answer.output).toMatchObject([
    { content: [{ logprobs: [{ token: '{"a"', logprob: expect.any(Number) }, { token: ':1}' }] }] },
  ])
  expect(answer.text?.format).toMatchObject({ type: 'json_schema', name: 'one' })
  const ask = { model: MODEL, input: 'x', stream: true as const, stream_options: { include_obfuscation: true } }
  const deltas = (await gather(await client.responses.create(ask))).filter(({ type }) => type.endsWith('delta'))
  expect(deltas.length).toBeGreaterThan(0)
  for (const delta of deltas) expect(delta).toHaveProperty('obfuscation')
})

test('a client that leaves frees its slot', async () => {
  const { client, gateway, logged } = await start({ script: { slots: 1, delayMs: 1, reply: () => 'word '.repeat(100_000) } })
  const stream = await client.responses.create({ model: MODEL, input: 'x', stream: true })
  stream.controller.abort()
  await vi.waitFor(() => expect(gateway.engine.load().busy).toBe(0))
  await vi.waitFor(() => expect(logged).toContainEqual(expect.objectContaining({ status: 499, route: '/v1/responses' })))
})
