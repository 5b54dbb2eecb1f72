import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { Listener } from '../../../src/storage/postgres/listener.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'

let server: PostgresServer

beforeAll(async () => {
  server = await startPostgres({ fsync: 'off' })
}, 120_000)
afterAll(() => server.remove())

async function opened() {
  const url = await server.database()
  const sql = new Postgres({ url, warn: () => {} })
  onTestFinished(() => sql.close())
  const say = (text: string) => sql.run('telling', 'SELECT pg_notify(?, ?)', 'news', text)
  return { url, sql, say }
}

test('what is told on a channel is heard in order; a broken connection is opened again, and that is told by an empty text', async () => {
  const { sql, say } = await opened()
  const heard: string[] = []
  const listening = sql.listen('news', (text) => heard.push(text))
  onTestFinished(() => listening.close())
  await vi.waitFor(() => expect(listening.up).toBe(true), 10_000)
  for (const text of ['a', 'b', 'c']) await say(text)
  await vi.waitFor(() => expect(heard).toEqual(['', 'a', 'b', 'c']), 10_000)
  await sql.run('cutting', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'palimpsest feed'")
  await vi.waitFor(() => expect(listening.up).toBe(false), 10_000)
  await vi.waitFor(() => expect(listening.up).toBe(true), 10_000)
  await say('d')
  await vi.waitFor(() => expect(heard).toEqual(['', 'a', 'b', 'c', '', 'd']), 10_000)
})

test('behind a pooler that passes nothing on it is never up, and says so once', async () => {
  const { url } = await opened()
  const warn = vi.fn()
  const listener = new Listener({
    ...{ url, name: 'PostgreSQL here', connectTimeoutMs: 3_000, channel: 'news', heard: () => {}, warn },
    ask: async () => {},
  })
  onTestFinished(() => listener.close())
  await vi.waitFor(
    () => expect(warn).toHaveBeenCalledWith(expect.stringMatching(/^PostgreSQL here: .*no notification comes back.*polling/)),
    10_000,
  )
  await new Promise((resolve) => setTimeout(resolve, 3_500))
  expect(listener.up).toBe(false)
  expect(warn).toHaveBeenCalledTimes(1)
}, 30_000)
