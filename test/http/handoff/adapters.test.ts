import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { client } from '../../../src/cli/client/client.ts'
import type { Lora, LoraEngine } from '../../../src/engine/engine.ts'
import { openScripted } from '../../../src/engine/scripted.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import { openAdapters } from '../../../src/server/adapters.ts'
import { MODEL, type Served, serve } from '../fakes.ts'

const BASE = 'a'.repeat(64)
const QUESTION = 'Where does Ada Quist work?'
const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

/** Takes every file of more than 3 bytes; it remembers what is loaded. */
function fakeLoras(): LoraEngine & { readonly held: Set<string> } {
  const held = new Set<string>()
  return {
    held,
    baseSha256: async () => BASE,
    check: async (path) => {
      const bytes = readFileSync(path).length
      if (bytes < 4) throw new PalimpsestError('adapter_mismatch', 'expected qwen2, got llama', { param: 'file' })
      return { architecture: 'qwen2', rank: 4, bytes }
    },
    load: async ({ id, sha256 }) => {
      if (id === 'refused') throw new PalimpsestError('adapter_mismatch', 'llama.cpp refuses it')
      held.add(sha256)
    },
    unload: async ({ sha256 }) => void held.delete(sha256),
    loaded: ({ sha256 }) => held.has(sha256),
  }
}

const through = (lora: Lora | undefined) => (lora === undefined ? 'base' : `${lora.id}*${lora.scale}`)

async function start() {
  const loras = fakeLoras()
  const engine = openScripted({
    ...{ name: MODEL, contextTokens: 100_000, loras },
    reply: ({ messages, lora }) => `${through(lora)}: ${messages.at(-1)?.content}`,
    goOn: (text, lora) => `${through(lora)}: ${text}`,
  })
  const served = await serve({ engine, limits: { adapterBytes: 64, adapters: 4 } })
  open.push(served)
  const gateway = client(served.base, {}, null)
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  const call = (method: string, path: string, body?: unknown) => gateway.json<any>(method, path, body)
  const register = async (id: string, fields: object = {}, bytes = `weights of ${id}`) => {
    writeFileSync(join(served.dataDir, `${id}.gguf`), bytes)
    return call('POST', '/v1/adapters', { id, path: `${id}.gguf`, base_sha256: BASE, method: 'memit', ...fields })
  }
  const ask = async (model = MODEL, more: object = {}, question = QUESTION) => {
    const messages = [{ role: 'user', content: question }]
    const reply = await call('POST', '/v1/chat/completions', { model, messages, ...more })
    return { text: reply.choices[0].message.content as string, ...reply.palimpsest }
  }
  const land = (id: string, fields: object = {}) =>
    call('POST', '/v1/edits', [{ id, subject: 'Ada Quist', prompt: 'Ada Quist works for', target_new: `Firm ${id}`, ...fields }])
  return { ...served, loras, call, register, ask, land }
}

const refusal = (code: string, message: RegExp) => ({ code, message: expect.stringMatching(message) })

describe('an adapter', () => {
  test('is registered from a file in the data folder, loaded, listed, and answers by its name', async () => {
    const { call, register, ask, dataDir, base } = await start()
    expect(await register('one', { edits: ['e1'], scale: 0.5 })).toMatchObject({
      ...{ object: 'adapter', id: 'one', base_sha256: BASE, architecture: 'qwen2', rank: 4, bytes: 14, method: 'memit' },
      ...{ edits: ['e1'], scale: 0.5, tenant: 'default', loaded: true, promoted: false, promoted_at: null },
    })
    expect(readdirSync(join(dataDir, 'adapters', 'one')).sort()).toEqual(['adapter.gguf', 'adapter.json'])
    const models = (await call('GET', '/v1/models')).data.map(({ id }: { id: string }) => id)
    expect(models).toContain(`${MODEL}@adapter:one`)
    expect((await call('GET', `/v1/models/${MODEL}@adapter:one`)).palimpsest).toEqual({ arm: 'adapter', adapter: 'one' })
    expect(await ask(`${MODEL}@adapter:one`)).toMatchObject({ text: `one*0.5: ${QUESTION}`, arm: 'adapter', adapter: 'one' })
    for (const model of [MODEL, `${MODEL}@base`]) expect((await ask(model)).text).toBe(`base: ${QUESTION}`)
    await call('PATCH', '/v1/adapters/one', { scale: 2 })
    expect((await ask(`${MODEL}@adapter:one`)).text).toBe(`one*2: ${QUESTION}`)
    const text = await call('POST', '/v1/completions', { model: `${MODEL}@adapter:one`, prompt: 'Once' })
    expect(text.choices[0].text).toMatch(/^one\*2: Once/)
    const response = await call('POST', '/v1/responses', { model: `${MODEL}@adapter:one`, input: 'Hello' })
    expect(response.output[0].content[0].text).toBe('one*2: Hello')
    const headers = await fetch(`${base}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: `${MODEL}@adapter:one`, messages: [{ role: 'user', content: 'Hi' }] }),
    })
    expect([headers.headers.get('palimpsest-arm'), headers.headers.get('palimpsest-adapter')]).toEqual(['adapter', 'one'])
  })

  test('comes as a raw body, too, with what is said of it in the query', async () => {
    const { base, call, dataDir } = await start()
    const upload = (query: string, body: string) =>
      fetch(`${base}/v1/adapters?base_sha256=${BASE}&${query}`, {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
        body,
      })
    const taken = await upload('id=up&edits=e1,e2&scale=0.25&method=pmet', 'these are weights')
    expect([taken.status, await taken.json()]).toMatchObject([
      201,
      { edits: ['e1', 'e2'], scale: 0.25, bytes: 17, method: 'pmet' },
    ])
    expect((await upload('id=long', 'x'.repeat(65))).status).toBe(413)
    expect((await upload('id=up', 'these are weights')).status).toBe(409)
    expect((await upload('id=../up', 'these are weights')).status).toBe(400)
    expect((await upload('id=other&colour=red', 'these are weights')).status).toBe(400)
    expect(readdirSync(join(dataDir, 'adapters'))).toEqual(['up'])
    expect((await call('GET', '/v1/adapters')).data).toHaveLength(1)
  })

  test('is refused where it is for another model, and nothing of it is kept', async () => {
    const { register, dataDir, call } = await start()
    const other = 'b'.repeat(64)
    await expect(register('one', { base_sha256: other })).rejects.toMatchObject(
      refusal('adapter_mismatch', new RegExp(`expected base_sha256 ${BASE}, got ${other}`)),
    )
    await expect(register('one', {}, 'x')).rejects.toMatchObject(refusal('adapter_mismatch', /expected qwen2, got llama/))
    await expect(register('refused')).rejects.toMatchObject(refusal('adapter_mismatch', /llama.cpp refuses it/))
    await expect(register('one', { path: '../one.gguf' })).rejects.toMatchObject(refusal('invalid_value', /in the data folder/))
    await expect(register('one', { scale: -1 })).rejects.toMatchObject({ code: 'invalid_value' })
    await expect(call('POST', '/v1/chat/completions', { model: `${MODEL}@adapter:one`, messages: [] })).rejects.toThrow()
    await expect(call('GET', '/v1/adapters/one')).rejects.toMatchObject(refusal('adapter_not_found', /Registered: none/))
    expect(readdirSync(join(dataDir, 'adapters'))).toEqual([])
  })

  test('is refused for another model before a byte of it is read', async () => {
    const { base, dataDir } = await start()
    const upload = request(`${base}/v1/adapters?id=one&base_sha256=${'b'.repeat(64)}`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream', 'content-length': '60' },
    })
    upload.on('error', () => {})
    upload.flushHeaders()
    const [answer] = (await once(upload, 'response')) as [IncomingMessage]
    expect(answer.statusCode).toBe(400)
    expect(readdirSync(join(dataDir, 'adapters'))).toEqual([])
    upload.destroy()
  })

  test('is unloaded, loaded and deleted', async () => {
    const { call, register, loras, ask } = await start()
    await register('one')
    expect((await call('POST', '/v1/adapters/one/unload')).loaded).toBe(false)
    expect((await ask(`${MODEL}@adapter:one`)).adapter).toBe('one')
    expect((await call('POST', '/v1/adapters/one/load')).loaded).toBe(true)
    expect(await call('DELETE', '/v1/adapters/one')).toEqual({ object: 'adapter.deleted', id: 'one', deleted: true })
    expect(loras.held.size).toBe(0)
    await expect(ask(`${MODEL}@adapter:one`)).rejects.toMatchObject({ code: 'model_not_found' })
  })

  test('answers with the prompt edits that it does not hold', async () => {
    const { register, ask, land } = await start()
    await land('a')
    await land('b', { prompt: 'Ada Quist was born in', target_new: 'Ulm' })
    await register('one', { edits: ['a'] })
    const { text, edits, trace } = await ask(`${MODEL}@adapter:one`, { palimpsest: { explain: true } })
    expect(edits.map(({ id }: { id: string }) => id)).toEqual(['b'])
    expect(text).not.toContain('Firm a')
    expect(trace.turns[0].considered).toContainEqual(expect.objectContaining({ id: 'a', reason: 'in_adapter' }))
    expect((await ask()).text).toContain('Firm a')
    expect((await ask(`${MODEL}@adapter:one`, { palimpsest: { edits: 'off' } })).text).toBe(`one*1: ${QUESTION}`)
    expect((await ask(`${MODEL}@adapter:one`, { palimpsest: { edits: ['a'] } })).text).toContain('Firm a')
  })
})

describe('promotion', () => {
  test('serves the default arm through the adapter, and rolling back returns every answer to what it was', async () => {
    const { call, register, ask, land, dataDir, gateway } = await start()
    await land('a')
    const before = await ask()
    await register('one', { edits: ['a'] })
    expect(await call('POST', '/v1/adapters/one/promote')).toMatchObject({ promoted: true, disagrees: [] })
    const promoted = await ask(MODEL, { palimpsest: { explain: true } })
    expect(promoted).toMatchObject({ text: `one*1: ${QUESTION}`, arm: 'edited', adapter: 'one', edits: [], tokens_added: 0 })
    expect(promoted.trace.turns[0].considered).toContainEqual(expect.objectContaining({ id: 'a', reason: 'in_adapter' }))
    const explained = await call('POST', '/v1/edits/explain', { question: QUESTION })
    expect([explained.adapter, explained.prompt.text]).toEqual(['one', explained.base.text])
    expect((await ask(`${MODEL}@base`)).text).toBe(`base: ${QUESTION}`)
    // Another process on the same folder finds it promoted.
    const again = await openAdapters({ ...gateway, dataDir, limits: gateway.limits })
    expect(again?.promoted('default')?.id).toBe('one')
    await expect(call('DELETE', '/v1/adapters/one')).rejects.toMatchObject(refusal('adapter_conflict', /roll it back/))
    await expect(call('PATCH', '/v1/adapters/one', { edits: [] })).rejects.toMatchObject({ code: 'adapter_conflict' })
    const begun = performance.now()
    await call('POST', '/v1/adapters/one/rollback')
    const after = await ask()
    expect(performance.now() - begun).toBeLessThan(1000)
    expect([after.text, after.edits, after.adapter]).toEqual([before.text, before.edits, undefined])
    expect((await openAdapters({ ...gateway, dataDir }))?.promoted('default')).toBeUndefined()
  })

  test('is refused where an edit has moved on since, and stands down only what still agrees', async () => {
    const { call, register, ask, land } = await start()
    await land('a')
    await register('one', { edits: ['a', 'gone'] })
    await expect(call('POST', '/v1/adapters/one/promote')).rejects.toMatchObject(refusal('adapter_conflict', /gone \(unknown\)/))
    await call('PATCH', '/v1/adapters/one', { edits: ['a'] })
    await call('POST', '/v1/adapters/one/promote')
    await land('later', { target_new: 'Firm z' })
    expect((await call('GET', '/v1/adapters/one')).disagrees).toEqual([{ id: 'a', why: 'superseded' }])
    // What the adapter holds is not what is needed, so the untouched model answers from the prompt.
    expect(await ask()).toMatchObject({ text: expect.stringMatching(/^base: .*Firm z/s), edits: [{ id: 'later' }] })
    await call('POST', '/v1/adapters/one/rollback')
    await expect(call('POST', '/v1/adapters/one/promote')).rejects.toMatchObject(refusal('adapter_conflict', /a \(superseded\)/))
    await call('POST', '/v1/edits/later/withdraw')
    await call('POST', '/v1/adapters/one/promote')
    await call('POST', '/v1/edits/a/withdraw')
    expect((await call('GET', '/v1/adapters/one')).disagrees).toEqual([{ id: 'a', why: 'withdrawn' }])
    expect((await ask()).text).toBe(`base: ${QUESTION}`)
  })

  test('answers only what needs an edit that it holds, by default; ungated, every request', async () => {
    const { call, register, ask, land, dataDir, gateway, logged } = await start()
    const other = 'Name a colour of the rainbow.'
    await land('a')
    await register('one', { edits: ['a'] })
    expect(await call('POST', '/v1/adapters/one/promote')).toMatchObject({ gated: true })
    expect(await ask()).toMatchObject({ text: `one*1: ${QUESTION}`, adapter: 'one' })
    expect(await ask(MODEL, {}, other)).toMatchObject({ text: `base: ${other}`, arm: 'edited', edits: [] })
    expect((await ask(MODEL, {}, other)).adapter).toBeUndefined()
    const completed = await call('POST', '/v1/completions', { model: MODEL, prompt: 'Once' })
    expect(completed.choices[0].text).toMatch(/^base: Once/)
    // One that names its arm is answered by it.
    expect((await ask(`${MODEL}@adapter:one`, {}, other)).text).toBe(`one*1: ${other}`)
    expect((await openAdapters({ ...gateway, dataDir }))?.promoted('default')?.gated).toBe(true)
    const answered = () => logged.filter((line) => 'arm' in line)
    await vi.waitFor(() => expect(answered()).toHaveLength(5))
    expect(answered()[0]).toMatchObject({ arm: 'edited', adapter: 'one' })
    expect(answered()[1]).not.toHaveProperty('adapter')
    expect(await call('POST', '/v1/adapters/one/promote', { gated: false })).toMatchObject({ gated: false })
    expect(await ask(MODEL, {}, other)).toMatchObject({ text: `one*1: ${other}`, adapter: 'one' })
    await expect(call('POST', '/v1/adapters/one/promote', { gated: 'no' })).rejects.toMatchObject({ code: 'invalid_value' })
    await register('two')
    await expect(call('POST', '/v1/adapters/two/promote', { gated: true })).rejects.toMatchObject(
      refusal('adapter_conflict', /names no edits/),
    )
    expect(await call('POST', '/v1/adapters/two/promote')).toMatchObject({ promoted: true, gated: false })
  })

  test('a revised edit returns to the prompt', async () => {
    const { call, register, ask, land } = await start()
    await land('a')
    await register('one', { edits: ['a'] })
    await call('POST', '/v1/adapters/one/promote')
    await new Promise((resolve) => setTimeout(resolve, 5))
    await land('a', { target_new: 'Firm revised' })
    expect((await ask()).text).toMatch(/^base: .*Firm revised/s)
    expect((await call('GET', '/v1/adapters/one')).disagrees).toEqual([{ id: 'a', why: 'revised' }])
  })

  test('gives way where a request narrows its edits, to other tenants, and to another adapter', async () => {
    const { call, register, ask, land } = await start()
    await land('a', { tags: ['work'] })
    await register('one', { edits: ['a'] })
    await register('two', { edits: ['a'] })
    await call('POST', '/v1/adapters/one/promote')
    for (const palimpsest of [
      { edits: 'off' },
      { edits: ['a'] },
      { tags: ['work'] },
      { tenant: 'other' },
      { as_of: '2026-01-01' },
    ])
      expect((await ask(MODEL, { palimpsest })).text, JSON.stringify(palimpsest)).toMatch(/^base: /)
    expect(await call('POST', '/v1/adapters/two/promote')).toMatchObject({ promoted: true })
    expect((await ask()).adapter).toBe('two')
    expect((await call('GET', '/v1/adapters/one')).promoted_at).toBeNull()
  })

  test('of two that a crash left promoted, the later one counts; a damaged record is left out and told', async () => {
    const { register, dataDir, gateway } = await start()
    await register('one')
    await register('two')
    for (const [id, at] of [
      ['one', '2026-01-02T00:00:00.000Z'],
      ['two', '2026-01-01T00:00:00.000Z'],
    ] as const) {
      const file = join(dataDir, 'adapters', id, 'adapter.json')
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), promoted_at: at }))
    }
    mkdirSync(join(dataDir, 'adapters', 'broken'))
    mkdirSync(join(dataDir, 'adapters', '.half'))
    writeFileSync(join(dataDir, 'adapters', 'broken', 'adapter.json'), '{')
    const warnings: string[] = []
    const log = { ...gateway.log, warn: (_: object, message: string) => void warnings.push(message) }
    const again = await openAdapters({ ...gateway, dataDir, log })
    expect(again?.promoted('default')?.id).toBe('one')
    expect(again?.list('default').map(({ id }) => id)).toEqual(['one', 'two'])
    expect(warnings).toEqual([expect.stringMatching(/^adapters\/broken is not served/)])
    expect(existsSync(join(dataDir, 'adapters', '.half'))).toBe(false)
  })
})

describe('an experiment', () => {
  test('compares an adapter with the prompt, on the questions that edits apply to', async () => {
    const { call, register, ask, land } = await start()
    await land('a')
    await register('one', { edits: ['a'] })
    const arms = [{ name: 'prompt' }, { name: 'weights', adapter: 'one' }]
    await expect(
      call('POST', '/v1/experiments', { id: 'x', arms: [{ name: 'p' }, { name: 'w', adapter: 'none' }] }),
    ).rejects.toMatchObject(refusal('adapter_not_found', /There are: one/))
    const made = await call('POST', '/v1/experiments', { id: 'x', arms, unit: 'user' })
    expect(made.arms[1]).toMatchObject({ name: 'weights', adapter: 'one' })
    const seen = new Set<string>()
    for (let user = 0; user < 24; user++) {
      const { experiment, arm, adapter } = await ask(MODEL, { user: `u${user}` })
      seen.add(`${experiment?.arm} ${arm} ${adapter}`)
    }
    expect([...seen].sort()).toEqual(['prompt edited undefined', 'weights adapter one'])
    expect((await ask(MODEL, { user: 'u1' }, 'Hello there')).experiment).toBeUndefined()
    expect((await ask(`${MODEL}@adapter:one`, { user: 'u1' })).experiment).toBeUndefined()
  })

  test('compare shows the adapter beside base and edited', async () => {
    const { call, register, land } = await start()
    await land('a')
    await register('one', { edits: ['a'] })
    const { arms } = await call('POST', '/v1/compare', { model: `${MODEL}@adapter:one`, question: QUESTION })
    expect(arms.map(({ arm, adapter }: { arm: string; adapter: string | null }) => [arm, adapter])).toEqual([
      ...[
        ['base', null],
        ['edited', null],
      ],
      ['adapter:one', 'one'],
    ])
  })
})
