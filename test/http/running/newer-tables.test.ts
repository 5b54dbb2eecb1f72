import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { readConfig } from '../../../src/config.ts'
import type { PalimpsestError } from '../../../src/errors.ts'
import { DEFAULT_LIMITS, type Limits } from '../../../src/gateway.ts'
import { SHARED_SCHEMAS } from '../../../src/server/schemas.ts'
import { startGateway } from '../../../src/server/start.ts'
import { portVersions } from '../../../src/storage/migrate.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import { SchemaWatch } from '../../../src/storage/schema-watch.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'

/** A gateway as `serve` starts it, before a server that holds the model, so that no model is loaded here. */
describe('an old gateway beside newer tables', { timeout: 120_000 }, () => {
  const root = mkdtempSync(join(tmpdir(), 'palimpsest-newer-'))
  const quiet = { info: () => {}, warn: () => {}, error: () => {} }
  const upstream = createServer((_, res) => {
    res.setHeader('content-type', 'application/json')
    res.end(JSON.stringify({ object: 'list', data: [{ id: 'm', object: 'model' }] }))
  })
  let server: PostgresServer
  beforeAll(async () => {
    server = await startPostgres({ fsync: 'off' })
    upstream.listen(0, '127.0.0.1')
    mkdirSync(join(root, 'edits'))
  }, 120_000)
  afterAll(async () => {
    upstream.close()
    await server.remove()
    rmSync(root, { recursive: true, force: true })
  }, 60_000)

  const start = (database: string, closing: AbortController) => {
    const flags = {
      ...{ database, dataDir: join(root, 'data'), editsDir: join(root, 'edits'), home: root, upstreamModel: 'm' },
      model: `http://127.0.0.1:${(upstream.address() as AddressInfo).port}/v1`,
    }
    const config = readConfig<Limits>({ flags, limits: DEFAULT_LIMITS, env: {}, cwd: root })
    const outdated = vi.fn((why: PalimpsestError) => closing.abort(why))
    const running = startGateway({
      ...{ config, log: quiet, model: 'configured', host: '127.0.0.1', port: 0, watch: false },
      ...{ closing: closing.signal, outdated },
    })
    return { running, outdated }
  }

  test('stops as a whole, says why, and does not start again', async () => {
    const url = await server.database()
    const database = new Postgres({ url, warn: () => {} })
    const closing = new AbortController()
    const { running: starting, outdated } = start(url, closing)
    const running = await starting
    const ready = async () => (await fetch(`${running.url}/readyz`)).status
    expect(await ready()).toBe(200)
    // A port that is not the memory's, of which nobody asks anything just now.
    const raise = "UPDATE schema_versions SET version = 9, oldest_reader = 9 WHERE port = 'handoffs'"
    await database.run('raising', raise)
    await vi.waitFor(() => expect(outdated).toHaveBeenCalledTimes(1), { timeout: 20_000 })
    expect(outdated.mock.calls[0]?.[0].message).toMatch(
      /the tables of handoffs have format 9, and this Palimpsest knows up to 1\. Update Palimpsest on this machine\./,
    )
    expect(await ready()).toBe(503)
    await running.close(0)
    const again = start(url, new AbortController())
    await expect(again.running).rejects.toMatchObject({ code: 'storage_failed', message: expect.stringMatching(/of handoffs/) })
    await database.close()
  })

  test('knows the tables of every port that it prepares', async () => {
    const url = await server.database()
    const database = new Postgres({ url, warn: () => {} })
    const running = await start(url, new AbortController()).running
    await fetch(`${running.url}/v1/responses/none`)
    const known = SHARED_SCHEMAS.map(({ port }) => port)
    for (const { port } of await portVersions(database)) expect(known).toContain(port)
    await running.close(0)
    await database.close()
  })

  test('goes on while the database is away, and beside tables that it can read', async () => {
    const url = await server.database()
    const database = new Postgres({ url, connectTimeoutMs: 500, warn: () => {} })
    const outdated = vi.fn()
    const watch = new SchemaWatch({ database, schemas: SHARED_SCHEMAS, outdated, pollMs: 20 })
    // No tables yet.
    await new Promise((resolve) => setTimeout(resolve, 200))
    const running = await start(url, new AbortController()).running
    await database.run('raising', "UPDATE schema_versions SET version = 9 WHERE port = 'edit log'")
    await running.close(0)
    await server.kill()
    await new Promise((resolve) => setTimeout(resolve, 200))
    await server.start()
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(outdated).not.toHaveBeenCalled()
    await database.run('raising', "UPDATE schema_versions SET oldest_reader = 9 WHERE port = 'edit log'")
    await vi.waitFor(() => expect(outdated).toHaveBeenCalledTimes(1), { timeout: 20_000 })
    await watch.close()
    await database.close()
  })
})
