import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { checkDatabase } from '../../../src/cli/database-check.ts'
import { EditLog } from '../../../src/memory/log/edit-log.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { freePort, type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'

let server: PostgresServer
beforeAll(async () => {
  server = await startPostgres({ fsync: 'off' })
}, 120_000)
afterAll(() => server.remove(), 60_000)

const look = (url: string, gateway = 'http://127.0.0.1:9') => checkDatabase({ url, gateway, now: Date.now })

/** With the tables of the log, and so many records in it. */
async function logged(records: number): Promise<{ readonly url: string; readonly database: Postgres }> {
  const url = await server.database()
  const database = new Postgres({ url, warn: () => {} })
  onTestFinished(() => database.close())
  await EditLog.open(database)
  for (let seq = 1; seq <= records; seq++)
    await database.run(
      'writing',
      "INSERT INTO log (seq, at, tenant, kind, edit_id, batch_id) VALUES (?, 0, 'default', 'withdraw', 'e', 'b')",
      seq,
    )
  return { url, database }
}

/** What says that it has applied the log up to there. */
async function gatewayAt(version: number): Promise<string> {
  const health = createServer((_, res) => void res.end(JSON.stringify({ memory: { version } }))).listen(0, '127.0.0.1')
  await new Promise((resolve) => health.once('listening', resolve))
  onTestFinished(() => void health.close())
  return `http://127.0.0.1:${(health.address() as AddressInfo).port}`
}

test('a database that is away, and an address that is none, are said with what to do', async () => {
  const mend = 'Start it, or correct PALIMPSEST_DATABASE_URL or --database.'
  expect(await look(`postgres://x:secret@127.0.0.1:${await freePort()}/none`)).toEqual([
    {
      state: 'missing',
      what: 'Database',
      found: expect.stringMatching(/^PostgreSQL 127.0.0.1:\d+\/none cannot be reached/),
      mend,
    },
  ])
  expect(await look('mysql://127.0.0.1/x')).toMatchObject([
    { state: 'missing', found: expect.stringMatching(/must be given as/) },
  ])
})

test('an empty one is left empty', async () => {
  const url = await server.database()
  expect(await look(url)).toMatchObject([
    { state: 'ok', found: expect.stringMatching(/\/test_\d+_\d+, version \d+.*, in \d+ ms$/) },
    { state: 'note', what: 'Database tables', found: 'none: the first gateway makes them' },
  ])
})

test('formats of the tables, the length of the log, and how far the gateway here is behind', async () => {
  const { url } = await logged(3)
  expect((await look(url)).slice(1)).toEqual([
    { state: 'ok', what: 'Database tables', found: 'format of edit log 1' },
    { state: 'ok', what: 'Edit log', found: '3 records; no gateway to compare with answers at http://127.0.0.1:9' },
  ])
  const [behind, level] = [await gatewayAt(1), await gatewayAt(3)]
  expect((await look(url, behind))[2]).toMatchObject({ state: 'note', found: `3 records; the gateway at ${behind} is 2 behind` })
  expect((await look(url, level))[2]).toMatchObject({ state: 'ok', found: `3 records; the gateway at ${level} is 0 behind` })
})

test('tables of a newer version that this one cannot read are a fault', async () => {
  const { url, database } = await logged(0)
  await database.run('raising', "UPDATE schema_versions SET version = 9, oldest_reader = 9 WHERE port = 'edit log'")
  expect((await look(url))[1]).toMatchObject({
    ...{ state: 'missing', found: 'too new for this version' },
    mend: expect.stringMatching(/the tables of edit log have format 9, and this Palimpsest knows up to 1. Update Palimpsest/),
  })
})
