import { HumanMessage } from '@langchain/core/messages'
import { tool } from '@langchain/core/tools'
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import { MODEL, type Served, serve } from '../http/fakes.ts'
import { talk } from './script.ts'

vi.setConfig({ testTimeout: 60_000 })

let served: Served
beforeAll(async () => {
  served = await serve({ script: { reply: talk } })
})
afterAll(() => served.close())

const weather = tool(({ city }) => `rain in ${city}`, {
  name: 'weather',
  description: 'The weather of a city.',
  schema: z.object({ city: z.string() }),
})

describe.each([false, true])('LangChain, by responses: %s', (useResponsesApi) => {
  const model = () =>
    new ChatOpenAI({
      ...{ model: MODEL, apiKey: 'unused', maxRetries: 0, useResponsesApi },
      configuration: { baseURL: `${served.base}/v1` },
    })

  test('answers, whole and streamed', async () => {
    expect((await model().invoke('Hello')).text).toBe('You said: Hello')
    let text = ''
    for await (const chunk of await model().stream('Hello')) text += chunk.text
    expect(text).toBe('You said: Hello')
  })

  test('calls tools and goes on from their results', async () => {
    const bound = model().bindTools([weather])
    const asked = new HumanMessage('Weather?')
    const answer = await bound.invoke([asked])
    expect(answer.tool_calls).toMatchObject([{ name: 'weather', args: { city: 'Lund' } }])
    const call = answer.tool_calls?.[0]
    if (call === undefined) throw new Error('no call')
    const result = await weather.invoke({ ...call, type: 'tool_call' })
    expect((await bound.invoke([asked, answer, result])).text).toBe('The weather: rain in Lund')
  })

  test('makes objects by a schema', async () => {
    const City = z.object({ city: z.string(), people: z.number() })
    expect(await model().withStructuredOutput(City, { method: 'jsonSchema', name: 'city' }).invoke('Which?')).toEqual({
      city: 'Lund',
      people: 90000,
    })
  })

  test('reports errors with their status', async () => {
    const wrong = new ChatOpenAI({
      ...{ model: 'gpt-9', apiKey: 'unused', maxRetries: 0, useResponsesApi },
      configuration: { baseURL: `${served.base}/v1` },
    })
    await expect(wrong.invoke('x')).rejects.toMatchObject({ status: 404 })
  })
})

test('LangChain embeds', async () => {
  const embeddings = new OpenAIEmbeddings({ model: 'fake', apiKey: 'unused', configuration: { baseURL: `${served.base}/v1` } })
  expect((await embeddings.embedDocuments(['a', 'b'])).map((one) => one.length)).toEqual([16, 16])
})
