import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { accessBy, accessByOne, isLoopback } from '../../../src/access/access.ts'
import { SharedBudgets } from '../../../src/access/budgets.ts'
import { dayOf } from '../../../src/access/day.ts'
import { digestOf, type Key, matches, newToken, parseToken } from '../../../src/access/key.ts'
import type { KeyStore, NewKey } from '../../../src/access/key-store.ts'
import { KeyView } from '../../../src/access/key-view.ts'
import { addKeysCommand } from '../../../src/cli/keys.ts'
import { openAccess, openKeys } from '../../../src/server/access.ts'
import { Database } from '../../../src/storage/database.ts'

const NOON = Date.parse('2026-11-24T12:00:00Z')
const FIELDS: NewKey = { name: 'ci', tenant: 'default', scopes: ['inference'] }

let dir: string
const opened: { close(): Promise<void> }[] = []
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'palimpsest-keys-'))
})
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
  rmSync(dir, { recursive: true, force: true })
})

async function open(): Promise<KeyStore> {
  const store = await openKeys(dir)
  opened.push(store.database)
  return store
}

async function view(store: KeyStore): Promise<KeyView> {
  const keys = await KeyView.open(store)
  opened.push(keys)
  return keys
}

describe('a key', () => {
  test('has 256 random bits, and is known by them alone', () => {
    const tokens = new Set(Array.from({ length: 1_000 }, () => newToken().token))
    expect(tokens.size).toBe(1_000)
    const { secret, token } = newToken()
    expect(Buffer.from(secret, 'base64url')).toHaveLength(32)
    expect(parseToken(token)?.secret).toBe(secret)
    for (const wrong of ['', 'pk_', token.slice(0, -1), `${token}A`, token.toUpperCase(), ` ${token}`, `${token}\n`, 'sk-abc'])
      expect(parseToken(wrong)).toBeNull()
  })

  test('is kept as a hash under a salt of its own, which opens nothing itself', async () => {
    const store = await open()
    const { key, token } = await store.create(FIELDS, NOON)
    const keys = await view(store)
    const secret = parseToken(token)?.secret ?? ''
    expect(await keys.identify(token)).toEqual(key)
    const kept = readdirSync(dir).map((name) => readFileSync(join(dir, name)))
    expect(kept.some((bytes) => bytes.includes(key.id))).toBe(true)
    for (const part of [secret, token, Buffer.from(secret, 'base64url')])
      expect(kept.some((bytes) => bytes.includes(part))).toBe(false)
    const [one, other] = [digestOf(secret), digestOf(secret)]
    expect(one.hash.equals(other.hash)).toBe(false)
    expect([matches(secret, one), matches(secret, other), matches(secret, undefined)]).toEqual([true, true, false])
    expect(await keys.identify(`pk_${key.id}_${one.hash.toString('base64url')}`)).toBeNull()
  })

  test('can be read by its owner only, with the log beside it', async () => {
    await (await open()).create(FIELDS, NOON)
    for (const name of readdirSync(dir)) expect([name, statSync(join(dir, name)).mode & 0o077]).toEqual([name, 0])
  })

  test('is compared as long where its id is unknown as where its secret is wrong', async () => {
    const store = await open()
    const { key, token } = await store.create(FIELDS, NOON)
    const keys = await view(store)
    const wrong = { known: `pk_${key.id}_${newToken().secret}`, unknown: newToken().token }
    const times = async (sent: string) => {
      const begun = process.hrtime.bigint()
      for (let i = 0; i < 500; i++) expect(await keys.identify(sent)).toBeNull()
      return Number(process.hrtime.bigint() - begun)
    }
    for (const sent of Object.values(wrong)) await times(sent)
    const least = async (sent: string) => {
      let best = Number.POSITIVE_INFINITY
      for (let i = 0; i < 7; i++) best = Math.min(best, await times(sent))
      return best
    }
    const ratio = (await least(wrong.unknown)) / (await least(wrong.known))
    // Without the hash of the dummy it is below a half.
    expect(ratio).toBeGreaterThan(0.55)
    expect(ratio).toBeLessThan(1.8)
    expect(await keys.identify(token)).not.toBeNull()
  })

  test('made, or revoked, by another process counts at the next look', async () => {
    const [gateway, command] = [await open(), await open()]
    const access = await accessBy(gateway, 'auto', true, () => NOON)
    opened.push(access)
    const required = async () => {
      await access.current()
      return access.required()
    }
    expect(await required()).toBe(false)
    const { key, token } = await command.create(FIELDS, NOON)
    expect(await required()).toBe(true)
    expect(await access.identify(token)).toEqual(key)
    await command.revoke(key.id, NOON + 5)
    await access.current()
    expect((await access.identify(token))?.revokedAt).toBe(NOON + 5)
    expect((await command.revoke(key.id, NOON + 9)).revokedAt).toBe(NOON + 5)
    // The last key's end does not open the gateway.
    expect(await required()).toBe(true)
  })

  test('is looked up by a bound parameter: whatever is sent, the table stays', async () => {
    const store = await open()
    const { key, token } = await store.create(FIELDS, NOON)
    const keys = await view(store)
    for (const sent of ["' OR 1=1 --", `pk_${key.id}' OR '1'='1_x`, "pk_0_x'; DROP TABLE keys; --"])
      expect(await keys.identify(sent)).toBeNull()
    await expect(store.revoke("' OR 1=1 --", NOON)).rejects.toMatchObject({ code: 'invalid_value' })
    expect((await store.list(NOON)).map(({ revokedAt }) => revokedAt)).toEqual([undefined])
    expect(await keys.identify(token)).toEqual(key)
  })

  test('of a file made before files had versions works on, and what an older command line changes is seen', async () => {
    const old = new Database(join(dir, 'keys.db'))
    old.exec(`
      CREATE TABLE keys (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant TEXT, scopes TEXT NOT NULL, requests_per_minute INTEGER, tokens_per_day INTEGER,
        created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER, salt BLOB NOT NULL, hash BLOB NOT NULL
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE usage (
        key TEXT PRIMARY KEY, bucket REAL NOT NULL, bucket_at REAL NOT NULL, day INTEGER NOT NULL, tokens INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
    `)
    const make = () => {
      const { id, secret, token } = newToken()
      const { salt, hash } = digestOf(secret)
      old
        .prepare('INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)')
        .run(id, 'old', 'default', 'inference', null, 1_000, NOON, null, salt, hash)
      return { id, token }
    }
    const first = make()
    old
      .prepare('INSERT INTO usage (key, bucket, bucket_at, day, tokens) VALUES (?, ?, ?, ?, ?)')
      .run(first.id, 0, NOON, dayOf(NOON), 600)
    const store = await open()
    const keys = await view(store)
    const key = await keys.identify(first.token)
    expect(key).toMatchObject({ id: first.id, name: 'old', tokensPerDay: 1_000 })
    const budgets = new SharedBudgets(store.database, () => NOON)
    const taken = await budgets.take(key as Key, { request: true, tokens: { least: 1, most: 9_000 } })
    expect([taken.refused, taken.tokens]).toEqual([null, 400])
    const second = make()
    old.prepare('UPDATE keys SET revoked_at = ? WHERE id = ?').run(NOON, first.id)
    await keys.current()
    expect([(await keys.identify(first.token))?.revokedAt, (await keys.identify(second.token))?.name]).toEqual([NOON, 'old'])
    old.close()
  })
})

describe('access', () => {
  test.each([
    ['auto', true, [false, true]],
    ['auto', false, [true, true]],
    ['keys', true, [true, true]],
    ['none', true, [false, false]],
    ['none-anywhere', false, [false, false]],
  ] as const)(
    '%s, on loopback: %s, asks for keys before and after the first is made: %j',
    async (auth, loopback, [before, after]) => {
      const store = await open()
      const access = await accessBy(store, auth, loopback, () => NOON)
      opened.push(access)
      expect(access.required()).toBe(before)
      await store.create(FIELDS, NOON)
      await access.current()
      expect(access.required()).toBe(after)
    },
  )

  test('none, where others can reach it, is refused unless it is forced, and then said', async () => {
    const said: string[] = []
    const note = (_fields: object, message: string) => void said.push(message)
    const log = { info: note, warn: note, error: note }
    const options = { host: '0.0.0.0', now: () => NOON, log }
    await expect(openAccess({ auth: 'none', dataDir: dir }, options)).rejects.toThrow(
      /--auth none everybody who reaches 0\.0\.0\.0/,
    )
    await (await openAccess({ auth: 'none-anywhere', dataDir: dir }, options)).close()
    await (await openAccess({ auth: 'auto', dataDir: dir }, options)).close()
    expect(said).toEqual([expect.stringContaining('everybody who reaches 0.0.0.0'), expect.stringContaining('keys create')])
    for (const host of ['127.0.0.1', '127.8.9.1', '::1', 'localhost']) expect(isLoopback(host)).toBe(true)
    for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.0.0.1.example', 'gateway.local']) expect(isLoopback(host)).toBe(false)
  })

  test('by one token lets in that token alone', async () => {
    const { token } = newToken()
    const access = accessByOne(token)
    expect((await access.identify(token))?.scopes).toContain('admin')
    expect([await access.identify(newToken().token), await access.identify('')]).toEqual([null, null])
  })
})

describe('palimpsest keys', () => {
  async function run(...args: string[]): Promise<{ out: string; note: string }> {
    const said = { out: '', note: '' }
    const into = (stream: 'out' | 'note') => (text: unknown) => {
      said[stream] += text
      return true
    }
    const out = vi.spyOn(process.stdout, 'write').mockImplementation(into('out'))
    const note = vi.spyOn(process.stderr, 'write').mockImplementation(into('note'))
    const program = new Command('palimpsest').exitOverride()
    addKeysCommand(program)
    try {
      await program.parseAsync(['node', 'palimpsest', 'keys', ...args, '--data-dir', dir])
    } finally {
      out.mockRestore()
      note.mockRestore()
    }
    return said
  }

  test('makes a key, shows it once, lists it without its secret, and revokes it', async () => {
    const limits = ['--requests-per-minute', '60', '--tokens-per-day', '5000', '--expires', '30d']
    const { out, note } = await run('create', '--name', 'ci', '--tenant', 'acme', '--scope', 'inference,edits', ...limits)
    const key = await (await view(await open())).identify(out.trim())
    expect(key).toMatchObject({
      name: 'ci',
      tenant: 'acme',
      scopes: ['inference', 'edits'],
      requestsPerMinute: 60,
      tokensPerDay: 5_000,
    })
    expect((key?.expiresAt ?? 0) - Date.now()).toBeGreaterThan(29.9 * 86_400_000)
    expect(note).toContain(key?.id)
    const { out: listed } = await run('list')
    expect(listed).toMatch(new RegExp(`${key?.id}  ci +acme +inference,edits +live +60 +5,000 +0 `))
    expect(listed + note).not.toContain(parseToken(out.trim())?.secret)
    await run('revoke', key?.id ?? '')
    expect(JSON.parse((await run('list', '--json')).out)).toMatchObject({ data: [{ id: key?.id, state: 'revoked' }] })
  })

  test('gives the scope admin to no tenant’s key, and the default tenant to others', async () => {
    const { out } = await run('create', '--name', 'all', '--scope', 'admin,edits', '--json')
    expect(JSON.parse(out)).toMatchObject({ tenant: null, scopes: ['admin', 'edits'], token: expect.stringMatching(/^pk_/) })
    expect(JSON.parse((await run('create', '--name', 'one', '--json')).out)).toMatchObject({
      tenant: 'default',
      scopes: ['inference'],
    })
    await expect(run('create', '--name', 'x', '--scope', 'admin', '--tenant', 'acme')).rejects.toThrow(/may name any tenant/)
  })

  test.each([
    [['--scope', 'root'], /--scope to be inference, edits, admin/],
    [['--tenant', 'a b'], /--tenant to be 1 to 64/],
    [['--tokens-per-day', '0'], /--tokens-per-day to be a whole number above 0/],
    [['--requests-per-minute', 'many'], /--requests-per-minute/],
    [['--expires', 'soon'], /--expires: .*ISO 8601.*30d/],
    [['--expires', '2020-01-01'], /is over already/],
  ])('refuses %j', async (args, words) => {
    await expect(run('create', '--name', 'x', ...args)).rejects.toThrow(words)
    expect(await (await open()).list(NOON)).toEqual([])
  })
})
