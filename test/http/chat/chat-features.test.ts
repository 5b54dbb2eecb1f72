import fc from 'fast-check'
import OpenAI from 'openai'
import type { ChatCompletionChunk, ChatCompletionCreateParamsNonStreaming } from 'openai/resources/chat/completions'
import { afterEach, describe, expect, test } from 'vitest'
import type { Prompt } from '../../../src/engine/engine.ts'
import type { Sampling } from '../../../src/request.ts'
import { MODEL, post, type Served, type ServeOptions, serve } from '../fakes.ts'

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function start(options?: ServeOptions) {
  const served = await serve(options)
  open.push(served)
  return { ...served, client: new OpenAI({ baseURL: `${served.base}/v1`, apiKey: 'none', maxRetries: 0 }) }
}

const TOOL = {
  type: 'function' as const,
  function: {
    name: 'get_weather',
    description: 'The weather in a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
}
const call = (city: string) => `<tool_call>\n{"name": "get_weather", "arguments": {"city": "${city}"}}\n</tool_call>`
const ask = (fields: object = {}): ChatCompletionCreateParamsNonStreaming => ({
  model: MODEL,
  messages: [{ role: 'user', content: 'Is it raining in Rome?' }],
  ...fields,
})

async function gather(stream: AsyncIterable<ChatCompletionChunk>): Promise<ChatCompletionChunk[]> {
  const chunks: ChatCompletionChunk[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return chunks
}

/** A message put together from chunks the way clients do it: by index. */
function assembled(chunks: readonly ChatCompletionChunk[]) {
  let content: string | null = null
  const calls: { id: string | undefined; name: string | undefined; given: string }[] = []
  for (const { delta } of chunks.flatMap((chunk) => chunk.choices)) {
    if (typeof delta.content === 'string') content = (content ?? '') + delta.content
    for (const { index, id, function: part } of delta.tool_calls ?? []) {
      const one = calls[index] ?? { id, name: part?.name, given: '' }
      calls[index] = { ...one, given: one.given + (part?.arguments ?? '') }
    }
  }
  return { content, calls: calls.map(({ name, given }) => ({ name, given })) }
}

describe('tools', () => {
  test('a call comes back as the official client expects it, whole and streamed', async () => {
    const { client } = await start({ script: { reply: () => `${call('Rome')}\n${call('Lund {x}')}` } })
    const whole = await client.chat.completions.create(ask({ tools: [TOOL] }))
    expect(whole.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { role: 'assistant', content: null } })
    expect(whole.choices[0]?.message.tool_calls).toEqual([
      {
        id: expect.stringMatching(/^call_[0-9a-f]{24}$/),
        type: 'function',
        function: { name: 'get_weather', arguments: '{"city": "Rome"}' },
      },
      { id: expect.any(String), type: 'function', function: { name: 'get_weather', arguments: '{"city": "Lund {x}"}' } },
    ])
    const chunks = await gather(await client.chat.completions.create({ ...ask({ tools: [TOOL] }), stream: true }))
    expect(chunks[0]?.choices[0]?.delta).toEqual({ role: 'assistant', content: null, refusal: null })
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('tool_calls')
    for (const part of chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []))
      expect(part.index).toBeTypeOf('number')
    const heads = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []).filter((part) => part.function?.name)
    expect(heads.map(({ index, type, id }) => [index, type, id?.startsWith('call_')])).toEqual([
      [0, 'function', true],
      [1, 'function', true],
    ])
  })

  test('calls and results of the conversation reach the engine; only the user’s turns select edits', async () => {
    const seen: Prompt[] = []
    const reply = (prompt: Prompt) => {
      seen.push(prompt)
      return 'No.'
    }
    const { client, base } = await start({ script: { reply } })
    await fetch(`${base}/v1/edits`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ id: 'e_rome', subject: 'Rome', prompt: 'The mayor of Rome is', target_new: 'Ada' }),
    })
    const messages = [
      { role: 'developer', content: 'Be brief.' },
      { role: 'user', name: 'Ada', content: 'Is it raining in Rome?' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'c1', type: 'function', function: { name: 'get_weather', arguments: '{}' } }],
      },
      { role: 'tool', tool_call_id: 'c1', content: [{ type: 'text', text: 'Rome: dry' }] },
    ]
    const answer = await client.chat.completions.create(ask({ tools: [TOOL], messages }))
    expect(answer.choices[0]?.message.content).toBe('No.')
    expect((answer as unknown as { palimpsest: { edits: object[] } }).palimpsest.edits).toMatchObject([{ id: 'e_rome', turn: 1 }])
    const [prompt] = seen
    expect(prompt?.messages[1]?.content).toMatch(/raining in Rome\?.*mayor of Rome is Ada/s)
    expect(prompt?.messages.slice(2)).toEqual([
      { role: 'assistant', content: '', toolCalls: [{ id: 'c1', name: 'get_weather', arguments: '{}' }] },
      { role: 'tool', content: 'Rome: dry', toolCallId: 'c1' },
    ])
    expect(prompt?.tools).toMatchObject({ allowed: ['get_weather'], required: false, parallel: true })
  })

  test.each([
    ['auto', 'auto', { allowed: ['get_weather', 'find'], required: false }],
    ['required', 'required', { allowed: ['get_weather', 'find'], required: true }],
    ['one by name', { type: 'function', function: { name: 'find' } }, { allowed: ['find'], required: true }],
    [
      'some of them',
      { type: 'allowed_tools', allowed_tools: { mode: 'auto', tools: [{ type: 'function', function: { name: 'find' } }] } },
      { allowed: ['find'], required: false },
    ],
    ['none', 'none', undefined],
  ])('tool_choice: %s', async (_, choice, use) => {
    const seen: Prompt[] = []
    const reply = (prompt: Prompt) => `${seen.push(prompt)}`
    const { client } = await start({ script: { reply } })
    const find = { type: 'function' as const, function: { name: 'find' } }
    await client.chat.completions.create(ask({ tools: [TOOL, find], tool_choice: choice, parallel_tool_calls: false }))
    if (use === undefined) expect(seen[0]?.tools).toBeUndefined()
    else expect(seen[0]?.tools).toMatchObject({ ...use, parallel: false })
  })
})

describe('any answer, cut up anyhow', () => {
  test('is the same streamed and whole', async () => {
    let reply: readonly string[] = []
    const { client } = await start({ script: { reply: () => reply } })
    const token = fc.constantFrom(
      ...['<tool_call>', '\n{"name": "get_weather", ', '"arguments": {"city": "Zür', 'ich"}}', '\n</tool_call>', '\n', '<tool'],
      ...['word', ' STOP', ' ST', '😀', '日', '"', '{', ' '],
    )
    await fc.assert(
      fc.asyncProperty(fc.array(token, { maxLength: 12 }), fc.boolean(), fc.boolean(), async (tokens, tools, logprobs) => {
        reply = tokens
        const fields = { stop: ['STOP'], ...(tools && { tools: [TOOL] }), ...(logprobs && { logprobs: true, top_logprobs: 2 }) }
        const whole = await client.chat.completions.create(ask(fields))
        const chunks = await gather(await client.chat.completions.create({ ...ask(fields), stream: true }))
        const message = whole.choices[0]?.message
        const told = assembled(chunks)
        expect(told).toEqual({
          content: message?.content ?? null,
          calls: (message?.tool_calls ?? []).map((one) =>
            one.type === 'function' ? { name: one.function.name, given: one.function.arguments } : {},
          ),
        })
        expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe(whole.choices[0]?.finish_reason)
        const streamed = chunks.flatMap((chunk) => chunk.choices[0]?.logprobs?.content ?? [])
        expect(streamed).toEqual(whole.choices[0]?.logprobs?.content ?? [])
      }),
      { numRuns: 60 },
    )
  }, 120_000)
})

describe('log probabilities', () => {
  test('have OpenAI’s shape, and their tokens are the text', async () => {
    const { client } = await start({ script: { reply: () => ['It ', 'is ', 'ü'] } })
    const { choices } = await client.chat.completions.create(ask({ logprobs: true, top_logprobs: 1 }))
    expect(choices[0]?.logprobs?.content?.map(({ token }) => token).join('')).toBe('It is ü')
    expect(choices[0]?.logprobs).toMatchObject({ refusal: null, content: [{}, {}, { token: 'ü', bytes: [195, 188] }] })
    expect(choices[0]?.logprobs?.content?.[0]?.top_logprobs[0]).toEqual({
      token: 'It ',
      bytes: [73, 116, 32],
      logprob: choices[0]?.logprobs?.content?.[0]?.logprob,
    })
    const without = await client.chat.completions.create(ask())
    expect(without.choices[0]?.logprobs).toBeNull()
  })
})

test('what SDKs send back or leave behind is taken: an assistant that said nothing, marks of another cache, samplers switched off', async () => {
  const seen: { prompt: Prompt; sampling: Sampling }[] = []
  const { base } = await start({ script: { reply: (prompt, sampling) => `${seen.push({ prompt, sampling })}` } })
  const statuses: number[] = []
  for (const top_k of [0, -1]) {
    const response = await post({ base }, '/v1/chat/completions', {
      model: MODEL,
      top_k,
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'Hello', cache_control: { type: 'ephemeral' } }] },
        { role: 'assistant', content: null },
        { role: 'user', content: 'Anybody?' },
      ],
    })
    statuses.push(response.status)
  }
  expect(statuses).toEqual([200, 200])
  expect(seen.map(({ sampling }) => sampling.topK)).toEqual([undefined, undefined])
  expect(seen[0]?.prompt.messages.map(({ content }) => content)).toEqual(['Hello', '', 'Anybody?'])
})

describe('what an answer is asked to be', () => {
  test('reaches the engine', async () => {
    const seen: Sampling[] = []
    const reply = (_: Prompt, sampling: Sampling) => `${seen.push(sampling)}`
    const { client } = await start({ script: { reply } })
    const schema = { type: 'object', properties: {} }
    await client.chat.completions.create(
      ask({
        response_format: { type: 'json_schema', json_schema: { name: 'x', schema, strict: true } },
        ...{ frequency_penalty: 0.5, presence_penalty: -0.5, logit_bias: { 7: -100 }, top_p: 0, logprobs: true, n: 2, seed: 5 },
        ...{ top_k: 40, min_p: 0.1, repeat_penalty: 1.1 },
      }),
    )
    await client.chat.completions.create(ask({ response_format: { type: 'json_object' } }))
    await client.chat.completions.create(ask({ response_format: { type: 'text' } }))
    expect(seen[0]).toEqual({
      ...{ temperature: 0, topP: 0, stop: [], seed: 5, frequencyPenalty: 0.5, presencePenalty: -0.5, logprobs: 0 },
      ...{ topK: 40, minP: 0.1, repeatPenalty: 1.1, logitBias: new Map([[7, -100]]) },
      format: { kind: 'schema', name: 'x', schema, strict: true, param: 'response_format.json_schema.schema' },
    })
    expect(seen.map(({ seed, format }) => [seed, format?.kind])).toEqual([
      [5, 'schema'],
      [6, 'schema'],
      [undefined, 'json'],
      [undefined, undefined],
    ])
  })

  test('a service tier is named where one was asked for; chunks are padded where that was', async () => {
    const { client } = await start()
    expect(await client.chat.completions.create(ask({ service_tier: 'auto' }))).toMatchObject({ service_tier: 'default' })
    expect(await client.chat.completions.create(ask())).not.toHaveProperty('service_tier')
    const stream_options = { include_obfuscation: true }
    const chunks = await gather(await client.chat.completions.create({ ...ask({ stream_options }), stream: true }))
    const sizes = new Set(chunks.map((chunk) => JSON.stringify(chunk).length % 256))
    expect(chunks.every((chunk) => 'obfuscation' in chunk)).toBe(true)
    expect(sizes.size).toBe(1)
  })
})
