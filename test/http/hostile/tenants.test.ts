import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Express } from 'express'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Access, accessBy } from '../../../src/access/access.ts'
import { type Key, SCOPES, type Scope } from '../../../src/access/key.ts'
import { createApp } from '../../../src/app.ts'
import { snapshotsDir } from '../../../src/backup/snapshot.ts'
import type { Handoffs } from '../../../src/handoff/queue.ts'
import { needOf } from '../../../src/http/request/auth.ts'
import { openKeys } from '../../../src/server/access.ts'
import { openAdapters } from '../../../src/server/adapters.ts'
import { DEFAULT_TENANT } from '../../../src/wire/palimpsest/selection.ts'
import { MODEL, type Served, serve } from '../fakes.ts'
import { BASE, modelOf, standInHandoffs } from '../handoff/handoff-fakes.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

/** In every word that the tenant `mine` has written, and in no id of its objects. */
const MARK = 'Zyxquist'

interface Sent {
  readonly path?: string
  readonly body?: unknown
  /** A status and the error's code; or what is answered and holds nothing of the other tenant. */
  readonly expect: readonly [status: number, code: string | null] | 'hidden'
}

/** Ids of the objects of `mine`, made by the gateway. */
interface Ids {
  readonly batch: string
  readonly response: string
  readonly completion: string
}

const hidden = (body?: unknown): Sent => ({ body, expect: 'hidden' })
const none = (code: string, body?: unknown): Sent => ({ body, expect: [404, `${code}_not_found`] })
const refused = (status: number, code: string, body?: unknown): Sent => ({ body, expect: [status, code] })
const messages = [{ role: 'user', content: 'Hello' }]
const through = `${MODEL}@adapter:held`

/** The bytes of an adapter, of the kind that the fake model takes. */
const weights = (word: string) => JSON.stringify([{ prompt: word, paraphrases: [], target: word }])

/** Every route, and what it says of an object of another tenant. A `:id` in the path is that object's. */
const ROUTES: Readonly<Record<string, (ids: Ids) => readonly Sent[]>> = {
  'GET /': () => [hidden()],
  'GET /console': () => [hidden()],
  'GET /favicon.ico': () => [hidden()],
  'GET /console/assets/:hash/*path': () => [{ path: '/console/assets/x/y', expect: [404, 'route_not_found'] }],
  'GET /health': () => [hidden()],
  'GET /livez': () => [hidden()],
  'GET /readyz': () => [hidden()],
  'GET /metrics': () => [hidden()],
  'GET /docs': () => [hidden()],
  // The same for everybody; it has the word that the object is named by.
  'GET /openapi.json': () => [{ expect: [200, null] }],
  'GET /v1/models': () => [hidden()],
  'GET /v1/models/*name': () => [{ path: `/v1/models/${through}`, expect: [404, 'model_not_found'] }],
  'POST /v1/chat/completions': () => [
    none('model', { model: through, messages }),
    none('edit', { model: MODEL, messages, palimpsest: { edits: ['held'] } }),
    refused(403, 'insufficient_permissions', { model: MODEL, messages, palimpsest: { tenant: 'mine' } }),
  ],
  'POST /v1/completions': () => [none('model', { model: through, prompt: 'Hello' })],
  'POST /v1/responses': ({ response }) => [
    none('model', { model: through, input: 'Hello' }),
    refused(400, 'invalid_value', { model: MODEL, input: 'Hello', previous_response_id: response }),
  ],
  'GET /v1/responses/:id': ({ response }) => [{ path: `/v1/responses/${response}`, expect: [404, 'response_not_found'] }],
  'DELETE /v1/responses/:id': ({ response }) => [{ path: `/v1/responses/${response}`, expect: [404, 'response_not_found'] }],
  'POST /v1/embeddings': () => [hidden({ model: 'fake', input: 'Hello' })],
  'POST /tokenize': () => [none('model', { model: through, prompt: 'Hello' })],
  'POST /detokenize': () => [none('model', { model: through, tokens: [1] })],
  'GET /tokenizer_info': () => [hidden()],
  'POST /v1/feedback': ({ completion }) => [hidden({ completion_id: completion, score: 1 })],
  'POST /v1/edits/explain': () => [none('model', { model: through, question: 'Hello' })],
  'GET /v1/edits': () => [hidden()],
  'POST /v1/edits': () => [hidden([{ id: 'other', subject: 'Ulm', prompt: 'Ulm lies on the', target_new: 'Danube' }])],
  'POST /v1/edits/search': () => [hidden({ q: 'works' })],
  'POST /v1/edits/withdraw': () => [none('edit', { ids: ['held'] })],
  'GET /v1/edits/:id': () => [none('edit')],
  'DELETE /v1/edits/:id': () => [none('edit')],
  'POST /v1/edits/:id/withdraw': () => [none('edit')],
  'POST /v1/edits/:id/restore': () => [none('edit')],
  'GET /v1/batches': () => [hidden()],
  'GET /v1/batches/:id': ({ batch }) => [{ path: `/v1/batches/${batch}`, expect: [404, 'batch_not_found'] }],
  'POST /v1/batches/:id/withdraw': ({ batch }) => [{ path: `/v1/batches/${batch}/withdraw`, expect: [404, 'batch_not_found'] }],
  'POST /v1/batches/:id/restore': ({ batch }) => [{ path: `/v1/batches/${batch}/restore`, expect: [404, 'batch_not_found'] }],
  'POST /v1/compare': () => [
    none('model', { model: through, question: 'Hello' }),
    none('experiment', { model: MODEL, question: 'Hello', experiment: 'held' }),
  ],
  'GET /v1/experiments': () => [hidden()],
  'POST /v1/experiments': () => [none('adapter', { id: 'x', arms: [{ name: 'p' }, { name: 'w', adapter: 'held' }] })],
  'POST /v1/experiments/plan': () => [hidden({ base: 0.5, other: 0.6 })],
  'GET /v1/experiments/:id': () => [none('experiment')],
  'POST /v1/experiments/:id/weights': () => [none('experiment', { weights: { base: 2 } })],
  'POST /v1/experiments/:id/stop': () => [none('experiment')],
  'POST /v1/experiments/:id/ship': () => [none('experiment', { arm: 'base' })],
  'GET /v1/experiments/:id/replay': () => [none('experiment')],
  'POST /v1/experiments/:id/replay': () => [none('experiment', { prompts: ['Hello'] })],
  'GET /v1/rollouts': () => [hidden()],
  'POST /v1/rollouts': ({ batch }) => [hidden({ id: 'y', batch })],
  'GET /v1/rollouts/:id': () => [none('experiment')],
  'GET /v1/rollouts/:id/replay': () => [none('experiment')],
  'POST /v1/rollouts/:id/rollback': () => [none('experiment')],
  'GET /v1/adapters': () => [hidden()],
  'POST /v1/adapters': () => [
    none('adapter', { id: 'copy', path: 'adapters/held/adapter.gguf', base_sha256: BASE }),
    none('adapter', { id: 'copy', path: './x/../adapters/held/adapter.gguf', base_sha256: BASE }),
    none('adapter', { id: 'copy', path: 'adapters/nowhere/adapter.gguf', base_sha256: BASE }),
    none('adapter', { id: 'copy', path: 'handoffs/job/stage1.gguf', base_sha256: BASE }),
    none('adapter', { id: 'copy', path: 'held.gguf', base_sha256: BASE }),
    refused(409, 'adapter_conflict', { id: 'held', path: 'own.gguf', base_sha256: BASE }),
    refused(403, 'insufficient_permissions', { id: 'copy', path: 'own.gguf', base_sha256: BASE, tenant: 'mine' }),
  ],
  'GET /v1/adapters/:id': () => [none('adapter')],
  'PATCH /v1/adapters/:id': () => [none('adapter', { scale: 2 })],
  'DELETE /v1/adapters/:id': () => [none('adapter')],
  'POST /v1/adapters/:id/load': () => [none('adapter')],
  'POST /v1/adapters/:id/unload': () => [none('adapter')],
  'POST /v1/adapters/:id/promote': () => [none('adapter')],
  'POST /v1/adapters/:id/rollback': () => [none('adapter')],
  'GET /v1/evaluations': () => [hidden()],
  'GET /v1/evaluations/:id': () => [none('evaluation')],
  'GET /v1/evaluations/:id/report': () => [none('evaluation')],
  'GET /v1/requests': () => [hidden()],
  'GET /v1/handoffs': () => [hidden()],
  'POST /v1/handoffs': () => [none('edit', { method: 'memit', edits: ['held'] })],
  'GET /v1/handoffs/advice': () => [hidden()],
  'POST /v1/handoffs/import': () => [refused(400, 'invalid_value', { id: 'copy', path: '/nowhere' })],
  'GET /v1/handoffs/:id': () => [none('handoff')],
  'POST /v1/handoffs/:id/cancel': () => [none('handoff')],
  'POST /v1/handoffs/:id/resume': () => [none('handoff')],
  'POST /v1/handoffs/:id/promote': () => [none('adapter')],
  'POST /v1/handoffs/:id/rollback': () => [none('adapter')],
}

const close: (() => unknown)[] = []
afterEach(async () => {
  for (const one of close.splice(0).reverse()) await one()
})

// biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
type Body = any

interface Apart extends Served {
  readonly handoffs: Handoffs
  /** With a key of this tenant and this scope alone. */
  send(
    tenant: string,
    scope: Scope,
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ status: number; text: string; json: Body }>
}

/** `lax`: what a gateway lets in that forgets a check. */
async function start(lax: (access: Access) => Access = (access) => access): Promise<Apart> {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-tenants-'))
  const [store, reports] = [await openKeys(dir), join(dir, 'reports')]
  const access = lax(await accessBy(store, 'keys', true, Date.now))
  close.push(
    () => rmSync(dir, { recursive: true, force: true }),
    () => store.database.close(),
    () => access.close(),
  )
  let handoffs: Handoffs | undefined
  const served = await serve({
    engine: modelOf('base.gguf'),
    gateway: { access, reportsDir: reports },
    limits: { tenantAdapters: 2 },
    handoffs: (gateway, dataDir) => {
      handoffs = standInHandoffs(gateway, dataDir)
      return handoffs
    },
  })
  close.push(
    () => served.close(),
    () => handoffs?.close(),
  )
  close.push(() => rmSync(snapshotsDir(served.dataDir), { recursive: true, force: true }))
  const tokens = new Map<string, string>()
  const tokenOf = async (tenant: string, scope: Scope) => {
    const bound = scope === 'admin' ? null : tenant
    const token =
      tokens.get(`${bound} ${scope}`) ?? (await store.create({ name: 'k', tenant: bound, scopes: [scope] }, Date.now())).token
    tokens.set(`${bound} ${scope}`, token)
    return token
  }
  const send: Apart['send'] = async (tenant, scope, method, path, body) => {
    const response = await fetch(served.base + path, {
      method,
      redirect: 'manual',
      headers: {
        ...{ authorization: `Bearer ${await tokenOf(tenant, scope)}`, 'palimpsest-tenant': tenant },
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    const isJson = response.headers.get('content-type')?.includes('json') === true
    return { status: response.status, text, json: isJson ? JSON.parse(text) : null }
  }
  return { ...served, send, handoffs: handoffs as unknown as Handoffs }
}

/** An object of every kind, of the tenant `mine`; all that can be named is called `held`. */
async function furnish({ send, dataDir }: Apart): Promise<Ids> {
  const made = async (scope: Scope, path: string, body: unknown) => {
    const { status, json } = await send('mine', scope, 'POST', path, body)
    expect(status, `${path}: ${JSON.stringify(json)}`).toBeLessThan(300)
    return json
  }
  const edit = { subject: MARK, prompt: `${MARK} works for`, target_new: `${MARK} Ltd` }
  const { id: batch } = await made('edits', '/v1/edits', [{ ...edit, id: 'held' }])
  writeFileSync(join(dataDir, 'held.gguf'), weights('mine'))
  writeFileSync(join(dataDir, 'own.gguf'), weights('own'))
  await made('edits', '/v1/adapters', { id: 'held', path: 'held.gguf', base_sha256: BASE, method: MARK, edits: ['held'] })
  await made('edits', '/v1/experiments', { id: 'held', seed: MARK })
  const more = await made('edits', '/v1/edits', [{ ...edit, id: 'more', prompt: `${MARK} lives in` }])
  await made('edits', '/v1/rollouts', { id: 'rolled', batch: more.id, seed: MARK })
  await made('admin', '/v1/handoffs', { id: 'job', method: 'memit', edits: ['held'] })
  // As long as one runs nothing is taken in, for any tenant; and one that ends well makes an adapter.
  await send('mine', 'admin', 'POST', '/v1/handoffs/job/cancel')
  const isOver = async () => !['queued', 'running'].includes((await send('mine', 'admin', 'GET', '/v1/handoffs/job')).json.state)
  await expect.poll(isOver).toBe(true)
  const { id: response } = await made('inference', '/v1/responses', { model: MODEL, input: `Who is ${MARK}?` })
  const { id: completion } = await made('inference', '/v1/chat/completions', { model: MODEL, messages })
  return { batch, response, completion }
}

interface Layer {
  readonly route?: { readonly path: string; readonly stack: readonly { readonly method?: string }[] }
}

/** Every method of every path that the application serves, as Express holds them. */
function routesOf({ gateway, handoffs }: Apart, plant: (app: Express) => void = () => {}): string[] {
  const app = createApp(gateway, handoffs)
  plant(app)
  const { stack } = app.router as unknown as { readonly stack: readonly Layer[] }
  return stack.flatMap(({ route }) => {
    const methods = new Set(route?.stack.flatMap(({ method }) => (method === undefined ? [] : [method.toUpperCase()])))
    return [...methods].map((method) => `${method} ${route?.path}`)
  })
}

/** Routes that the table has not, and those of the table that are none. */
function unlisted(routes: readonly string[]): string[] {
  return [...routes.filter((route) => ROUTES[route] === undefined), ...Object.keys(ROUTES).filter((one) => !routes.includes(one))]
}

/** What the tenant `yours` is shown or let do that it must not, with each scope, on these routes. */
async function leaks(apart: Apart, ids: Ids, routes: readonly string[]): Promise<string[]> {
  const wrong: string[] = []
  for (const route of routes) {
    const [method = '', pattern = ''] = route.split(' ')
    const id = pattern.startsWith('/v1/rollouts/') ? 'rolled' : pattern.startsWith('/v1/handoffs/:id') ? 'job' : 'held'
    const path = pattern.replace(':id', id)
    for (const scope of SCOPES)
      for (const sent of ROUTES[route]?.(ids) ?? []) {
        const { status, text, json } = await apart.send('yours', scope, method, sent.path ?? path, sent.body)
        const code = json?.error?.code ?? null
        const need = needOf(pattern)
        const lacking = need !== 'nothing' && need !== 'key' && need !== scope
        // A key with the scope admin may name any tenant; here its header names another one than the body.
        const twoNamed = scope === 'admin' && sent.expect[0] === 403
        const expected = lacking ? [403, 'insufficient_permissions'] : twoNamed ? [400, 'invalid_value'] : sent.expect
        const fits =
          expected === 'hidden' ? status < 400 && !text.includes('held') : status === expected[0] && code === expected[1]
        if (!fits || text.includes(MARK)) wrong.push(`${route} with ${scope}: ${status} ${text.slice(0, 300)}`)
      }
  }
  return wrong
}

/** A gateway that forgets a check, and routes on which that shows. */
const FORGETFUL: Readonly<
  Record<string, readonly [lax: (key: Key) => Key, after: (apart: Apart) => void, routes: readonly string[]]>
> = {
  'which tenant an edit is of': [
    (key) => key,
    ({ gateway }) => {
      const { memory } = gateway
      const get = memory.get.bind(memory)
      Object.assign(memory, { get: (_tenant: string, id: string, at?: number) => get('mine', id, at) })
    },
    ['GET /v1/edits/:id'],
  ],
  'that tenants are kept apart': [
    (key) => key,
    ({ gateway: { adapters } }) => {
      if (adapters !== undefined)
        Object.assign(adapters, { get: (id: string) => adapters.list('mine').find((one) => one.id === id) })
    },
    ['GET /v1/adapters/:id'],
  ],
  'what scopes a key has': [(key) => ({ ...key, scopes: SCOPES }), () => {}, ['GET /v1/requests', 'GET /v1/edits']],
  'which tenant a key is for': [(key) => ({ ...key, tenant: 'mine' }), () => {}, ['GET /v1/edits']],
}

test.each(Object.entries(FORGETFUL))('the table finds a gateway that forgets %s', async (_what, [lax, after, routes]) => {
  let forgets = false
  const apart = await start((access) => ({
    ...access,
    required: () => access.required(),
    identify: async (token) => {
      const key = await access.identify(token)
      return key !== null && forgets ? lax(key) : key
    },
  }))
  const ids = await furnish(apart)
  expect(await leaks(apart, ids, routes)).toEqual([])
  after(apart)
  forgets = true
  expect(await leaks(apart, ids, routes)).not.toEqual([])
})

describe('objects of another tenant', () => {
  let apart: Apart
  let ids: Ids
  beforeEach(async () => {
    apart = await start()
    ids = await furnish(apart)
  })

  test('no route shows or changes, whatever the scope of the key; and every route is in the table', async () => {
    const served = routesOf(apart)
    expect(unlisted(served)).toEqual([])
    const planted = routesOf(apart, (app) => void app.get('/v1/planted', (_req, res) => void res.json({})))
    expect(unlisted(planted)).toEqual(['GET /v1/planted'])
    const before = readFileSync(join(apart.dataDir, 'adapters/held/adapter.json'), 'utf8')
    expect(await leaks(apart, ids, served)).toEqual([])
    expect(readFileSync(join(apart.dataDir, 'adapters/held/adapter.json'), 'utf8')).toBe(before)
  })

  test('its own tenant goes on with them', async () => {
    const mine = (method: string, path: string, body?: unknown) => apart.send('mine', 'edits', method, path, body)
    expect((await mine('GET', '/v1/adapters')).json.data.map(({ id }: Body) => id)).toContain('held')
    expect((await mine('PATCH', '/v1/adapters/held', { scale: 2 })).json.scale).toBe(2)
    const copied = await mine('POST', '/v1/adapters', { id: 'copy', path: 'adapters/held/adapter.gguf', base_sha256: BASE })
    expect(copied.status, copied.text).toBe(201)
    const models = await apart.send('mine', 'inference', 'GET', '/v1/models')
    expect(models.text).toContain(through)
    expect(
      (await apart.send('mine', 'inference', 'POST', '/v1/chat/completions', { model: through, messages })).json.palimpsest,
    ).toMatchObject({ adapter: 'held' })
  })

  test('one tenant fills its own quota and not that of others', async () => {
    const register = (tenant: string, id: string) => {
      writeFileSync(join(apart.dataDir, `${id}.gguf`), weights(id))
      return apart.send(tenant, 'edits', 'POST', '/v1/adapters', { id, path: `${id}.gguf`, base_sha256: BASE })
    }
    expect((await register('yours', 'a')).status).toBe(201)
    expect((await register('yours', 'b')).status).toBe(201)
    const third = await register('yours', 'c')
    expect([third.status, third.json.error.code]).toEqual([409, 'adapter_conflict'])
    expect((await register('theirs', 'd')).status).toBe(201)
  })

  test('an experiment stops at an adapter that has since become another tenant’s', async () => {
    const arms = [{ name: 'p' }, { name: 'w', adapter: 'held' }]
    expect((await apart.send('mine', 'edits', 'POST', '/v1/experiments', { id: 'x', arms })).status).toBe(201)
    await apart.send('mine', 'edits', 'DELETE', '/v1/adapters/held')
    writeFileSync(join(apart.dataDir, 'new.gguf'), weights('yours'))
    const taken = await apart.send('yours', 'edits', 'POST', '/v1/adapters', { id: 'held', path: 'new.gguf', base_sha256: BASE })
    expect(taken.status).toBe(201)
    const compared = await apart.send('mine', 'edits', 'POST', '/v1/compare', { model: MODEL, question: MARK, experiment: 'x' })
    expect([compared.status, compared.json.error.code]).toEqual([404, 'adapter_not_found'])
  })
})

test('an adapter from before adapters had tenants is the default tenant’s', async () => {
  const apart = await start()
  writeFileSync(join(apart.dataDir, 'old.gguf'), weights('old'))
  await apart.send(DEFAULT_TENANT, 'edits', 'POST', '/v1/adapters', { id: 'old', path: 'old.gguf', base_sha256: BASE })
  const file = join(apart.dataDir, 'adapters/old/adapter.json')
  const { tenant: _, ...before } = JSON.parse(readFileSync(file, 'utf8'))
  writeFileSync(file, JSON.stringify(before))
  const { access } = apart.gateway
  const again = await openAdapters({ ...apart.gateway, dataDir: apart.dataDir, ...(access && { access }) })
  expect(again?.list(DEFAULT_TENANT)).toMatchObject([{ id: 'old', tenant: DEFAULT_TENANT }])
  expect(again?.list('yours')).toEqual([])
})
