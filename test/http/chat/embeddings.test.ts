import OpenAI from 'openai'
import { afterEach, describe, expect, test, vi } from 'vitest'
import type { Embedder } from '../../../src/engine/engine.ts'
import { fakeEmbedder, vectorOf } from '../../support/memory-fixture.ts'
import { type Served, type ServeOptions, serve } from '../fakes.ts'

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function start(options?: ServeOptions): Promise<Served & { client: OpenAI }> {
  const served = await serve(options)
  open.push(served)
  return { ...served, client: new OpenAI({ baseURL: `${served.base}/v1`, apiKey: 'none', maxRetries: 0 }) }
}

async function post({ base }: Served, body: object) {
  const response = await fetch(`${base}/v1/embeddings`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'fake', ...body }),
  })
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  return { status: response.status, headers: response.headers, json: (await response.json()) as any }
}

describe('embeddings', () => {
  test('have the vectors of the embedder, in order, and count their tokens', async () => {
    const served = await start()
    const { json, headers } = await post(served, {
      input: ['one two', 'three'],
      encoding_format: 'float',
      user: 'u',
      dimensions: 16,
    })
    expect(json).toEqual({
      object: 'list',
      model: 'fake',
      data: ['one two', 'three'].map((text, index) => ({
        object: 'embedding',
        index,
        embedding: [...vectorOf(text, 16)],
      })),
      usage: { prompt_tokens: 7, total_tokens: 7 },
    })
    expect(headers.get('server-timing')).toMatch(/^embed;dur=[\d.]+, total;dur=/)
  })

  test('are the same in base64, which is what the official client asks for', async () => {
    const { client, ...served } = await start()
    const answer = await client.embeddings.create({ model: 'fake', input: 'one two' })
    const plain = await post({ ...served }, { input: 'one two' })
    expect(answer.data[0]?.embedding).toEqual(plain.json.data[0].embedding)
    expect((await post({ ...served }, { input: 'one two', encoding_format: 'base64' })).json.data[0].embedding).toMatch(
      /^[\w+/]+=*$/,
    )
  })

  test.each([
    ['another number of dimensions', { input: 'x', dimensions: 8 }, 'dimensions', 'unsupported_field'],
    ['token ids', { input: [1, 2, 3] }, 'input', 'unsupported_field'],
    ['several texts in token ids', { input: [[1, 2], [3]] }, 'input', 'unsupported_field'],
    ['no text', { input: '' }, 'input', 'invalid_value'],
    ['no texts', { input: [] }, 'input', 'invalid_value'],
    ['nothing', {}, 'input', 'missing_field'],
    ['too many texts', { input: ['a', 'b', 'c', 'd'] }, 'input', 'invalid_value'],
    ['a text that is too long', { input: ['a', 'word '.repeat(300)] }, 'input', 'context_length_exceeded'],
    ['an unknown encoding', { input: 'x', encoding_format: 'int8' }, 'encoding_format', 'invalid_value'],
    ['an unknown field', { input: 'x', colour: 'red' }, 'colour', 'unknown_field'],
    ['half an emoji', { input: ['x\ud83d'] }, 'input[0]', 'invalid_value'],
  ])('refuse %s by name', async (_, body, param, code) => {
    const { status, json } = await post(await start({ limits: { embeddingInputs: 3 } }), body)
    expect([status, json.error.param, json.error.code]).toEqual([400, param, code])
  })

  test('name what is served where another model is asked for', async () => {
    const { client } = await start()
    await expect(client.embeddings.create({ model: 'text-embedding-3-small', input: 'x' })).rejects.toMatchObject({
      constructor: OpenAI.NotFoundError,
      message: expect.stringContaining('Served here: fake'),
    })
  })

  test('beyond the limit are told to come back; one who leaves makes room', async () => {
    const waiting: ((reason: unknown) => void)[] = []
    const stuck: Embedder = {
      ...fakeEmbedder(),
      embed: (_texts, _priority, signal) =>
        new Promise((_, reject) => {
          waiting.push(reject)
          signal?.addEventListener('abort', () => reject(signal.reason))
        }),
    }
    const { client } = await start({ embedder: stuck, limits: { embeddingRequests: 1 } })
    const leave = new AbortController()
    const first = client.embeddings.create({ model: 'fake', input: 'x' }, { signal: leave.signal }).catch(() => 'left')
    await vi.waitFor(() => expect(waiting).toHaveLength(1))
    await expect(client.embeddings.create({ model: 'fake', input: 'y' })).rejects.toMatchObject({
      status: 429,
      code: 'queue_full',
    })
    leave.abort()
    expect(await first).toBe('left')
    const next = client.embeddings.create({ model: 'fake', input: 'z' }).catch(() => 'failed')
    await vi.waitFor(() => expect(waiting).toHaveLength(2))
    waiting[1]?.(new Error('enough'))
    expect(await next).toBe('failed')
  })
})
