import OpenAI from 'openai'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { accessBy } from '../../../src/access/access.ts'
import { KeyStore } from '../../../src/access/key-store.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'
import { MODEL, post, type Served, serve } from '../fakes.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000 })

/** Three gateways over one PostgreSQL, each with a folder and connections of its own. The model is scripted: it says what it was asked. */
let server: PostgresServer
let url = ''
const undo: (() => Promise<unknown>)[] = []
beforeAll(async () => {
  server = await startPostgres()
}, 120_000)
afterAll(() => server.remove())
beforeEach(async () => {
  url = await server.database()
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

async function gateway(keys = false): Promise<Served> {
  const database = new Postgres({ url, connectTimeoutMs: 500, statementTimeoutMs: 2_000, warn: () => {} })
  undo.push(() => database.close())
  const access = keys ? await accessBy(await KeyStore.open(database), 'keys', true, Date.now, () => {}) : undefined
  if (access !== undefined) undo.push(() => access.close())
  const served = await serve({ database, gateway: { ...(access && { access }) } })
  undo.push(() => served.close())
  return served
}

const three = () => Promise.all([gateway(), gateway(), gateway()])
const LUND = { id: 'lund', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' }
const land = (served: Served, edits: object[], path = '/v1/edits') => post(served, path, { edits })

async function ask(served: Served, headers: Record<string, string> = {}, user?: string) {
  const response = await post(
    served,
    '/v1/chat/completions',
    { model: MODEL, messages: [{ role: 'user', content: 'Who is the mayor of Lund?' }], user },
    headers,
  )
  const { choices, error } = (await response.json()) as { choices?: { message: { content: string } }[]; error?: { code: string } }
  return {
    status: response.status,
    code: error?.code,
    edited: choices?.[0]?.message.content.includes('Ada'),
    headers: response.headers,
  }
}

const versionOf = async (response: Response) =>
  ((await response.json()) as { palimpsest: { memory_version: number } }).palimpsest.memory_version

test('an edit landed on one is effective on all others, within a second, or at once for whoever brings its version', async () => {
  const [one, two, three_] = await three()
  const landed = await land(one, [LUND])
  expect(landed.status).toBe(201)
  const version = await versionOf(landed)
  expect((await ask(one)).edited).toBe(true)
  expect((await ask(two, { 'palimpsest-at-least': String(version) })).edited).toBe(true)
  await expect.poll(async () => (await ask(three_)).edited, { timeout: 1_000 }).toBe(true)
  await fetch(`${two.base}/v1/edits/lund`, { method: 'DELETE' })
  await expect.poll(async () => (await ask(one)).edited, { timeout: 1_000 }).toBe(false)
})

test('an experiment declared on one runs on all, and no unit is in two arms', async () => {
  const nodes = await three()
  const [one, two] = nodes
  await land(one, [LUND])
  const declared = await post(one, '/v1/experiments', { id: 'x' })
  expect(declared.status).toBeLessThan(300)
  await expect.poll(async () => (await fetch(`${two.base}/v1/experiments/x`)).status, { timeout: 1_000 }).toBe(200)
  await expect.poll(async () => (await ask(nodes[2])).edited !== undefined, { timeout: 1_000 }).toBe(true)
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  const arms = await Promise.all(
    Array.from({ length: 20 }, async (_, unit) =>
      Promise.all(
        nodes.map(async (node) => {
          const { status, headers } = await ask(node, {}, `user-${unit}`)
          expect(status).toBe(200)
          return headers.get('palimpsest-experiment')
        }),
      ),
    ),
  )
  for (const seen of arms) expect(new Set(seen).size).toBe(1)
  expect(new Set(arms.flat()).size).toBeGreaterThan(1)
}, 60_000)

test('a key made on one opens all, and revoked on one it opens none within a second', async () => {
  const [one, two] = await Promise.all([gateway(true), gateway(true)])
  const database = new Postgres({ url, warn: () => {} })
  undo.push(() => database.close())
  const store = await KeyStore.open(database)
  const { key, token } = await store.create({ name: 'x', tenant: 'default', scopes: ['inference'] }, Date.now())
  const authorization = `Bearer ${token}`
  expect([(await ask(one, { authorization })).status, (await ask(two, { authorization })).status]).toEqual([200, 200])
  await store.revoke(key.id, Date.now())
  for (const node of [one, two])
    await expect.poll(async () => (await ask(node, { authorization })).status, { timeout: 1_500 }).toBe(401)
})

test('a response kept on one is gone on with on another', async () => {
  const [one, two] = await three()
  const client = ({ base }: Served) => new OpenAI({ baseURL: `${base}/v1`, apiKey: 'none', maxRetries: 0 })
  const first = await client(one).responses.create({ model: MODEL, input: 'My name is Ada.' })
  const second = await client(two).responses.create({ model: MODEL, input: 'What is my name?', previous_response_id: first.id })
  expect(second.output_text).toContain('What is my name?')
  expect(await client(one).responses.retrieve(second.id)).toMatchObject({ previous_response_id: first.id })
})

test('without its PostgreSQL a gateway answers from memory, refuses writes, and catches up when it is back', async () => {
  const [one, two] = await three()
  await land(one, [LUND])
  await expect.poll(async () => (await ask(two)).edited, { timeout: 1_000 }).toBe(true)
  await server.kill()
  const asked = await Promise.all(Array.from({ length: 20 }, (_, i) => ask(i % 2 === 0 ? one : two)))
  expect(asked.map(({ status, edited }) => [status, edited])).toEqual(asked.map(() => [200, true]))
  const refused = await land(one, [{ ...LUND, id: 'lund-2', target_new: 'Bo' }])
  expect([refused.status, refused.headers.has('retry-after')]).toEqual([503, true])
  expect(await refused.json()).toMatchObject({ error: { code: 'storage_unavailable', type: 'server_error' } })
  expect((await fetch(`${one.base}/readyz`)).status).toBe(200)
  await expect
    .poll(
      async () => ((await (await fetch(`${one.base}/health`)).json()) as { memory: { log: { state: string } } }).memory.log.state,
      { timeout: 5_000 },
    )
    .toBe('away')
  await server.start()
  await expect.poll(async () => (await land(one, [{ ...LUND, target_new: 'Bo' }])).status, { timeout: 10_000 }).toBe(201)
  await expect.poll(async () => (await ask(two)).edited, { timeout: 5_000 }).toBe(false)
}, 180_000)
