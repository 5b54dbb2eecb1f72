import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { accessBy } from '../../../src/access/access.ts'
import { KeyStore } from '../../../src/access/key-store.ts'
import { importData } from '../../../src/backup/data-import.ts'
import { client } from '../../../src/cli/client/client.ts'
import { openKeys } from '../../../src/server/access.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { databases } from '../../support/databases/databases.ts'
import { fakeEmbedder } from '../../support/memory-fixture.ts'
import { MODEL, type Served, serve } from '../fakes.ts'
import { BASE, modelOf } from '../handoff/handoff-fakes.ts'

const closers: (() => Promise<unknown>)[] = []
const closeAll = async () => {
  for (const close of closers.splice(0).reverse()) await close()
}
afterEach(closeAll)

const warn = () => {}
const FACTS = Array.from({ length: 5 }, (_, i) => ({
  ...{ id: `e${i}`, subject: `Person ${i}`, prompt: `Person ${i} works for`, target_new: `Firm ${i}`, target_true: `Old ${i}` },
  ...{ paraphrases: [`The employer of Person ${i} is`], tags: ['staff'] },
}))
const RULE = { id: 'lawyer', instruction: 'For legal advice, refer to a lawyer.', always: true }
const USERS = 8

// biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
type Call = (method: string, path: string, body?: unknown) => Promise<any>

interface Started {
  /** As the holder of the token. */
  as(token: string): Call
  readonly served: Served
  readonly keys: KeyStore
  readonly embedded: readonly string[]
}

/** A gateway over the folder, or over the database with that folder beside it. */
async function gateway(dataDir: string, database?: SqlDatabase): Promise<Started> {
  const keys = database === undefined ? await openKeys(dataDir) : await KeyStore.open(database)
  if (database === undefined) closers.push(() => keys.database.close())
  const access = await accessBy(keys, 'keys', true, Date.now, warn)
  closers.push(() => access.close())
  const embedder = fakeEmbedder()
  const served = await serve({
    ...{ engine: modelOf('base.gguf'), embedder, dataDir, keepFolder: true, gateway: { access } },
    ...(database && { database }),
  })
  closers.push(() => served.close())
  const as =
    (token: string): Call =>
    (method, path, body) =>
      client(served.base, { key: token }, null).json(method, path, body)
  return { as, served, keys, embedded: embedder.asked }
}

const chat = (call: Call, content: string, user?: string, model = MODEL) =>
  call('POST', '/v1/chat/completions', { model, messages: [{ role: 'user', content }], ...(user && { user }) })

/** All that a client can ask of what was said before. */
async function everything({ as, keys }: Started, admin: string) {
  const call = as(admin)
  const answers = []
  for (const content of ['Person 3 works for', 'What of Person 1?', 'Person 4 works for']) {
    for (const model of [`${MODEL}@base`, `${MODEL}@edited`, `${MODEL}@adapter:one`]) {
      const { choices, palimpsest } = await chat(call, content, undefined, model)
      answers.push([choices[0].message.content, palimpsest.edits, palimpsest.memory_version])
    }
  }
  const arms = []
  for (let user = 0; user < USERS; user++) arms.push((await chat(call, 'Person 3 works for', `u${user}`)).palimpsest.experiment)
  const paths = [
    ...['/v1/edits?limit=100', '/v1/edits/e4', '/v1/edits/lawyer', '/v1/batches'],
    ...['/v1/experiments', '/v1/experiments/old'],
  ]
  const read = []
  for (const path of paths) read.push(await call('GET', path))
  const { data } = await call('GET', '/v1/adapters')
  const adapters = data.map(({ loaded: _, ...adapter }: { loaded: boolean }) => adapter)
  const { memory } = await call('GET', '/health')
  return { answers, arms, read, adapters, version: memory.version, keys: await keys.list(Date.now()) }
}

describe('a folder that is moved into PostgreSQL', { timeout: 240_000 }, () => {
  const { open, again } = databases('postgres')

  test('answers all that it answered, from any gateway, and goes on from there', async () => {
    const root = mkdtempSync(join(tmpdir(), 'palimpsest-import-'))
    closers.push(async () => rmSync(root, { recursive: true, force: true }))
    const dataDir = join(root, 'data')
    const before = await gateway(dataDir)
    const day = Date.now()
    const { token: admin } = await before.keys.create({ name: 'a', tenant: null, scopes: ['admin', 'edits', 'inference'] }, day)
    const limits = { requestsPerMinute: 1_000, tokensPerDay: 100_000 }
    const { token: limited } = await before.keys.create(
      { name: 'b', tenant: 'default', scopes: ['inference'], ...limits },
      day + 1,
    )
    const { key: gone, token: revoked } = await before.keys.create(
      { name: 'c', tenant: 'default', scopes: ['inference'] },
      day + 2,
    )
    await before.keys.revoke(gone.id, day + 3)
    const call = before.as(admin)
    await call('POST', '/v1/edits', FACTS)
    await call('POST', '/v1/edits', [RULE])
    await call('POST', '/v1/edits', [{ ...FACTS[3], target_new: 'Firm thirty' }])
    await call('POST', '/v1/edits/e4/withdraw')
    await call('POST', '/v1/experiments', { id: 'old' })
    const exposed = await chat(call, 'Person 3 works for', 'u0')
    await call('POST', '/v1/feedback', { completion_id: exposed.id, id: 'x', score: 1 })
    await call('POST', '/v1/experiments/old/stop')
    await call('POST', '/v1/experiments', { id: 'x', coverage: 1 })
    for (let user = 0; user < USERS; user++) await chat(call, 'Person 3 works for', `u${user}`)
    await chat(before.as(limited), 'Hello')
    const response = await call('POST', '/v1/responses', { model: MODEL, input: 'Hello' })
    const taught = [{ prompt: 'Person 3 works for', paraphrases: [], target: 'Firm 3' }]
    writeFileSync(join(dataDir, 'one.gguf'), JSON.stringify(taught))
    await call('POST', '/v1/adapters', { id: 'one', path: 'one.gguf', base_sha256: BASE, method: 'memit', edits: ['e3'] })
    // The bucket of a minute fills up meanwhile; days do not, unless this runs at midnight.
    const then = await everything(before, admin)
    const rates = await before.keys.list(Date.now())
    expect(rates.find(({ name }) => name === 'b')?.tokensUsed).toBeGreaterThan(0)
    expect(new Set(then.arms.map(({ arm }: { arm: string }) => arm)).size).toBe(2)
    await before.served.gateway.memory.indexed()

    const database = await open()
    const moving = { dataDir, database, now: Date.now, warn }
    await expect(importData(moving)).rejects.toMatchObject({ code: 'folder_in_use' })
    const folder = closers.shift()
    await closeAll()
    closers.push(folder ?? (async () => {}))
    const { moved, left } = await importData(moving)
    expect(left).toEqual([])
    expect(Object.fromEntries(moved)).toMatchObject({
      log: then.version,
      experiments: 2,
      keys: 3,
      usage: 1,
      adapters: 1,
    })

    const [one, two] = [await gateway(join(root, 'one'), database), await gateway(join(root, 'two'), again(database))]
    for (const node of [one, two]) {
      expect(node.embedded).toEqual([])
      expect(await everything(node, admin)).toEqual(then)
    }
    await expect(one.as(revoked)('GET', '/v1/models')).rejects.toMatchObject({ code: 'invalid_api_key' })
    // A gateway over a folder keeps responses in memory only, so a restart forgets them, and so does a move.
    await expect(one.as(admin)('GET', `/v1/responses/${response.id}`)).rejects.toThrow(/is not kept, or not any more/)

    const landed = await one.as(admin)('POST', '/v1/edits', [{ id: 'e10', text: 'Our office is in Lund.' }])
    expect(landed.palimpsest.memory_version).toBe(then.version + 1)
    await one.as(admin)('POST', '/v1/edits/e4/restore')
    await vi.waitFor(async () => expect((await two.as(admin)('GET', '/v1/edits/e4')).state).toBe('live'), { timeout: 10_000 })
    await one.as(admin)('POST', '/v1/experiments/x/stop')
    await one.as(admin)('POST', '/v1/experiments', { id: 'next' })
    expect((await one.as(admin)('GET', '/v1/experiments')).data.map(({ id }: { id: string }) => id)).toContain('next')
    await chat(two.as(limited), 'Hello')
    const used = (list: typeof rates) => list.find(({ name }) => name === 'b')?.tokensUsed ?? 0
    await vi.waitFor(async () => expect(used(await two.keys.list(Date.now()))).toBe(2 * used(rates)), { timeout: 10_000 })
  })
})
