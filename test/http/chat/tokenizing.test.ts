import { afterAll, beforeAll, expect, test } from 'vitest'
import { openScripted } from '../../../src/engine/scripted.ts'
import { MODEL, type Served, serve } from '../fakes.ts'

let served: Served
beforeAll(async () => {
  served = await serve({ script: { contextTokens: 64 } })
})
afterAll(() => served.close())

async function ask(path: string, body?: object, { base } = served) {
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
  const response = await fetch(`${base}${path}`, body === undefined ? {} : init)
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  return { status: response.status, json: (await response.json()) as any }
}

// The scripted vocabulary: a token is a character, and "^" opens every text.
const HI = [72, 105]

test('a text becomes token ids, with what the vocabulary puts first unless told otherwise', async () => {
  expect((await ask('/tokenize', { prompt: 'Hi', add_special_tokens: false })).json).toEqual({
    ...{ count: 2, max_model_len: 64, tokens: HI, token_strs: null },
  })
  expect((await ask('/tokenize', { prompt: 'Hi', model: `${MODEL}@base` })).json).toMatchObject({ count: 3, tokens: [94, ...HI] })
})

test('and back', async () => {
  expect(await ask('/detokenize', { tokens: HI, model: MODEL })).toEqual({ status: 200, json: { prompt: 'Hi' } })
})

test('the marks of the vocabulary are told', async () => {
  const info = { bos_token: '^', eos_token: null, add_bos_token: true, model_max_length: 64 }
  expect((await ask('/tokenizer_info')).json).toEqual(info)
})

test.each([
  ['/tokenize', {}, 'prompt'],
  ['/tokenize', { prompt: 7 }, 'prompt'],
  ['/tokenize', { prompt: 'Hi', return_token_strs: true }, 'return_token_strs'],
  ['/tokenize', { prompt: 'Hi', messages: [] }, 'messages'],
  ['/detokenize', { tokens: [-1] }, 'tokens[0]'],
  ['/detokenize', { prompt: 'Hi' }, 'tokens'],
])('%s refuses %j by name', async (path, body, param) => {
  const { status, json } = await ask(path, body)
  expect([status, json.error.param]).toEqual([400, param])
})

test('a model that is not served is not found', async () => {
  expect((await ask('/tokenize', { prompt: 'Hi', model: 'other' })).status).toBe(404)
})

test('nothing is served where the vocabulary is another server’s', async () => {
  const engine = openScripted({ name: MODEL, reply: () => '' })
  const other = await serve({ engine: Object.create(engine, { text: { value: undefined }, model: { value: engine.model } }) })
  try {
    expect((await ask('/tokenizer_info', undefined, other)).status).toBe(404)
  } finally {
    await other.close()
  }
})
