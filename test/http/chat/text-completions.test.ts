import fc from 'fast-check'
import OpenAI from 'openai'
import type { CompletionCreateParamsNonStreaming } from 'openai/resources/completions'
import { afterEach, describe, expect, test } from 'vitest'
import { COMPLETION_FIELDS } from '../../../src/wire/openai/fields.ts'
import { MODEL, type Served, type ServeOptions, serve } from '../fakes.ts'

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function start(options?: ServeOptions) {
  const served = await serve(options)
  open.push(served)
  return { ...served, client: new OpenAI({ baseURL: `${served.base}/v1`, apiKey: 'none', maxRetries: 0 }) }
}

const ask = (fields: object): CompletionCreateParamsNonStreaming => ({ model: MODEL, prompt: 'Once', ...fields })
const landMayor = ({ base }: Served) =>
  fetch(`${base}/v1/edits`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ id: 'e_mayor', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' }),
  })

describe('a text completion', () => {
  test("has OpenAI's shape", async () => {
    const { client } = await start()
    const data = await client.completions.create(ask({}))
    expect(data).toMatchObject({
      id: expect.stringMatching(/^cmpl-/),
      object: 'text_completion',
      choices: [{ text: ' and so on', index: 0, logprobs: null, finish_reason: 'stop' }],
      usage: { prompt_tokens: 4, completion_tokens: 3, total_tokens: 7 },
      palimpsest: { arm: 'edited', edits: [] },
    })
  })

  test('goes on with the client’s text: the model sees an edit before it, the client does not', async () => {
    const seen: string[] = []
    const goOn = (text: string) => (seen.push(text) > 0 ? ' Ada' : '')
    const served = await start({ script: { goOn } })
    await landMayor(served)
    const prompt = 'The mayor of Lund is'
    const edited = await served.client.completions.create(ask({ prompt, echo: true, logprobs: 1, max_tokens: 1 }))
    const base = await served.client.completions.create(
      ask({ model: `${MODEL}@base`, prompt, echo: true, logprobs: 1, max_tokens: 1 }),
    )
    expect(seen).toEqual([`The mayor of Lund is Ada.\n${prompt}`, prompt])
    expect(edited).toMatchObject({ palimpsest: { arm: 'edited', edits: [{ id: 'e_mayor' }], template: 'raw-completion' } })
    for (const key of ['tokens', 'text_offset'] as const)
      expect(edited.choices[0]?.logprobs?.[key]).toEqual(base.choices[0]?.logprobs?.[key])
    expect(edited.choices[0]?.text).toBe(`${prompt} Ada`)
  })

  test('a template that writes after the text is refused by name', async () => {
    const served = await start()
    await landMayor(served)
    const asked = served.client.completions.create(ask({ prompt: 'The mayor of Lund is', palimpsest: { template: 'facts' } }))
    await expect(asked).rejects.toMatchObject({ status: 400, param: 'palimpsest.template' })
  })

  test('an echoed prompt is no first token', async () => {
    const { client, base } = await start()
    const measured = async () =>
      /first_token_seconds_count\{[^}]*\} (\d+)/.exec(await (await fetch(`${base}/metrics`)).text())?.[1]
    await client.completions.create(ask({ echo: true, logprobs: 1, max_tokens: 0 }))
    expect(await measured()).toBeUndefined()
    await client.completions.create(ask({ echo: true, logprobs: 1, max_tokens: 1 }))
    expect(await measured()).toBe('1')
  })

  test('scores a prompt: echo and logprobs with no token to write, as harnesses ask', async () => {
    const { client } = await start()
    const { choices } = await client.completions.create(ask({ prompt: ['aé', 'bc'], echo: true, logprobs: 1, max_tokens: 0 }))
    expect(choices.map(({ text, index }) => [index, text])).toEqual([
      [0, 'aé'],
      [1, 'bc'],
    ])
    const ids = await client.completions.create(ask({ prompt: [[97, 233], [98]], echo: true, logprobs: 1, max_tokens: 0 }))
    expect(ids.choices.map(({ text }) => text)).toEqual(['aé', 'b'])
    expect(ids.choices[0]?.logprobs).toEqual(choices[0]?.logprobs)
    expect(choices[0]).toMatchObject({ finish_reason: 'length', logprobs: { tokens: ['a', 'é'], text_offset: [0, 1] } })
    expect(choices[0]?.logprobs?.token_logprobs?.[0]).toBeNull()
    expect(choices[0]?.logprobs?.top_logprobs?.[0]).toBeNull()
    expect(choices[0]?.logprobs?.top_logprobs?.[1]).toMatchObject({ é: choices[0]?.logprobs?.token_logprobs?.[1] })
  })

  test('streams the same text, log probabilities and usage', async () => {
    let words: string[] = []
    const { client } = await start({ script: { goOn: () => words.join(''), tokensPerChar: 0.5 } })
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom('word ', 'STOP', 'ST', '😀', 'é'), { maxLength: 8 }),
        fc.boolean(),
        async (some, echo) => {
          words = some
          const fields = { echo, stop: 'STOP', logprobs: 2, max_tokens: 64 }
          const whole = await client.completions.create(ask(fields))
          const stream = await client.completions.create({
            ...ask(fields),
            stream: true,
            stream_options: { include_usage: true },
          })
          const chunks = []
          for await (const chunk of stream) chunks.push(chunk)
          const parts = chunks.flatMap((chunk) => chunk.choices)
          expect(parts.map(({ text }) => text).join('')).toBe(whole.choices[0]?.text)
          for (const key of ['tokens', 'token_logprobs', 'text_offset'] as const) {
            const told: unknown[] = parts.flatMap(({ logprobs }): unknown[] => logprobs?.[key] ?? [])
            expect(told).toEqual(whole.choices[0]?.logprobs?.[key])
          }
          expect(chunks.at(-1)?.usage).toEqual({ ...whole.usage, prompt_tokens_details: expect.anything() })
          expect(parts.at(-1)?.finish_reason).toBe(whole.choices[0]?.finish_reason)
        },
      ),
      { numRuns: 30 },
    )
  }, 60_000)

  test('n answers to each prompt, numbered through; the best of several', async () => {
    let turn = 0
    const { client } = await start({ script: { goOn: () => (turn++ % 2 === 0 ? 'x' : 'xxxxxxxx'), tokensPerChar: 0.1 } })
    const several = await client.completions.create(ask({ prompt: ['a', 'b'], n: 2 }))
    expect(several.choices.map(({ index, text }) => [index, text.length])).toEqual([
      [0, 1],
      [1, 8],
      [2, 1],
      [3, 8],
    ])
    expect(several.usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 4 })
    const best = await client.completions.create(ask({ n: 1, best_of: 4 }))
    expect(best.choices).toMatchObject([{ text: 'xxxxxxxx', logprobs: null }])
  })

  test.each<[object, string]>([
    [{ prompt: 5 }, 'prompt'],
    [{ prompt: [] }, 'prompt'],
    [{ prompt: [-1] }, 'prompt[0]'],
    [{ prompt: ['a', [1]] }, 'prompt'],
    [{ logprobs: 6 }, 'logprobs'],
    [{ logprobs: true }, 'logprobs'],
    [{ best_of: 1, n: 2 }, 'best_of'],
    [{ best_of: 2, stream: true }, 'best_of'],
    [{ suffix: ' end' }, 'suffix'],
    [{ max_tokens: -1 }, 'max_tokens'],
    [{ echo: 'yes' }, 'echo'],
    [{ messages: [] }, 'messages'],
    [{ model: 'x' }, 'model'],
  ])('refuses %j, naming %s', async (fields, param) => {
    const { client } = await start()
    await expect(client.completions.create(ask(fields))).rejects.toMatchObject({ param })
  })

  test('every documented field is decided on, and null is absence', async () => {
    const { base } = await start()
    expect(Object.keys(COMPLETION_FIELDS)).toHaveLength(18)
    const nulls = Object.fromEntries(Object.keys(COMPLETION_FIELDS).map((field) => [field, null]))
    const body = JSON.stringify({ ...nulls, model: MODEL })
    const reply = await fetch(`${base}/v1/completions`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })
    expect(reply.status).toBe(200)
  })
})
