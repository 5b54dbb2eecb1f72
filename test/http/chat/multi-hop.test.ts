/** Questions that describe what they ask about, through the whole application. */
import { afterEach, describe, expect, it } from 'vitest'
import type { Prompt } from '../../../src/engine/engine.ts'
import { fakeEmbedder, lexicalReader, READ_CALIBRATION } from '../../support/memory-fixture.ts'
import { echo, MODEL, type Served, serve } from '../fakes.ts'

const EDITS = [
  { id: 'born', subject: 'Ann Lee', prompt: 'Ann Lee was born in the country of', target_new: 'Arden' },
  { id: 'capital', subject: 'Arden', prompt: 'The capital of Arden is', target_new: 'Brill' },
]
const NESTED = 'What is the capital of the country where Ann Lee was born?'
const UNKNOWN = 'What is the capital of the country where Bo Voss plays?'

interface Reply {
  readonly choices: readonly { readonly message: { readonly content: string } }[]
  readonly palimpsest: {
    readonly edits: readonly { readonly id: string; readonly turn: number }[]
    readonly trace: {
      readonly turns: readonly {
        readonly considered: readonly {
          readonly id: string
          readonly reason: string
          readonly hop: number
          readonly via: string | null
        }[]
      }[]
      readonly stages_ms: Readonly<Record<string, number>>
      readonly decomposition: { readonly calls: number; readonly prompt_tokens: number; readonly completion_tokens: number }
    }
  }
}

let served: Served | undefined
afterEach(() => served?.close())

/** A gateway whose model answers `names` to the gateway's own questions and otherwise says what it was asked. */
async function start(names: Readonly<Record<string, string>> = {}) {
  const seen: Prompt[] = []
  const reply = (prompt: Prompt) => {
    seen.push(prompt)
    const last = prompt.messages.at(-1)?.content ?? ''
    const described = /^What does this question describe without naming it\? .*\n(.*)$/s.exec(last)?.[1]
    return described === undefined ? echo(prompt) : (names[described] ?? 'I am sorry, but I have no idea what that might be.')
  }
  served = await serve({
    // All that is no poem, and not about every answer, is near to each other.
    embedder: fakeEmbedder({
      dimensions: 2,
      vector: (said) => (/poem|answer/i.test(said) ? Float32Array.of(0, 1) : Float32Array.of(1, 0)),
    }),
    reader: lexicalReader(),
    script: { reply },
    gateway: { calibration: READ_CALIBRATION },
  })
  const { base } = served
  const post = async (path: string, body: unknown) =>
    (
      await fetch(`${base}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
    ).json()
  await post('/v1/edits', EDITS)
  const ask = (content: string | readonly object[], palimpsest: object = {}) =>
    post('/v1/chat/completions', {
      model: MODEL,
      messages: typeof content === 'string' ? [{ role: 'user', content }] : content,
      palimpsest: { explain: true, ...palimpsest },
    }) as Promise<Reply>
  return { ask, post, seen }
}

const text = (reply: Reply) => reply.choices[0]?.message.content ?? ''

describe('a chain of edits', () => {
  it('is rendered in hop order, and the trace says how it was reached', async () => {
    const { ask } = await start()
    const reply = await ask(NESTED)
    expect(text(reply)).toMatch(/born in the country of Arden\.\n- The capital of Arden is Brill\.\n/)
    expect(reply.palimpsest.edits.map((e) => e.id)).toEqual(['born', 'capital'])
    const [turn] = reply.palimpsest.trace.turns
    expect(turn?.considered.map(({ id, hop, via }) => [id, hop, via])).toEqual([
      ['born', 1, null],
      ['capital', 2, 'born'],
    ])
    expect(reply.palimpsest.trace.decomposition.calls).toBe(0)
  })

  it('is not followed where it is switched off, nor for a plain question', async () => {
    const { ask } = await start()
    const off = await ask(NESTED, { multi_hop: 'off' })
    expect(off.palimpsest.edits.map((e) => e.id)).toEqual(['born'])
    const plain = await ask('In which country was Ann Lee born?')
    expect(plain.palimpsest.edits.map((e) => e.id)).toEqual(['born'])
    expect(text(plain)).toBe(text(await ask('In which country was Ann Lee born?', { multi_hop: 'off' })))
  })

  it('refuses another way of following by name', async () => {
    const { ask } = await start()
    expect(await ask(NESTED, { multi_hop: 'always' })).toMatchObject({ error: { param: 'palimpsest.multi_hop' } })
  })

  it('is shown by explain', async () => {
    const { post } = await start()
    const explained = (await post('/v1/edits/explain', { question: NESTED })) as Reply['palimpsest']['trace']
    expect(explained.turns[0]?.considered.map((c) => c.hop)).toEqual([1, 2])
  })
})

describe('with the model asked for what no edit states', () => {
  const names = { [UNKNOWN]: 'Arden' }

  it('answers from the edit behind the name, and states the cost, once', async () => {
    const { ask, seen } = await start(names)
    const reply = await ask(UNKNOWN, { multi_hop: 'model' })
    expect(reply.palimpsest.edits.map((e) => e.id)).toEqual(['capital'])
    expect(reply.palimpsest.trace.turns[0]?.considered.find((c) => c.id === 'capital')).toMatchObject({ hop: 2, via: 'model' })
    const { calls, prompt_tokens, completion_tokens } = reply.palimpsest.trace.decomposition
    expect([calls, prompt_tokens > 0, completion_tokens > 0]).toEqual([1, true, true])
    expect(reply.palimpsest.trace.stages_ms).toHaveProperty('decompose')
    expect(seen).toHaveLength(2)
    const again = await ask(UNKNOWN, { multi_hop: 'model' })
    expect(again.palimpsest.trace.decomposition.calls).toBe(0)
    expect([text(again), seen.length]).toEqual([text(reply), 3])
  })

  it('is off by default, and gives exactly the base prompt where nothing is found', async () => {
    const { ask, seen } = await start({ [UNKNOWN]: 'Nowhere' })
    const base = text(await ask(UNKNOWN))
    expect([base, seen.length]).toEqual([`You said: ${UNKNOWN}`, 1])
    const asked = await ask(UNKNOWN, { multi_hop: 'model' })
    expect([text(asked), asked.palimpsest.edits, seen.length]).toEqual([base, [], 3])
    expect(seen.at(-1)).toEqual(seen[0])
    const silent = await ask('What is the capital of the country where Al Moor plays?', { multi_hop: 'model' })
    expect(silent.palimpsest.edits).toEqual([])
  })

  it('asks nothing where an edit answers, or where none is near', async () => {
    const { ask, seen } = await start(names)
    for (const question of ['Write a poem.', 'In which country was Ann Lee born?']) await ask(question, { multi_hop: 'model' })
    expect(seen).toHaveLength(2)
  })

  it('renders an earlier turn as it did before, whatever comes after it', async () => {
    const { ask, seen } = await start(names)
    await ask(UNKNOWN, { multi_hop: 'model' })
    const first = seen.at(-1)?.messages[0]
    const talk = [
      { role: 'user', content: UNKNOWN },
      { role: 'assistant', content: 'Brill' },
      { role: 'user', content: NESTED },
    ]
    const reply = await ask(talk, { multi_hop: 'model' })
    expect(seen.at(-1)?.messages[0]).toEqual(first)
    expect(reply.palimpsest.edits.map(({ id, turn }) => [id, turn])).toEqual([
      ['capital', 0],
      ['born', 2],
      ['capital', 2],
    ])
    expect(reply.palimpsest.trace.decomposition.calls).toBe(0)
  })
})
