import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI from 'openai'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { accessBy } from '../../../src/access/access.ts'
import type { Budgets } from '../../../src/access/budgets.ts'
import { newToken } from '../../../src/access/key.ts'
import type { KeyStore, NewKey } from '../../../src/access/key-store.ts'
import { Usage } from '../../../src/access/usage.ts'
import { createApp } from '../../../src/app.ts'
import { client, connect, findRunning } from '../../../src/cli/client/client.ts'
import type { Config } from '../../../src/config.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import type { Limits } from '../../../src/gateway.ts'
import { needOf } from '../../../src/http/request/auth.ts'
import { openKeys } from '../../../src/server/access.ts'
import { Database } from '../../../src/storage/database.ts'
import { MODEL, post, type Served, type ServeOptions, serve } from '../fakes.ts'
import { send } from './malformed.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 120_000 })

const close: (() => unknown)[] = []
afterEach(async () => {
  for (const one of close.splice(0).reverse()) await one()
})

interface Keyed extends Served {
  readonly store: KeyStore
  /** Of the keys. */
  readonly file: string
  /** Milliseconds since the epoch, as the budgets see them. */
  readonly clock: { now: number }
  /** The token of a new key. */
  make(fields?: Partial<NewKey>): Promise<string>
}

const NOON = Date.parse('2026-11-24T12:00:00Z')

async function start(options: ServeOptions = {}): Promise<Keyed> {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-keys-'))
  close.push(() => rmSync(dir, { recursive: true, force: true }))
  const [store, command] = [await openKeys(dir, 50), await openKeys(dir)]
  close.push(() => Promise.all([store, command].map(({ database }) => database.close())))
  const clock = { now: NOON }
  const access = await accessBy(store, 'auto', true, () => clock.now)
  close.push(() => access.close())
  const served = await serve({ ...options, gateway: { access, ...options.gateway } })
  close.push(() => served.close())
  const make = async (fields: Partial<NewKey> = {}) => {
    const scopes = fields.scopes ?? ['inference']
    const tenant = scopes.includes('admin') ? null : 'default'
    return (await command.create({ name: 'a key', tenant, ...fields, scopes }, NOON)).token
  }
  return { ...served, store: command, file: join(dir, 'keys.db'), clock, make }
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const chat = (content: string, fields: object = {}) => ({ model: MODEL, messages: [{ role: 'user', content }], ...fields })
const CHAT = '/v1/chat/completions'

// biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
async function bodyOf(answer: Response | Promise<Response>): Promise<any> {
  return (await answer).json()
}

/** Status, and the code of what stands in the way. */
async function verdict(answer: Promise<Response>): Promise<[number, string | null]> {
  const response = await answer
  const { error } = await bodyOf(response)
  return [response.status, error?.code ?? null]
}

/** Every path that the application serves, as Express holds them. */
function patterns(served: Served): string[] {
  const { stack } = createApp(served.gateway).router as unknown as { stack: { route?: { path: string } }[] }
  return stack.flatMap(({ route }) => (route === undefined ? [] : [route.path]))
}

const OPEN = ['/', '/console', '/console/assets/:hash/*path', '/docs', '/favicon.ico', '/livez', '/readyz', '/openapi.json']

describe('without a key', () => {
  test('no route answers, by whatever method and however its path is spelt', async () => {
    const served = await start()
    await served.make()
    const all = patterns(served)
    expect(all.length).toBeGreaterThan(35)
    expect(all.filter((pattern) => needOf(pattern) === 'nothing').toSorted()).toEqual(OPEN.toSorted())
    const tried: string[] = []
    for (const pattern of all.filter((one) => !OPEN.includes(one))) {
      const path = pattern.replace(/[:*](\w+)/g, 'x')
      const slashes = path.lastIndexOf('/')
      const encoded = `${path.slice(0, slashes)}/%2f${path.slice(slashes + 1)}`
      const spelt = [
        path,
        `/${path}`,
        `${path}/`,
        `${path}//`,
        path.toUpperCase(),
        `/v1/..${path}`,
        `/x/../${path}`,
        `/.${path}`,
        encoded,
      ]
      const more = [
        `${path}?a=/readyz`,
        `${path};/readyz`,
        `/readyz/..${path}`,
        `/console/..${path}`,
        `${path}#/console`,
        `${path}%00`,
      ]
      for (const one of [...spelt, ...more])
        for (const method of one === path
          ? ['GET', 'HEAD', 'OPTIONS', 'POST', 'DELETE', 'PUT', 'PATCH', 'TRACE']
          : ['GET', 'POST']) {
          const { status, headers, text } = await send(served.base, { method, path: one, headers: [], body: '' })
          tried.push(`${method} ${one}`)
          expect([401, 404], `${method} ${one}: ${status}`).toContain(status)
          if (method === 'HEAD') continue
          const { error } = JSON.parse(text) as { error: object }
          expect(Object.keys(error), `${method} ${one}`).toEqual(['message', 'type', 'param', 'code'])
          if (status !== 401) continue
          expect(error).toMatchObject({ type: 'invalid_request_error', param: null, code: 'invalid_api_key' })
          expect(headers['www-authenticate']).toBe('Bearer realm="palimpsest"')
        }
    }
    expect(tried.length).toBeGreaterThan(1_000)
    expect(served.logged.filter((line) => 'operation' in line)).toEqual([])
  })

  test('the console’s files and a bare sign of life are there, and nothing is in them', async () => {
    const served = await start()
    await served.make()
    const live = await fetch(`${served.base}/readyz`)
    expect([live.status, await live.json()]).toEqual([200, { status: 'ok' }])
    const page = await (await fetch(`${served.base}/console/`)).text()
    expect(page).not.toContain(MODEL)
    for (const [, asset] of page.matchAll(/(?:src|href)="(\/console\/assets\/[^"]+)"/g))
      expect((await fetch(`${served.base}${asset}`)).status).toBe(200)
  })

  test('a route that nobody thought of is the admin’s', () => {
    for (const pattern of ['/v1/anything', '/metrics', '/v1/requests', '/v1/keys', '/v1/editsx', '/readyz/x', '/console/data'])
      expect([pattern, needOf(pattern)]).toEqual([pattern, 'admin'])
  })
})

describe('a key', () => {
  test('is taken as OpenAI’s clients send it, from the moment it exists until it is revoked or expires', async () => {
    const served = await start()
    expect((await post(served, CHAT, chat('x'))).status).toBe(200)
    const token = await served.make({ expiresAt: Date.now() + 3_600_000 })
    expect(await verdict(post(served, CHAT, chat('x')))).toEqual([401, 'invalid_api_key'])
    const sdk = (apiKey: string) => new OpenAI({ baseURL: `${served.base}/v1`, apiKey, maxRetries: 0 })
    const answer = await sdk(token).chat.completions.create(chat('x') as OpenAI.ChatCompletionCreateParamsNonStreaming)
    expect(answer.choices[0]?.message.content).toBe('You said: x')
    await expect(sdk('sk-none').models.list()).rejects.toThrow(OpenAI.AuthenticationError)
    const late = await served.make({ expiresAt: Date.now() - 1 })
    expect(await verdict(post(served, CHAT, chat('x'), bearer(late)))).toEqual([401, 'invalid_api_key'])
    await served.store.revoke(token.split('_')[1] ?? '', NOON)
    const gone = await post(served, CHAT, chat('x'), bearer(token))
    expect([gone.status, gone.headers.get('www-authenticate')]).toEqual([401, 'Bearer realm="palimpsest", error="invalid_token"'])
    expect((await bodyOf(gone)).error.message).toBe('The API key was revoked.')
  })

  test('is taken in no other place, and nothing near it is taken', async () => {
    const served = await start()
    const token = await served.make()
    const [, id = '', secret = ''] = token.split('_')
    const wrong: [string, string][][] = [
      ...[
        `Bearer ${token.slice(0, 20)}`,
        `Bearer ${token.slice(0, -1)}`,
        `Bearer ${token}A`,
        `Bearer pk_${id}_${'A'.repeat(43)}`,
      ].map((value): [string, string][] => [['Authorization', value]]),
      ...[
        token,
        `Basic ${token}`,
        `Bearer ${secret}`,
        `Bearer ${id}`,
        `Bearer '${token}'`,
        "Bearer ' OR 1=1 --",
        `Bearer ${token} x`,
      ].map((value): [string, string][] => [['Authorization', value]]),
      [['Authorization', `Bearer ${'x'.repeat(8_000)}`]],
      [['x-api-key', token]],
      [['api-key', token]],
      [['Cookie', `key=${token}`]],
      [
        ['Authorization', `Bearer ${newToken().token}`],
        ['Authorization', `Bearer ${token}`],
      ],
    ]
    for (const headers of wrong) {
      const { status, text } = await send(served.base, { method: 'GET', path: `/v1/models?key=${token}`, headers, body: '' })
      expect([status, JSON.parse(text).error.code]).toEqual([401, 'invalid_api_key'])
      expect(text).not.toContain(id)
    }
    const { status } = await send(served.base, {
      method: 'GET',
      path: '/v1/models',
      headers: [['Authorization', `bearer  ${token}`]],
      body: '',
    })
    expect(status).toBe(200)
  })

  test('may do what its scopes say, and the refusal names the one that is missing', async () => {
    const served = await start()
    const keys = {
      inference: await served.make(),
      edits: await served.make({ scopes: ['edits'] }),
      admin: await served.make({ scopes: ['admin'] }),
    }
    const get = (path: string, token: string) => fetch(`${served.base}${path}`, { headers: bearer(token) })
    const needs = {
      inference: (token: string) => post(served, CHAT, chat('x'), bearer(token)),
      edits: (token: string) => get('/v1/edits', token),
      admin: (token: string) => get('/v1/requests', token),
    }
    for (const [need, ask] of Object.entries(needs))
      for (const [scope, token] of Object.entries(keys)) {
        const response = await ask(token)
        expect([need, scope, response.status]).toEqual([need, scope, need === scope ? 200 : 403])
        if (need === scope) continue
        expect(response.headers.get('www-authenticate')).toContain(`error="insufficient_scope", scope="${need}"`)
        const { error } = await bodyOf(response)
        expect([error.code, error.message]).toEqual(['insufficient_permissions', expect.stringContaining(`the scope '${need}'`)])
      }
    const health = async (token: string) => (await bodyOf(get('/health', token))) as object
    expect(Object.keys(await health(keys.admin))).toContain('edit_files')
    expect(Object.keys(await health(keys.inference))).not.toContain('edit_files')
  })

  test('of a tenant is for that tenant: another, in header, body or query, is refused, never passed over', async () => {
    const served = await start()
    const token = await served.make({ tenant: 'acme', scopes: ['inference', 'edits'] })
    const other = { 'palimpsest-tenant': 'other' }
    const edit = { id: 'e1', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' }
    expect((await post(served, '/v1/edits', edit, bearer(token))).status).toBe(201)
    const refused = [
      post(served, CHAT, chat('x'), { ...bearer(token), ...other }),
      post(served, CHAT, chat('x', { palimpsest: { tenant: 'other' } }), bearer(token)),
      post(served, '/v1/completions', { model: MODEL, prompt: 'x', palimpsest: { tenant: 'other' } }, bearer(token)),
      post(served, '/v1/responses', { model: MODEL, input: 'x', palimpsest: { tenant: 'other' } }, bearer(token)),
      post(served, '/v1/embeddings', { model: 'fake', input: 'x' }, { ...bearer(token), ...other }),
      post(served, '/v1/edits?tenant=other', edit, bearer(token)),
      post(served, '/v1/edits/withdraw', { ids: ['e1'], tenant: 'other' }, bearer(token)),
      post(served, '/v1/edits/search', { tenant: 'default' }, bearer(token)),
      post(served, '/v1/edits/explain', { question: 'x', tenant: 'other' }, bearer(token)),
      post(served, '/v1/compare', { question: 'x', tenant: 'other' }, bearer(token)),
      post(served, '/v1/experiments', { id: 'x', tenant: 'other' }, bearer(token)),
      post(served, '/v1/rollouts', { batch: 'x', tenant: 'other' }, bearer(token)),
      post(served, '/v1/feedback', { completion_id: 'x', score: 1, tenant: 'other' }, bearer(token)),
      ...['/v1/edits', '/v1/edits/e1', '/v1/batches', '/v1/experiments', '/v1/rollouts'].map((path) =>
        fetch(`${served.base}${path}?tenant=other`, { headers: bearer(token) }),
      ),
    ]
    for (const [at, answer] of refused.entries())
      expect([at, ...(await verdict(answer))]).toEqual([at, 403, 'insufficient_permissions'])
    // A record of a batch that names another tenant has always been refused by line; nothing of the batch lands.
    expect(await verdict(post(served, '/v1/edits', { ...edit, tenant: 'other' }, bearer(token)))).toEqual([400, 'invalid_batch'])
    const own = await post(served, CHAT, chat('Who is the mayor of Lund?', { palimpsest: { tenant: 'acme' } }), bearer(token))
    expect((await bodyOf(own)).palimpsest.edits).toMatchObject([{ id: 'e1' }])
    const admin = await served.make({ scopes: ['admin', 'edits'] })
    const total = async (tenant: string) =>
      (await bodyOf(fetch(`${served.base}/v1/edits?tenant=${tenant}`, { headers: bearer(admin) }))).total
    expect([await total('acme'), await total('other')]).toEqual([1, 0])
  })

  test('is no unit of an experiment: a hash of its id is', async () => {
    const served = await start()
    const token = await served.make({ scopes: ['inference', 'edits'] })
    await post(
      served,
      '/v1/edits',
      { id: 'e1', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' },
      bearer(token),
    )
    const declared = await post(served, '/v1/experiments', { id: 'by-key', unit: 'key', metrics: ['latency_ms'] }, bearer(token))
    expect(declared.status).toBe(201)
    const ask = async (key: string) => {
      const answer = await bodyOf(post(served, CHAT, chat('Who is the mayor of Lund?'), bearer(key)))
      return answer.palimpsest.experiment as { arm: string }
    }
    const first = await ask(token)
    for (let i = 0; i < 5; i++) expect(await ask(token)).toEqual(first)
    const arms = new Set<string>()
    for (let i = 0; i < 12; i++) arms.add((await ask(await served.make())).arm)
    expect(arms.size).toBe(2)
  })

  test('stands in no log, metric or error', async () => {
    const served = await start({ script: { reply: () => 'said' } })
    const token = await served.make({ scopes: ['inference', 'admin', 'edits'] })
    const [, id = ''] = token.split('_')
    // The secret itself may hold underscores.
    const secret = token.slice(`pk_${id}_`.length)
    const said: string[] = []
    for (const sent of [token, token.slice(0, -1), `${token.slice(0, -3)}AAA`])
      for (const body of [chat('x'), chat('x', { nonsense: 1 }), { model: 5 }, chat('x', { model: 'gpt-9' })])
        said.push(await (await post(served, CHAT, body, bearer(sent))).text())
    said.push(await (await fetch(`${served.base}/metrics`, { headers: bearer(token) })).text())
    said.push(await (await fetch(`${served.base}/v1/requests`, { headers: bearer(token) })).text(), JSON.stringify(served.logged))
    for (const text of said) expect(text).not.toContain(secret.slice(0, 30))
    expect(JSON.stringify(served.logged)).toContain(id)
    expect(said.at(-3)).not.toContain(id)
  })

  test('is sent by the command line where its owner says so, and not to whatever listens at the usual port', async () => {
    const served = await start()
    const token = await served.make({ scopes: ['edits'] })
    const port = Number(new URL(served.base).port)
    const where = { url: undefined, dataDir: mkdtempSync(join(tmpdir(), 'palimpsest-none-')), port }
    close.push(() => rmSync(where.dataDir, { recursive: true, force: true }))
    expect(await findRunning(where)).toEqual({ url: served.base, isNamed: false })
    expect(await findRunning({ ...where, url: served.base })).toEqual({ url: served.base, isNamed: true })
    expect(await client(served.base, { key: token }, null).json('GET', '/v1/edits')).toMatchObject({ total: 0 })
    await expect(client(served.base, {}, null).json('GET', '/v1/edits')).rejects.toMatchObject({ code: 'invalid_api_key' })
    const heard: (string | undefined)[] = []
    const listen = (body: string) =>
      createServer((req, res) => {
        heard.push(req.headers.authorization)
        res.writeHead(body === '{}' ? 401 : 200, { 'content-type': 'application/json' }).end(body)
      }).listen(0, '127.0.0.1')
    const impostor = listen(JSON.stringify({ version: '1', memory: {}, data: [] }))
    close.push(() => impostor.close())
    await new Promise((resolve) => impostor.once('listening', resolve))
    const there = { ...where, key: token, port: (impostor.address() as { port: number }).port }
    const boot = async () => Promise.reject(new Error('none is to be started'))
    const found = await connect(there as Config<Limits>, {}, boot)
    await found.json('GET', '/v1/edits')
    expect(heard).toEqual([undefined, undefined])
    const wanting = await connect({ ...where, key: token } as Config<Limits>, {}, boot)
    await expect(wanting.json('GET', '/v1/edits')).rejects.toThrow(/One is sent only where it is named: set PALIMPSEST_URL=/)
    const stranger = listen('{}')
    close.push(() => stranger.close())
    await new Promise((resolve) => stranger.once('listening', resolve))
    expect(await findRunning({ ...where, port: (stranger.address() as { port: number }).port })).toBeNull()
  })
})

describe('a budget', () => {
  /** Each word of the scripted model is a token; `delayMs` lets all requests be under way at once. */
  const script = {
    contextTokens: 4_096,
    slots: 8,
    queueLimit: 200,
    delayMs: 2,
    reply: () => 'one two three four five six seven eight',
  }
  const used = async (served: Keyed, token: string) =>
    (await served.store.list(NOON)).find(({ id }) => token.includes(id))?.tokensUsed

  test('of requests is kept by a hundred at once, and comes back with time', async () => {
    const served = await start()
    const token = await served.make({ requestsPerMinute: 10 })
    const answers = await Promise.all(Array.from({ length: 100 }, () => post(served, CHAT, chat('x'), bearer(token))))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(10)
    const refused = answers.find(({ status }) => status === 429)
    expect(await refused?.json()).toMatchObject({ error: { code: 'rate_limit_exceeded', type: 'rate_limit_error' } })
    expect(Object.fromEntries([...(refused?.headers ?? [])])).toMatchObject({
      'retry-after': '6',
      'x-ratelimit-limit-requests': '10',
      'x-ratelimit-remaining-requests': '0',
      'x-ratelimit-reset-requests': '1m0s',
    })
    served.clock.now += 6_000
    expect((await post(served, CHAT, chat('x'), bearer(token))).status).toBe(200)
    expect((await post(served, CHAT, chat('x'), bearer(token))).status).toBe(429)
  })

  test('of tokens is overrun by no hundred requests at once, streamed or not, and ends at what was used', async () => {
    const served = await start({ script })
    const token = await served.make({ tokensPerDay: 6_000 })
    const one = (at: number) => post(served, CHAT, chat('x', { max_tokens: 50, stream: at % 2 === 0 }), bearer(token))
    const answers = await Promise.all(
      Array.from({ length: 100 }, async (_, at) => {
        const response = await one(at)
        await response.text()
        return response
      }),
    )
    const through = answers.filter(({ status }) => status === 200).length
    // Each sets aside its prompt, 50 tokens and 512 for edits.
    expect(through).toBeGreaterThanOrEqual(Math.floor(6_000 / 600))
    expect(through).toBeLessThan(100)
    const whole = await bodyOf(post(served, CHAT, chat('x', { max_tokens: 50 }), bearer(token)))
    await vi.waitFor(async () => expect(await used(served, token)).toBe((through + 1) * whole.usage.total_tokens))
    expect(await used(served, token)).toBeLessThanOrEqual(6_000)
  })

  test('that is used up says so, with OpenAI’s headers, until the next day', async () => {
    const served = await start({ script })
    const token = await served.make({ tokensPerDay: 600 })
    const ask = (fields: object) => post(served, CHAT, chat('x', fields), bearer(token))
    const first = await ask({ max_tokens: 20 })
    expect(first.headers.get('x-ratelimit-limit-tokens')).toBe('600')
    await first.text()
    const refused = await ask({ max_tokens: 500 })
    expect([refused.status, await refused.json()]).toMatchObject([429, { error: { code: 'insufficient_quota' } }])
    expect([
      refused.headers.get('x-should-retry'),
      refused.headers.get('retry-after'),
      refused.headers.get('x-ratelimit-reset-tokens'),
    ]).toEqual(['false', '43200', '12h0m0s'])
    served.clock.now += 86_400_000
    expect((await ask({ max_tokens: 20 })).status).toBe(200)
  })

  test('bounds an answer that has no bound of its own by what is left', async () => {
    const served = await start({ script: { ...script, reply: () => 'word '.repeat(300) } })
    const token = await served.make({ tokensPerDay: 700 })
    const answer = await bodyOf(post(served, CHAT, chat('x'), bearer(token)))
    expect(answer.choices[0].finish_reason).toBe('length')
    expect(answer.usage.total_tokens).toBeLessThanOrEqual(700 - 512)
  })

  test('pays for an answer that its client leaves, as far as it came', async () => {
    const served = await start({ script: { ...script, delayMs: 5, reply: () => 'word '.repeat(2_000) } })
    const token = await served.make({ tokensPerDay: 100_000 })
    const leave = new AbortController()
    const response = await fetch(served.base + CHAT, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...bearer(token) },
      body: JSON.stringify(chat('x', { stream: true, max_tokens: 2_000 })),
      signal: leave.signal,
    })
    const reader = response.body?.getReader()
    for (let i = 0; i < 10; i++) await reader?.read()
    leave.abort()
    await vi.waitFor(async () => expect(await used(served, token)).toBeLessThan(1_500))
    expect(await used(served, token)).toBeGreaterThanOrEqual(9)
  })

  test.each([
    ['/v1/completions', { model: MODEL, prompt: ['one two', 'three'], max_tokens: 5, n: 2 }],
    ['/v1/responses', { model: MODEL, input: 'one two', max_output_tokens: 5 }],
    ['/v1/embeddings', { model: 'fake', input: ['one two', 'three'] }],
    [CHAT, { ...chat('one two'), n: 3, max_tokens: 5 }],
  ])('counts for %s what its usage says', async (path, body) => {
    const served = await start({ script })
    const token = await served.make({ tokensPerDay: 100_000 })
    const response = await post(served, path, body, bearer(token))
    const { usage } = await bodyOf(response)
    expect([response.status, usage.total_tokens > 0]).toEqual([200, true])
    await vi.waitFor(async () => expect(await used(served, token)).toBe(usage.total_tokens))
  })

  test('that can’t be settled, since its file is locked, ends no process and counts all the same', async () => {
    const served = await start({ script })
    const token = await served.make({ tokensPerDay: 10_000 })
    const { access } = served.gateway
    let locked: Database | undefined
    const budgets = access?.budgets as Budgets
    const take = budgets.take.bind(budgets)
    const spied = vi.spyOn(budgets, 'take').mockImplementation(async (...asked) => {
      const taken = await take(...asked)
      locked = new Database(served.file)
      locked.exec('BEGIN IMMEDIATE')
      return taken
    })
    const answer = await post(served, CHAT, chat('Hello'), bearer(token))
    expect(answer.status).toBe(200)
    await answer.json()
    await vi.waitFor(() => expect(served.logged.some((line) => 'operation' in line)).toBe(true))
    spied.mockRestore()
    locked?.exec('ROLLBACK')
    locked?.close()
    await vi.waitFor(async () => expect(await used(served, token)).toBeLessThan(100), { timeout: 10_000 })
    expect((await post(served, CHAT, chat('Hello'), bearer(token))).status).toBe(200)
  })

  test('of requests counts a request with the tokens that it sets aside, and one whose body is wrong all the same', async () => {
    const served = await start({ script })
    const token = await served.make({ requestsPerMinute: 6, tokensPerDay: 1_000_000, scopes: ['inference', 'edits'] })
    const statements = vi.spyOn(served.gateway.access?.budgets as Budgets, 'take')
    const bodies = {
      [CHAT]: chat('x', { max_tokens: 5 }),
      '/v1/completions': { model: MODEL, prompt: 'x', max_tokens: 5 },
      '/v1/responses': { model: MODEL, input: 'x', max_output_tokens: 5 },
      '/v1/embeddings': { model: 'fake', input: 'x' },
      '/v1/compare': { question: 'x' },
    }
    const remaining = async (answer: Promise<Response>) => {
      const response = await answer
      await response.text()
      return [response.status, response.headers.get('x-ratelimit-remaining-requests')]
    }
    let rest = 6
    for (const [path, body] of Object.entries(bodies))
      expect([path, ...(await remaining(post(served, path, body, bearer(token))))]).toEqual([path, 200, `${--rest}`])
    expect(statements).toHaveBeenCalledTimes(5)
    expect(await remaining(post(served, CHAT, { model: 5 }, bearer(token)))).toEqual([400, '0'])
    // Who has made all requests is told that, whatever else is wrong.
    for (const [path, body] of [...Object.entries(bodies), [CHAT, { model: 5 }] as const])
      expect([path, ...(await verdict(post(served, path, body, bearer(token))))]).toEqual([path, 429, 'rate_limit_exceeded'])
    statements.mockRestore()
  })

  test('that can’t be held, since the database is away, is a 503 that says when to come back; keys without limits go on', async () => {
    const served = await start({ script })
    const [limited, free] = [await served.make({ tokensPerDay: 1_000 }), await served.make()]
    const away = new PalimpsestError('storage_unavailable', 'away', { retryAfterSeconds: 2 })
    const spied = vi.spyOn(Usage.prototype, 'take').mockRejectedValue(away)
    const refused = await post(served, CHAT, chat('x'), bearer(limited))
    expect([refused.status, refused.headers.get('retry-after'), (await bodyOf(refused)).error.code]).toEqual([
      ...[503, '2', 'storage_unavailable'],
    ])
    expect((await post(served, CHAT, chat('x'), bearer(free))).status).toBe(200)
    spied.mockRestore()
  })

  test('counts both answers of a comparison', async () => {
    const served = await start({ script })
    const token = await served.make({ tokensPerDay: 100_000, scopes: ['edits'] })
    const { arms } = await bodyOf(post(served, '/v1/compare', { question: 'x' }, bearer(token)))
    const sum = arms.reduce(
      (all: number, arm: Record<string, number>) => all + (arm.prompt_tokens ?? 0) + (arm.completion_tokens ?? 0),
      0,
    )
    expect(sum).toBeGreaterThan(0)
    await vi.waitFor(async () => expect(await used(served, token)).toBe(sum))
  })
})
