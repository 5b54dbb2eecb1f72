import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { accessBy } from '../../../src/access/access.ts'
import { KeyStore } from '../../../src/access/key-store.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'
import { MODEL, post, type Served, serve } from '../fakes.ts'

/** What a request for an answer asks PostgreSQL, counted where statements go out. */
let server: PostgresServer
const undo: (() => Promise<unknown>)[] = []
beforeAll(async () => {
  server = await startPostgres({ fsync: 'off' })
}, 120_000)
afterAll(() => server.remove())
afterEach(async () => {
  vi.restoreAllMocks()
  for (const one of undo.splice(0).reverse()) await one()
})

async function gateway(keys: boolean) {
  const database = new Postgres({ url: await server.database(), warn: () => {} })
  undo.push(() => database.close())
  const store = keys ? await KeyStore.open(database) : undefined
  const access = store && (await accessBy(store, 'keys', true, Date.now, () => {}))
  if (access !== undefined) undo.push(() => access.close())
  const served = await serve({ database, gateway: { ...(access && { access }) } })
  undo.push(() => served.close())
  return { served, store }
}

/** What a gateway looks for by itself, whether or not anybody asks it something; and the making of a connection. */
const BY_ITSELF = [
  /FROM schema_versions$/,
  /^SELECT \(SELECT coalesce\(max\(seq\)/,
  /^SELECT changes, answers FROM ledger_state/,
  /^UPDATE ledger_state SET answers = answers \+/,
  /FROM key_changes LEFT JOIN keys/,
  /^SELECT 1 AS one FROM replays/,
  /^SET statement_timeout/,
  /^(LISTEN|SELECT pg_notify)/,
]
/** After the answer: nobody waits for it. */
const AFTERWARDS = [/^UPDATE answers SET finished = 1/, /^WITH once AS \(INSERT INTO settlements/, /^DELETE FROM settlements/]

/** Statements that went out meanwhile, but for what the gateway does by itself. */
async function statementsOf(work: () => Promise<unknown>): Promise<string[]> {
  const sent: string[] = []
  const query = pg.Client.prototype.query
  const spy = vi.spyOn(pg.Client.prototype, 'query').mockImplementation(function (this: pg.Client, ...asked: unknown[]) {
    const [first] = asked
    sent.push(typeof first === 'string' ? first : ((first as { text?: string }).text ?? String(first)))
    return Reflect.apply(query, this, asked)
  } as typeof query)
  await work()
  spy.mockRestore()
  return sent.filter((text) => !BY_ITSELF.some((pattern) => pattern.test(text)))
}

const REQUESTS = 20
const LUND = { id: 'lund', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' }

async function askOften(served: Served, headers: Record<string, string> = {}): Promise<void> {
  for (let n = 0; n < REQUESTS; n++) {
    const messages = [{ role: 'user', content: `Who is the mayor of Lund, please? (${n})` }]
    const body = { model: MODEL, messages, user: `user-${n}`, max_tokens: 5, stream: n % 2 === 0 }
    const response = await post(served, '/v1/chat/completions', body, headers)
    expect(response.status).toBe(200)
    await response.text()
  }
}

const beforeAnswer = (sent: readonly string[]) => sent.filter((text) => !AFTERWARDS.some((pattern) => pattern.test(text)))

test('a request asks nothing where there is neither experiment nor budget, with edits and with a key', async () => {
  const { served, store } = await gateway(true)
  const key = await store?.create({ name: 'x', tenant: null, scopes: ['inference', 'edits', 'admin'] }, Date.now())
  const headers = { authorization: `Bearer ${key?.token}` }
  await expect.poll(async () => (await post(served, '/v1/edits', { edits: [LUND] }, headers)).status).toBe(201)
  expect(await statementsOf(() => askOften(served, headers))).toEqual([])
}, 60_000)

test('an exposure is one round trip', async () => {
  const { served } = await gateway(false)
  await post(served, '/v1/edits', { edits: [LUND] })
  expect((await post(served, '/v1/experiments', { id: 'x' })).status).toBeLessThan(300)
  const sent = beforeAnswer(await statementsOf(() => askOften(served)))
  expect(sent.filter((text) => !/INSERT INTO exposures/.test(text))).toEqual([])
  expect(sent.length).toBe(REQUESTS)
}, 60_000)

test('a budget is one round trip, of requests and tokens together', async () => {
  const { served, store } = await gateway(true)
  const limits = { requestsPerMinute: 10_000, tokensPerDay: 10_000_000 }
  const key = await store?.create({ name: 'x', tenant: null, scopes: ['inference', 'edits', 'admin'], ...limits }, Date.now())
  const headers = { authorization: `Bearer ${key?.token}` }
  await expect.poll(async () => (await post(served, '/v1/edits', { edits: [LUND] }, headers)).status).toBe(201)
  const sent = beforeAnswer(await statementsOf(() => askOften(served, headers)))
  expect(sent.filter((text) => !/^UPDATE usage SET/.test(text))).toEqual([])
  expect(sent.length).toBe(REQUESTS)
}, 60_000)
