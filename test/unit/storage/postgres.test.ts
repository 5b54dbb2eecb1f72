import { createServer, type Server, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { Postgres, type PostgresOptions } from '../../../src/storage/postgres/postgres.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'
import { experiment, ledgerOf } from '../../support/experiment-data.ts'

/** For a machine that does other things too. */
const PATIENCE_MS = 60_000
vi.setConfig({ testTimeout: PATIENCE_MS, hookTimeout: PATIENCE_MS })
let server: PostgresServer
beforeAll(async () => {
  server = await startPostgres({ fsync: 'off' })
}, 120_000)
afterAll(() => server.remove())

function connect(options: Omit<PostgresOptions, 'warn'>): Postgres {
  const database = new Postgres({ ...options, warn: () => {} })
  onTestFinished(() => database.close())
  return database
}

const settled = async (work: readonly Promise<unknown>[]) => {
  const results = await Promise.allSettled(work)
  const refused = results.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
  return { answered: results.length - refused.length, refused }
}
const times = <Result>(n: number, work: (i: number) => Result) => Array.from({ length: n }, (_, i) => work(i))

describe('many statements at once', () => {
  test(
    'wait for a connection for longer than one may take to be made, and all are answered',
    async () => {
      const connectTimeoutMs = 1_000
      const database = connect({ url: await server.database(), connections: 2, connectTimeoutMs, waitMs: PATIENCE_MS })
      await database.all('warming up', 'SELECT 1')
      const begun = performance.now()
      const statement = (i: number) =>
        i % 10 === 0
          ? database.atOnce('working', (sql) => sql.all('working', 'SELECT pg_sleep(0.02)'))
          : database.all('working', 'SELECT pg_sleep(0.02)')
      expect(await settled(times(300, statement))).toEqual({ answered: 300, refused: [] })
      expect(performance.now() - begun).toBeGreaterThan(2 * connectTimeoutMs)
    },
    PATIENCE_MS,
  )

  test(
    'of 2,000 exposures come on record, each once',
    async () => {
      const database = connect({ url: await server.database(), waitMs: PATIENCE_MS })
      const ledger = await ledgerOf(database)
      const begun = performance.now()
      const exposures = times(2_000, (i) =>
        ledger.expose({ experiment: experiment(), unit: `u${i}`, arm: i % 2, completion: `c${i}`, at: i, messages: [] }),
      )
      expect(await settled(exposures)).toEqual({ answered: 2_000, refused: [] })
      console.info(`2,000 exposures at once: ${(performance.now() - begun).toFixed(0)} ms`)
      expect(await database.all('counting', 'SELECT count(*) AS n FROM exposures')).toEqual([{ n: 2_000 }])
    },
    PATIENCE_MS,
  )

  test('are refused where too many wait, and where one waits too long; those after them are answered', async () => {
    const database = connect({ url: await server.database(), connections: 2, waitingStatements: 5, waitMs: 300 })
    await database.all('warming up', 'SELECT 1')
    const begun = performance.now()
    const { answered, refused } = await settled(times(20, () => database.all('working', 'SELECT pg_sleep(1)')))
    expect([answered, refused.length]).toEqual([2, 18])
    expect(performance.now() - begun).toBeLessThan(10_000)
    for (const error of refused) expect(error).toMatchObject({ code: 'storage_unavailable', status: 503, retryAfterSeconds: 1 })
    expect(refused.filter(({ message }) => message.includes('5 statements wait')).length).toBe(13)
    expect(refused.filter(({ message }) => message.includes('within 300 ms')).length).toBe(5)
    expect(await database.all('working', 'SELECT 1 AS n')).toEqual([{ n: 1 }])
  })

  test('to a server that says nothing fail together, not one after the other', async () => {
    const sockets: Socket[] = []
    const silent: Server = createServer((socket) => void sockets.push(socket)).listen(0, '127.0.0.1')
    await new Promise((resolve) => silent.once('listening', resolve))
    onTestFinished(async () => {
      for (const socket of sockets) socket.destroy()
      silent.close()
    })
    const { port } = silent.address() as { port: number }
    const url = `postgres://palimpsest@127.0.0.1:${port}/none`
    const database = connect({ url, connections: 2, connectTimeoutMs: 500, waitMs: PATIENCE_MS })
    const begun = performance.now()
    const { refused } = await settled(times(100, () => database.all('working', 'SELECT 1')))
    // Fifty times half a second, had each tried by itself.
    expect(performance.now() - begun).toBeLessThan(10_000)
    expect(new Set(refused.map(({ code }) => code))).toEqual(new Set(['storage_unavailable']))
    expect(refused.length).toBe(100)
  })
})

describe('copying out', () => {
  test('gives rows of bytes as they were put there, and none where there are none', async () => {
    const database = connect({ url: await server.database() })
    await database.run(
      'making a table',
      `CREATE TABLE pieces AS SELECT decode(lpad(to_hex(n), 4, '0'), 'hex') AS key, decode(repeat(lpad(to_hex(n % 256), 2, '0'), 1000), 'hex') AS body
         FROM generate_series(0, 299) AS n`,
    )
    const rows = [...(await database.copy('copying', 'SELECT key, body FROM pieces ORDER BY key', 300, [2, 1_000]))]
    expect(rows.map(([key]) => Buffer.from(key ?? []).readUInt16BE())).toEqual(times(300, (i) => i))
    for (const [i, [, body]] of rows.entries()) expect(Buffer.from(body ?? []).equals(Buffer.alloc(1_000, i % 256))).toBe(true)
    expect([...(await database.copy('copying', 'SELECT key, body FROM pieces WHERE false', 1, [2, 1_000]))]).toEqual([])
  })

  test('fails where more comes than was said, or the statement is wrong; the next one works', async () => {
    const database = connect({ url: await server.database(), connections: 1 })
    const many = 'SELECT decode(repeat(md5(n::text), 100), $$hex$$) FROM generate_series(1, 10000) AS n'
    await expect(database.copy('copying', many, 1, [10])).rejects.toMatchObject({ code: 'storage_unavailable' })
    await expect(database.copy('copying', 'SELECT nothing FROM nowhere', 1, [10])).rejects.toMatchObject({
      code: 'storage_failed',
    })
    expect(await database.all('working', 'SELECT 1 AS n')).toEqual([{ n: 1 }])
  })

  test('is given up when the server takes too long', async () => {
    const database = connect({ url: await server.database(), statementTimeoutMs: 300 })
    const error = await database
      .copy('copying', 'SELECT NULL::bytea FROM pg_sleep(20)', 1, [1])
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'storage_unavailable', status: 503 })
    expect(await database.all('working', 'SELECT 1 AS n')).toEqual([{ n: 1 }])
  })
})
