import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from 'ai'
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

const openai = () => createOpenAI({ baseURL: `${served.base}/v1`, apiKey: 'unused' })
const compatible = () =>
  createOpenAICompatible({
    name: 'palimpsest',
    baseURL: `${served.base}/v1`,
    includeUsage: true,
    supportsStructuredOutputs: true,
  })
/** As its provider for OpenAI does by default (responses), as that does for a chat, and as the one for compatible servers does. */
const MODELS = [
  ['responses', () => openai()(MODEL)],
  ['chat', () => openai().chat(MODEL)],
  ['compatible', () => compatible()(MODEL)],
] as const

describe.each(MODELS)('the Vercel AI SDK, %s', (_, model) => {
  test('generates and streams text', async () => {
    const { text, usage } = await generateText({ model: model(), prompt: 'Hello' })
    expect(text).toBe('You said: Hello')
    const stream = streamText({ model: model(), prompt: 'Hello' })
    expect(await stream.text).toBe('You said: Hello')
    expect((await stream.usage).outputTokens).toBe(usage.outputTokens)
    expect(usage.outputTokens).toBeGreaterThan(0)
  })

  test('goes through the steps of a tool, whole and streamed', async () => {
    const weather = tool({
      description: 'The weather of a city.',
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `rain in ${city}`,
    })
    const asked = { model: model(), prompt: 'Weather?', tools: { weather }, stopWhen: stepCountIs(3) }
    expect((await generateText(asked)).text).toMatch(/The weather: .*rain in Lund/)
    expect(await streamText(asked).text).toMatch(/The weather: .*rain in Lund/)
  })

  test('makes objects by a schema', async () => {
    const schema = z.object({ city: z.string(), people: z.number() })
    const { output } = await generateText({ model: model(), prompt: 'Which city?', output: Output.object({ schema }) })
    expect(output).toEqual({ city: 'Lund', people: 90000 })
  })

  test('reports errors with their status', async () => {
    const failed = await generateText({ model: model(), prompt: 'x', temperature: 9, maxRetries: 0 }).catch((error) => error)
    expect(APICallError.isInstance(failed) && failed.statusCode).toBe(400)
  })
})

test('the Vercel AI SDK embeds', async () => {
  const { embeddings } = await embedMany({ model: openai().embedding('fake'), values: ['a', 'b'] })
  expect(embeddings.map((one) => one.length)).toEqual([16, 16])
})
