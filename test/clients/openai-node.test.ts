import OpenAI from 'openai'
import { zodFunction, zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import { MODEL, type Served, serve } from '../http/fakes.ts'
import { talk } from './script.ts'

vi.setConfig({ testTimeout: 60_000 })

let served: Served
let client: OpenAI
beforeAll(async () => {
  served = await serve({ script: { reply: talk } })
  client = new OpenAI({ baseURL: `${served.base}/v1`, apiKey: 'unused', maxRetries: 0 })
})
afterAll(() => served.close())

const messages = [{ role: 'user' as const, content: 'Hello' }]
const City = z.object({ city: z.string(), people: z.number() })
const weather = zodFunction({
  name: 'weather',
  parameters: z.object({ city: z.string() }),
  function: ({ city }) => `rain in ${city}`,
})

describe('the official client for Node', () => {
  test('chats, whole and streamed', async () => {
    const whole = await client.chat.completions.create({ model: MODEL, messages })
    expect(whole.choices[0]?.message.content).toBe('You said: Hello')
    const stream = client.chat.completions.stream({ model: MODEL, messages, stream_options: { include_usage: true } })
    expect(await stream.finalContent()).toBe('You said: Hello')
    expect((await stream.totalUsage()).completion_tokens).toBe(whole.usage?.completion_tokens)
  })

  test('runs tools until the answer is there, whole and streamed', async () => {
    const tools = [weather]
    const whole = await client.chat.completions.runTools({ model: MODEL, messages, tools }).finalContent()
    const streamed = await client.chat.completions.runTools({ model: MODEL, messages, tools, stream: true }).finalContent()
    expect([whole, streamed]).toEqual(Array(2).fill('The weather: rain in Lund'))
  })

  test('parses JSON by its schema, in a chat and in a response', async () => {
    const chat = await client.chat.completions.parse({ model: MODEL, messages, response_format: zodResponseFormat(City, 'city') })
    const response = await client.responses.parse({ model: MODEL, input: 'Hello', text: { format: zodTextFormat(City, 'city') } })
    expect([chat.choices[0]?.message.parsed, response.output_parsed]).toEqual(Array(2).fill({ city: 'Lund', people: 90000 }))
  })

  test('asks for responses, embeddings, completions and models', async () => {
    expect((await client.responses.create({ model: MODEL, input: 'Hello' })).output_text).toBe('You said: Hello')
    expect(
      (await client.embeddings.create({ model: 'fake', input: ['a', 'b'] })).data.map((one) => one.embedding.length),
    ).toEqual([16, 16])
    expect((await client.completions.create({ model: MODEL, prompt: 'Once' })).choices[0]?.text).toBe(' and so on')
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual([MODEL, `${MODEL}@base`, 'fake'])
  })

  test('reads embeddings that it asks for in base64, its default, as those it asks for in numbers', async () => {
    const sent: unknown[] = []
    const asking = new OpenAI({
      ...{ baseURL: `${served.base}/v1`, apiKey: 'unused' },
      fetch: (url, init) => {
        sent.push(JSON.parse(String(init?.body)).encoding_format)
        return fetch(url, init)
      },
    })
    const asked = { model: 'fake', input: ['a', 'b'] }
    const [byDefault, numbers] = [
      await asking.embeddings.create(asked),
      await asking.embeddings.create({ ...asked, encoding_format: 'float' }),
    ]
    expect(sent).toEqual(['base64', 'float'])
    expect(byDefault.data.map(({ embedding }) => embedding)).toEqual(numbers.data.map(({ embedding }) => embedding))
  })

  test('throws its own classes of errors', async () => {
    await expect(client.chat.completions.create({ model: MODEL, messages, temperature: 9 })).rejects.toThrow(
      OpenAI.BadRequestError,
    )
    await expect(client.models.retrieve('gpt-9')).rejects.toThrow(OpenAI.NotFoundError)
    const full = await serve({ script: { slots: 1, queueLimit: 0, delayMs: 1, reply: () => 'word '.repeat(100_000) } })
    const busy = new OpenAI({ baseURL: `${full.base}/v1`, apiKey: 'unused', maxRetries: 0 })
    const stream = await busy.chat.completions.create({ model: MODEL, messages, stream: true })
    await expect(busy.chat.completions.create({ model: MODEL, messages })).rejects.toThrow(OpenAI.RateLimitError)
    stream.controller.abort()
    await full.close()
  })
})
