import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { accessBy, accessByOne, isLoopback } from '../../../src/access/access.ts'
import { Budgets, dayOf } from '../../../src/access/budgets.ts'
import { digestOf, type Key, matches, newToken, parseToken } from '../../../src/access/key.ts'
import type { KeyStore, NewKey } from '../../../src/access/key-store.ts'
import { addKeysCommand } from '../../../src/cli/keys.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import { openAccess, openKeys } from '../../../src/server/access.ts'
import { Database } from '../../../src/storage/database.ts'

const NOON = Date.parse('2026-11-24T12:00:00Z')
const FIELDS: NewKey = { name: 'ci', tenant: 'default', scopes: ['inference'] }

let dir: string
const stores: KeyStore[] = []
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'palimpsest-keys-'))
})
afterEach(() => {
  for (const store of stores.splice(0)) store.close()
  rmSync(dir, { recursive: true, force: true })
})

function open(): KeyStore {
  const store = openKeys(dir)
  stores.push(store)
  return store
}

/** The code of what `work` throws. */
function codeOf(work: () => unknown): string {
  try {
    work()
  } catch (error) {
    if (error instanceof PalimpsestError) return error.code
    throw error
  }
  return 'none'
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

  test('is kept as a hash under a salt of its own, which opens nothing itself', () => {
    const store = open()
    const { key, token } = store.create(FIELDS, NOON)
    const secret = parseToken(token)?.secret ?? ''
    expect(store.identify(token)).toEqual(key)
    const kept = readdirSync(dir).map((name) => readFileSync(join(dir, name)))
    expect(kept.some((bytes) => bytes.includes(key.id))).toBe(true)
    for (const part of [secret, token, Buffer.from(secret, 'base64url')])
      expect(kept.some((bytes) => bytes.includes(part))).toBe(false)
    const [one, other] = [digestOf(secret), digestOf(secret)]
    expect(one.hash.equals(other.hash)).toBe(false)
    expect([matches(secret, one), matches(secret, other), matches(secret, undefined)]).toEqual([true, true, false])
    expect(store.identify(`pk_${key.id}_${one.hash.toString('base64url')}`)).toBeNull()
  })

  test('can be read by its owner only, with the log beside it', () => {
    open().create(FIELDS, NOON)
    for (const name of readdirSync(dir)) expect([name, statSync(join(dir, name)).mode & 0o077]).toEqual([name, 0])
  })

  test('is compared as long where its id is unknown as where its secret is wrong', () => {
    const store = open()
    const { key, token } = store.create(FIELDS, NOON)
    const wrong = { known: `pk_${key.id}_${newToken().secret}`, unknown: newToken().token }
    const times = (sent: string) => {
      const begun = process.hrtime.bigint()
      for (let i = 0; i < 500; i++) expect(store.identify(sent)).toBeNull()
      return Number(process.hrtime.bigint() - begun)
    }
    for (const sent of Object.values(wrong)) times(sent)
    const least = (sent: string) => Math.min(...Array.from({ length: 7 }, () => times(sent)))
    const ratio = least(wrong.unknown) / least(wrong.known)
    // Without the hash of the dummy it is below a half.
    expect(ratio).toBeGreaterThan(0.55)
    expect(ratio).toBeLessThan(1.8)
    expect(store.identify(token)).not.toBeNull()
  })

  test('made, or revoked, by another process counts at the next look', () => {
    const [gateway, command] = [open(), open()]
    const access = accessBy(gateway, 'auto', true, () => NOON)
    expect(access.required()).toBe(false)
    const { key, token } = command.create(FIELDS, NOON)
    expect(access.required()).toBe(true)
    expect(access.identify(token)).toEqual(key)
    command.revoke(key.id, NOON + 5)
    expect(access.identify(token)?.revokedAt).toBe(NOON + 5)
    expect(command.revoke(key.id, NOON + 9).revokedAt).toBe(NOON + 5)
    // The last key's end does not open the gateway.
    expect(access.required()).toBe(true)
  })

  test('is looked up by a bound parameter: whatever is sent, the table stays', () => {
    const store = open()
    const { key, token } = store.create(FIELDS, NOON)
    for (const sent of ["' OR 1=1 --", `pk_${key.id}' OR '1'='1_x`, "pk_0_x'; DROP TABLE keys; --"])
      expect(store.identify(sent)).toBeNull()
    expect(codeOf(() => store.revoke("' OR 1=1 --", NOON))).toBe('invalid_value')
    expect(store.list(0).map(({ revokedAt }) => revokedAt)).toEqual([undefined])
    expect(store.identify(token)).toEqual(key)
  })
})

describe('access', () => {
  test.each([
    ['auto', true, [false, true]],
    ['auto', false, [true, true]],
    ['keys', true, [true, true]],
    ['none', true, [false, false]],
    ['none-anywhere', false, [false, false]],
  ] as const)('%s, on loopback: %s, asks for keys before and after the first is made: %j', (auth, loopback, [before, after]) => {
    const store = open()
    const access = accessBy(store, auth, loopback, () => NOON)
    expect(access.required()).toBe(before)
    store.create(FIELDS, NOON)
    expect(access.required()).toBe(after)
  })

  test('none, where others can reach it, is refused unless it is forced, and then said', () => {
    const said: string[] = []
    const note = (_fields: object, message: string) => void said.push(message)
    const log = { info: note, warn: note, error: note }
    const options = { host: '0.0.0.0', now: () => NOON, log }
    expect(() => openAccess({ auth: 'none', dataDir: dir }, options)).toThrow(/--auth none everybody who reaches 0\.0\.0\.0/)
    openAccess({ auth: 'none-anywhere', dataDir: dir }, options).close()
    openAccess({ auth: 'auto', dataDir: dir }, options).close()
    expect(said).toEqual([expect.stringContaining('everybody who reaches 0.0.0.0'), expect.stringContaining('keys create')])
    for (const host of ['127.0.0.1', '127.8.9.1', '::1', 'localhost']) expect(isLoopback(host)).toBe(true)
    for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.0.0.1.example', 'gateway.local']) expect(isLoopback(host)).toBe(false)
  })

  test('by one token lets in that token alone', () => {
    const { token } = newToken()
    const access = accessByOne(token)
    expect(access.identify(token)?.scopes).toContain('admin')
    expect([access.identify(newToken().token), access.identify('')]).toEqual([null, null])
  })
})

describe('budgets', () => {
  const limited = (store: KeyStore, limits: Partial<NewKey>): Key => store.create({ ...FIELDS, ...limits }, NOON).key
  const begin = (limits: Partial<NewKey>) => {
    const store = open()
    const clock = { now: NOON }
    return { store, clock, key: limited(store, limits), budgets: new Budgets(store, () => clock.now) }
  }

  test('let so many requests through in a minute, and say when the next may come', () => {
    const { clock, key, budgets } = begin({ requestsPerMinute: 6 })
    const through = () =>
      Array.from({ length: 20 }, () => codeOf(() => budgets.request(key))).filter((code) => code === 'none').length
    expect(through()).toBe(6)
    expect(budgets.rates(key)).toEqual({ requests: { limit: 6, remaining: 0, resetMs: 60_000 } })
    expect(() => budgets.request(key)).toThrow(expect.objectContaining({ code: 'rate_limit_exceeded', retryAfterSeconds: 10 }))
    clock.now += 10_000
    expect(through()).toBe(1)
    clock.now += 3_600_000
    expect(through()).toBe(6)
    clock.now -= 3_600_000
    expect(through()).toBe(0)
  })

  test('hold back what requests under way may take, and give back what they did not', () => {
    const { key, budgets } = begin({ tokensPerDay: 100 })
    const first = budgets.reserve(key, 60, 60)
    expect(() => budgets.reserve(key, 60, 60)).toThrow(
      expect.objectContaining({ code: 'rate_limit_exceeded', retryAfterSeconds: 1 }),
    )
    expect(budgets.reserve(key, 10, 60).tokens).toBe(40)
    first.settle(15)
    first.settle(15)
    expect(budgets.rates(key).tokens?.remaining).toBe(45)
    expect(codeOf(() => budgets.reserve(key, 86, 86))).toBe('insufficient_quota')
    expect(() => budgets.reserve(key, 101, 101)).toThrow(
      expect.objectContaining({ code: 'insufficient_quota', retryAfterSeconds: 43_200 }),
    )
  })

  test('begin anew at midnight UTC; what began before counts for the day before', () => {
    const { store, clock, key, budgets } = begin({ tokensPerDay: 100 })
    const late = budgets.reserve(key, 100, 100)
    clock.now = Date.parse('2026-11-25T00:00:00Z')
    expect(budgets.rates(key).tokens).toEqual({ limit: 100, remaining: 100, resetMs: 0 })
    budgets.reserve(key, 30, 30).settle(30)
    late.settle(90)
    expect(budgets.rates(key).tokens?.remaining).toBe(70)
    expect(store.list(dayOf(clock.now))[0]?.tokensUsed).toBe(30)
  })

  test('outlive the process: what was used, and, after a kill, what was set aside', () => {
    const { store, clock, key, budgets } = begin({ tokensPerDay: 100, requestsPerMinute: 2 })
    budgets.request(key)
    budgets.request(key)
    budgets.reserve(key, 50, 50).settle(20)
    budgets.reserve(key, 30, 30)
    const after = new Budgets(open(), () => clock.now)
    expect(after.rates(key)).toMatchObject({ requests: { remaining: 0 }, tokens: { remaining: 50 } })
    expect(store.list(dayOf(NOON))[0]?.tokensUsed).toBe(50)
  })

  describe('whose store fails', () => {
    beforeEach(() => {
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    })
    afterEach(() => {
      vi.useRealTimers()
    })
    const failing = () => {
      const { store, key } = begin({ tokensPerDay: 100, requestsPerMinute: 60 })
      const state = { broken: false, tried: 0 }
      const warned: string[] = []
      const fails = {
        usage: (id: string) => store.usage(id),
        saveUsage: (...saved: Parameters<KeyStore['saveUsage']>) => {
          state.tried++
          if (state.broken) throw new PalimpsestError('storage_full', 'the disk is full')
          store.saveUsage(...saved)
        },
      }
      return {
        store,
        key,
        state,
        warned,
        budgets: new Budgets(
          fails,
          () => NOON,
          (message) => void warned.push(message),
        ),
      }
    }
    const kept = (store: KeyStore, { id }: Key) => store.usage(id)?.tokens

    test('count what was used in memory meanwhile, and write it later', () => {
      const { store, key, state, warned, budgets } = failing()
      const under = budgets.reserve(key, 1, 60)
      state.broken = true
      expect(() => under.settle(20)).not.toThrow()
      expect(budgets.rates(key).tokens?.remaining).toBe(80)
      expect(kept(store, key)).toBe(60)
      vi.advanceTimersByTime(5_000)
      expect([kept(store, key), warned.length > 0]).toEqual([60, true])
      state.broken = false
      vi.advanceTimersByTime(1_000)
      expect(kept(store, key)).toBe(20)
      const { tried } = state
      vi.advanceTimersByTime(60_000)
      expect(state.tried).toBe(tried)
    })

    test('refuse a request that they can’t write, set nothing aside for it, and leave the store alone for a while', () => {
      const { key, state, budgets } = failing()
      state.broken = true
      for (let i = 0; i < 50; i++) {
        expect(codeOf(() => budgets.request(key))).toBe('storage_full')
        expect(codeOf(() => budgets.reserve(key, 1, 100))).toBe('storage_full')
      }
      expect(state.tried).toBe(1)
      expect(budgets.rates(key)).toMatchObject({ requests: { remaining: 60 }, tokens: { remaining: 100 } })
      state.broken = false
      vi.advanceTimersByTime(300)
      expect(budgets.reserve(key, 1, 100).tokens).toBe(100)
    })

    test('count all that was set aside where what was used is no number of tokens', () => {
      const { store, key, budgets } = failing()
      for (const [used, left] of [
        [Number.NaN, 90],
        [-5, 80],
        [0.5, 70],
        [Number.POSITIVE_INFINITY, 60],
      ] as const) {
        budgets.reserve(key, 1, 10).settle(used)
        expect(budgets.rates(key).tokens?.remaining).toBe(left)
      }
      budgets.reserve(key, 1, 10).settle(Number.MAX_SAFE_INTEGER)
      expect(kept(store, key)).toBe(Number.MAX_SAFE_INTEGER)
    })
  })

  test('wait for a locked file for no time that anybody notices, and settle when it is free', async () => {
    const { access, close } = openAccess(
      { auth: 'keys', dataDir: dir },
      { host: '127.0.0.1', now: () => NOON, log: { info: () => {}, warn: () => {}, error: () => {} } },
    )
    const { key } = open().create({ ...FIELDS, tokensPerDay: 100 }, NOON)
    const under = access.budgets.reserve(key, 1, 60)
    const other = new Database(join(dir, 'keys.db'))
    other.exec('BEGIN IMMEDIATE')
    const began = performance.now()
    under.settle(20)
    expect(performance.now() - began).toBeLessThan(1_000)
    other.exec('ROLLBACK')
    other.close()
    await vi.waitFor(() => expect(open().usage(key.id)?.tokens).toBe(20), { timeout: 5_000 })
    close()
  })

  test('are none for a key without limits, which writes nothing', () => {
    const { store, key, budgets } = begin({})
    budgets.request(key)
    expect(budgets.reserve(key, 1, 1e12).tokens).toBe(1e12)
    expect([budgets.rates(key), store.usage(key.id)]).toEqual([{}, undefined])
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
    const key = open().identify(out.trim())
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
    expect(open().any()).toBe(false)
  })
})
