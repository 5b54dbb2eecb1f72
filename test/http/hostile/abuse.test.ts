/** What one client may not do to the others, to the gateway's machine, or to its owner. */
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { accessBy } from '../../../src/access/access.ts'
import type { NewKey } from '../../../src/access/key-store.ts'
import type { TextPair } from '../../../src/engine/engine.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import { UNRELATED } from '../../../src/selection/boundless.ts'
import { openKeys } from '../../../src/server/access.ts'
import { wireError } from '../../../src/wire/openai/error.ts'
import { fakeEmbedder, lexicalReader, READ_CALIBRATION } from '../../support/memory-fixture.ts'
import { MODEL, post, type Served, type ServeOptions, serve } from '../fakes.ts'
import { BASE, modelOf } from '../handoff/handoff-fakes.ts'
import { send } from './malformed.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 120_000 })

const close: (() => unknown)[] = []
afterEach(async () => {
  vi.useRealTimers()
  for (const one of close.splice(0).reverse()) await one()
})

async function start(options: ServeOptions = {}): Promise<Served> {
  const served = await serve(options)
  close.push(() => served.close())
  return served
}

/** A gateway that asks for keys. */
async function keyed(options: ServeOptions = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-abuse-'))
  const store = await openKeys(dir)
  const access = await accessBy(store, 'keys', true, Date.now)
  close.push(
    () => rmSync(dir, { recursive: true, force: true }),
    () => store.database.close(),
    () => access.close(),
  )
  const served = await start({ ...options, gateway: { access, ...options.gateway } })
  const make = async (fields: Partial<NewKey> = {}) => {
    const { key, token } = await store.create(
      { name: 'k', tenant: 'default', scopes: ['inference', 'edits'], ...fields },
      Date.now(),
    )
    const used = async () => (await store.list(Date.now())).find(({ id }) => id === key.id)?.tokensUsed
    return { headers: { authorization: `Bearer ${token}` }, used }
  }
  return { ...served, make }
}

// biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
async function bodyOf(answer: Response | Promise<Response>): Promise<any> {
  return (await answer).json()
}

const chat = (content: string, fields: object = {}) => ({ model: MODEL, messages: [{ role: 'user', content }], ...fields })
const FACT = { id: 'e', subject: 'Lumora', prompt: 'The mayor of Lumora is', target_new: 'Ada' }

describe('one clock', () => {
  test('an edit that landed while the clock was ahead is in effect as it is listed, when the clock is set back', async () => {
    const served = await start()
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 366 * 86_400_000 })
    await post(served, '/v1/edits', FACT)
    vi.useRealTimers()
    await post(served, '/v1/edits', { ...FACT, id: 'later', prompt: 'The river of Lumora is', target_new: 'Elbe' })
    const { data } = await bodyOf(fetch(`${served.base}/v1/edits`))
    expect(data.map(({ state }: { state: string }) => state)).toEqual(['live', 'live'])
    const { palimpsest } = await bodyOf(post(served, '/v1/chat/completions', chat('Who is the mayor of Lumora?')))
    expect(palimpsest.edits.map(({ id }: { id: string }) => id).sort()).toEqual(['e', 'later'])
    const named = await post(served, '/v1/chat/completions', chat('Hello', { palimpsest: { edits: ['later'] } }))
    expect((await bodyOf(named)).palimpsest.edits).toMatchObject([{ id: 'later' }])
  })
})

describe('a conversation of many turns', () => {
  const TURNS = 1_000
  const long = () => ({
    model: MODEL,
    messages: Array.from({ length: TURNS }, (_, i) => ({ role: 'user', content: `Is Lumora ${i}?` })),
  })

  test('is read no further once its client has left', async () => {
    let read = 0
    const reader = {
      name: 'counting',
      read: async (pairs: readonly TextPair[]) => {
        read++
        return Float32Array.from(pairs, ([text]) => (UNRELATED.includes(text) ? -20 : 0))
      },
      close: async () => {},
    }
    const served = await start({ reader })
    await post(served, '/v1/edits', FACT)
    const leaving = new AbortController()
    const asked = fetch(`${served.base}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(long()),
      signal: leaving.signal,
    }).catch(() => null)
    await expect.poll(() => read, { interval: 1 }).toBeGreaterThan(2)
    leaving.abort()
    await asked
    await sleep(200)
    const then = read
    expect(then).toBeLessThan(TURNS)
    await sleep(500)
    expect(read).toBe(then)
  })

  test('lets others be answered while it is read', async () => {
    const served = await start()
    await post(served, '/v1/edits', FACT)
    let done = false
    const asked = post(served, '/v1/chat/completions', long()).then((response) => {
      done = true
      return response.status
    })
    await sleep(20)
    expect((await fetch(`${served.base}/livez`)).status).toBe(200)
    expect(done).toBe(false)
    expect(await asked).toBe(200)
  })
})

describe('a key', () => {
  test('takes no more than its share of slots and places, and leaves the rest to others', async () => {
    const served = await keyed({ script: { slots: 2, queueLimit: 6, delayMs: 500, reply: () => 'a b c d e f g h' } })
    const [greedy, modest] = [await served.make(), await served.make()]
    const ask = (who: { headers: Record<string, string> }) =>
      post(served, '/v1/chat/completions', chat('Hello'), who.headers).then(async (response) => {
        const { error } = await bodyOf(response)
        return error?.code ?? response.status
      })
    const many = Promise.all(Array.from({ length: 8 }, () => ask(greedy)))
    await sleep(200)
    expect(await ask(modest)).toBe(200)
    const codes = await many
    expect(codes.filter((code) => code === 200)).toHaveLength(4)
    expect(codes.filter((code) => code === 'queue_full')).toHaveLength(4)
    expect(await ask(greedy)).toBe(200)
  })

  test('pays for what explain asks the model, and for no more', async () => {
    // The model names the city that the question describes.
    const served = await keyed({
      script: { reply: () => 'Lumora' },
      embedder: fakeEmbedder({ dimensions: 2, vector: () => Float32Array.of(1, 0) }),
      reader: lexicalReader(),
      gateway: { calibration: READ_CALIBRATION },
    })
    const key = await served.make({ tokensPerDay: 1_000_000 })
    await post(served, '/v1/edits', [FACT, { ...FACT, id: 'f', subject: 'Aurel', prompt: 'The job of Aurel is' }], key.headers)
    const explain = (fields: object) =>
      post(served, '/v1/edits/explain', { question: 'Who leads the town?', ...fields }, key.headers)
    const plain = await bodyOf(explain({}))
    expect(plain.decomposition.calls).toBe(0)
    expect(await key.used()).toBe(0)
    const asked = await bodyOf(explain({ multi_hop: 'model' }))
    const { calls, prompt_tokens: prompt, completion_tokens: completion } = asked.decomposition
    expect(calls).toBe(1)
    await expect.poll(() => key.used()).toBe(prompt + completion)
    const poor = await served.make({ tokensPerDay: 5 })
    const refused = await post(served, '/v1/edits/explain', { question: 'Who leads the town?', multi_hop: 'model' }, poor.headers)
    expect([refused.status, (await bodyOf(refused)).error.code]).toEqual([429, 'insufficient_quota'])
  })

  test('pays nothing for a request that failed before it was answered', async () => {
    const served = await keyed({ script: { contextTokens: 50, reply: () => 'never' } })
    const key = await served.make({ tokensPerDay: 1_000_000 })
    const long = 'word '.repeat(17_400)
    for (const [path, body] of [
      ['/v1/chat/completions', chat(long)],
      ['/v1/completions', { model: MODEL, prompt: long }],
      ['/v1/responses', { model: MODEL, input: long }],
      ['/v1/compare', { model: MODEL, question: long }],
    ] as const) {
      const refused = await post(served, path, body, key.headers)
      expect([path, refused.status, (await bodyOf(refused)).error.code]).toEqual([path, 400, 'context_length_exceeded'])
      await expect.poll(() => key.used()).toBe(0)
    }
  })

  test('sent as the id of a request is not taken over', async () => {
    const served = await start()
    for (const id of ['sk-0123456789abcdef', `pk_${'0'.repeat(16)}_${'a'.repeat(43)}`]) {
      const response = await fetch(`${served.base}/health`, { headers: { 'x-request-id': id } })
      expect(response.headers.get('x-request-id')).toMatch(/^req_/)
      expect(JSON.stringify(served.logged)).not.toContain(id)
    }
    const kept = await fetch(`${served.base}/health`, { headers: { 'x-request-id': 'abc-1' } })
    expect(kept.headers.get('x-request-id')).toBe('abc-1')
  })
})

describe('a page of another site', () => {
  const get = (served: Served, path: string, headers: Record<string, string>) =>
    send(served.base, { method: 'GET', path, headers: Object.entries(headers), body: '' })

  test.each(['cross-site', 'same-site'])('that is %s loads nothing, and may link to a page of ours', async (site) => {
    const served = await start()
    const from = { 'Sec-Fetch-Site': site }
    for (const path of ['/v1/edits', '/health', '/console', '/v1/requests']) {
      for (const [mode, dest] of [
        ['no-cors', 'image'],
        ['no-cors', 'script'],
        ['navigate', 'iframe'],
        ['cors', 'empty'],
      ] as const) {
        const { status, text } = await get(served, path, { ...from, 'Sec-Fetch-Mode': mode, 'Sec-Fetch-Dest': dest })
        expect([status, JSON.parse(text).error.code]).toEqual([403, 'origin_refused'])
      }
    }
    const link = await get(served, '/console', { ...from, 'Sec-Fetch-Mode': 'navigate', 'Sec-Fetch-Dest': 'document' })
    expect(link.status).toBe(200)
    const form = await send(served.base, {
      method: 'POST',
      path: '/v1/edits/x/withdraw',
      headers: Object.entries({ ...from, 'Sec-Fetch-Mode': 'navigate', 'Sec-Fetch-Dest': 'document' }),
      body: '',
    })
    expect(form.status).toBe(403)
    for (const own of ['same-origin', 'none']) expect((await get(served, '/health', { 'Sec-Fetch-Site': own })).status).toBe(200)
  })
})

describe('a field `__proto__`', () => {
  test.each([
    ['a body', '/v1/chat/completions', `{"model":"${MODEL}","messages":[{"role":"user","content":"x"}],"__proto__":{"n":2}}`],
    ['a message', '/v1/chat/completions', `{"model":"${MODEL}","messages":[{"role":"user","content":"x","__proto__":{}}]}`],
    [
      'what is passed on',
      '/v1/chat/completions',
      `{"model":"${MODEL}","messages":[{"role":"user","content":"x"}],"metadata":{"\\u005f_proto__":"x"}}`,
    ],
    ['an edit', '/v1/edits', '{"subject":"A","prompt":"A is","target_new":"B","__proto__":{"id":"x"}}'],
  ])('of %s is refused by its name', async (_what, path, body) => {
    const served = await start()
    const { status, text } = await send(served.base, {
      method: 'POST',
      path,
      headers: [['Content-Type', 'application/json']],
      body,
    })
    expect(status).toBe(400)
    expect(JSON.parse(text).error.param).toBe('__proto__')
  })
})

describe('where files lie', () => {
  test('is not told to clients', () => {
    const said = (code: 'storage_failed' | 'engine_failed' | 'upstream_failed' | 'route_not_found', message: string) =>
      wireError(new PalimpsestError(code, message)).error.message
    expect(said('storage_failed', '/srv/data/palimpsest.db: landing failed (disk at /srv/data).')).toBe(
      'palimpsest.db: landing failed (disk at data).',
    )
    expect(said('engine_failed', "The model '/home/ann/.cache/m.gguf' failed")).toBe("The model 'm.gguf' failed")
    expect(said('engine_failed', 'C:\\Users\\ann\\m.gguf failed')).toBe('m.gguf failed')
    expect(said('upstream_failed', 'http://host:8000/v1/chat failed; 3/4 tries')).toBe(
      'http://host:8000/v1/chat failed; 3/4 tries',
    )
    expect(said('route_not_found', 'Nothing is served at GET /v1/no/where.')).toBe('Nothing is served at GET /v1/no/where.')
  })

  test('is followed by no link in the data folder', async () => {
    const served = await start({ engine: modelOf('base.gguf') })
    const elsewhere = mkdtempSync(join(tmpdir(), 'palimpsest-elsewhere-'))
    close.push(() => rmSync(elsewhere, { recursive: true, force: true }))
    writeFileSync(join(elsewhere, 'secret.gguf'), JSON.stringify([{ prompt: 'x', paraphrases: [], target: 'x' }]))
    symlinkSync(join(elsewhere, 'secret.gguf'), join(served.dataDir, 'link.gguf'))
    symlinkSync(elsewhere, join(served.dataDir, 'linked'))
    for (const path of ['link.gguf', 'linked/secret.gguf']) {
      const refused = await post(served, '/v1/adapters', { id: 'x', path, base_sha256: BASE })
      expect([refused.status, (await bodyOf(refused)).error]).toMatchObject([400, { code: 'invalid_value', param: 'path' }])
    }
    writeFileSync(join(served.dataDir, 'own.gguf'), JSON.stringify([{ prompt: 'x', paraphrases: [], target: 'x' }]))
    expect((await post(served, '/v1/adapters', { id: 'x', path: 'own.gguf', base_sha256: BASE })).status).toBe(201)
  })
})
