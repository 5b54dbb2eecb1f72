import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { KeyStore } from '../../../src/access/key-store.ts'
import { migrate, type Schema } from '../../../src/storage/migrate.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'
import { MODEL, post, type Served, serve } from '../fakes.ts'

/** Two versions over one PostgreSQL: these gateways, and what the next version would add to their tables. `newer-tables.test.ts` has what they can't go on with. */
let server: PostgresServer
let url = ''
const undo: (() => Promise<unknown>)[] = []
beforeAll(async () => {
  server = await startPostgres({ fsync: 'off' })
}, 120_000)
afterAll(() => server.remove())
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

function connect(): Postgres {
  const database = new Postgres({ url, warn: () => {} })
  undo.push(() => database.close())
  return database
}

async function gateway(): Promise<Served> {
  const database = connect()
  await KeyStore.open(database)
  const served = await serve({ database })
  undo.push(() => served.close())
  return served
}

/** As many steps as are known today, which are there already, and one more. */
const next = (port: string, known: number, oldestReader: number, ...postgres: string[]): Schema => ({
  port,
  oldestReader,
  steps: [...Array.from({ length: known }, () => ({ sqlite: [], postgres: [] })), { sqlite: [], postgres }],
})
const PATIENCE = { timeout: 20_000 }
const edit = (n: number) => ({ id: `e${n}`, subject: `Town ${n}`, prompt: `The mayor of Town ${n} is`, target_new: 'Ada' })
const land = (served: Served, n: number) => post(served, '/v1/edits', { edits: [edit(n)] })
const ask = async (served: Served, n: number) => {
  const messages = [{ role: 'user', content: `Who is the mayor of Town ${n}?` }]
  const response = await post(served, '/v1/chat/completions', { model: MODEL, messages, user: 'u1' })
  return [response.status, (await response.text()).includes('Ada')]
}

test('a gateway goes on beside a newer one that only added to the tables, and others of its version start', async () => {
  url = await server.database()
  const old = await gateway()
  expect((await land(old, 1)).status).toBe(201)
  const newer = connect()
  const column = (table: string) => `ALTER TABLE ${table} ADD COLUMN note TEXT`
  await migrate(newer, next('edit log', 1, 1, column('log'), column('batches'), 'CREATE TABLE notes (n BIGINT PRIMARY KEY)'))
  await migrate(newer, next('access', 2, 2, column('keys'), column('usage')))
  await migrate(newer, next('embeddings', 1, 1, column('vectors')))
  expect((await land(old, 2)).status).toBe(201)
  const another = await gateway()
  expect((await land(another, 3)).status).toBe(201)
  for (const served of [old, another])
    for (const n of [1, 2, 3]) await expect.poll(() => ask(served, n), PATIENCE).toEqual([200, true])
  expect((await post(old, '/v1/experiments', { id: 'x' })).status).toBeLessThan(300)
  await expect.poll(async () => (await fetch(`${another.base}/v1/experiments/x`)).status, PATIENCE).toBe(200)
  for (const { base } of [old, another]) expect((await fetch(`${base}/readyz`)).status).toBe(200)
}, 60_000)
