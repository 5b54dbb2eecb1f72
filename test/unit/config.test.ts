import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { flagOf, readConfig } from '../../src/config.ts'

const LIMITS = { messages: 10, chatBodyBytes: 1_000, defaultTemperature: 0 } as const

let cwd: string
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'palimpsest-config-'))
})
afterEach(() => rmSync(cwd, { recursive: true, force: true }))

const read = (flags: Record<string, unknown> = {}, env: Record<string, string> = {}) =>
  readConfig({ flags, env, cwd, limits: LIMITS, platform: 'linux' })
const file = (name: string, content: string) => writeFileSync(join(cwd, name), content)

describe('readConfig', () => {
  it('has a default for everything, with absolute paths, and cannot be changed', () => {
    const config = read({}, { XDG_CACHE_HOME: '/cache' })
    expect(config).toMatchObject({
      host: '127.0.0.1',
      port: 8080,
      home: '/cache/palimpsest',
      dataDir: join(cwd, '.data'),
      editsDir: join(cwd, 'edits'),
      threads: availableParallelism(),
      watch: true,
      file: null,
      limits: LIMITS,
    })
    expect(Object.isFrozen(config) && Object.isFrozen(config.limits)).toBe(true)
  })

  it('takes a flag before the environment, that before the file, that before the default', () => {
    file('palimpsest.config.json', '{"port": 1, "slots": 3, "queueLimit": 5}')
    const config = read({ port: '9' }, { PALIMPSEST_PORT: '2', PORT: '4', PALIMPSEST_SLOTS: '6' })
    expect([config.port, config.slots, config.queueLimit, config.contextTokens]).toEqual([9, 6, 5, 4096])
    expect(read({}, { PALIMPSEST_PORT: '2', PORT: '4' }).port).toBe(2)
    expect(read({}, { PORT: '4' }).port).toBe(4)
    expect(read().port).toBe(1)
  })

  it('reads YAML, sizes, switches, lists and limits', () => {
    file('palimpsest.config.yaml', 'embedCacheBytes: 64MiB\nwatch: false\nlimits:\n  chatBodyBytes: 2KB\n')
    const config = read({}, { PALIMPSEST_HOSTS: 'a.example, b.example', PALIMPSEST_DEFAULT_TEMPERATURE: '0.7' })
    expect(config).toMatchObject({ embedCacheBytes: 64 * 1024 * 1024, watch: false, hosts: ['a.example', 'b.example'] })
    expect(config.limits).toEqual({ messages: 10, chatBodyBytes: 2048, defaultTemperature: 0.7 })
  })

  it('reads several servers from a flag or a file, with weights and keys', () => {
    expect(read({ upstreams: 'http://a:8000*3, https://b/v1' }).upstreams).toEqual([
      { url: 'http://a:8000', weight: 3 },
      { url: 'https://b/v1' },
    ])
    file('palimpsest.config.yaml', 'upstreams:\n  - url: http://a:8000\n    key: k\n    model: m\n  - http://b:1*0.5\n')
    expect(read().upstreams).toEqual([
      { url: 'http://a:8000', key: 'k', model: 'm' },
      { url: 'http://b:1', weight: 0.5 },
    ])
    for (const wrong of ['ftp://a', 'http://a*0', [{ url: 'http://a', wait: 1 }], 7])
      expect(() => read({ upstreams: wrong })).toThrow('--upstreams')
  })

  it('takes an empty variable for an absent one', () => {
    expect(read({}, { PORT: '', PALIMPSEST_MODEL: '' })).toMatchObject({ port: 8080, model: undefined })
  })

  it.each([
    ['a flag', { port: '80800' }, {}, 'Expected --port to be a whole number from 0 to 65535, got "80800".'],
    ['a variable', {}, { PORT: 'http' }, 'Expected PORT to be a whole number from 0 to 65535, got "http".'],
    ['a choice', { gpu: 'nvidia' }, {}, 'Expected --gpu to be one of auto, off, cuda, metal, vulkan, got "nvidia".'],
    [
      'an unknown variable',
      {},
      { PALIMPSEST_THREAD: '2' },
      'Unknown environment variable `PALIMPSEST_THREAD`; did you mean `PALIMPSEST_THREADS`?',
    ],
  ])('names %s at fault', (_what, flags, env, message) => {
    expect(() => read(flags, env as Record<string, string>)).toThrow(message)
  })

  it.each([
    ['an unknown key', '{"prot": 1}', /palimpsest\.config\.json: unknown field `prot`; did you mean `port`\?/],
    ['an unknown limit', '{"limits": {"mesages": 1}}', /unknown field `mesages`; did you mean `messages`\? \(under `limits`\)/],
    [
      'a wrong value',
      '{"threads": "many"}',
      /Expected `threads` in .*palimpsest\.config\.json to be a whole number from 1 to 1024, got "many"/,
    ],
    ['broken JSON', '{"port": ', /palimpsest\.config\.json can't be read/],
    ['something else', '[1]', /to hold an object of settings/],
  ])('names %s in the file', (_what, content, message) => {
    file('palimpsest.config.json', content)
    expect(() => read()).toThrow(message)
  })

  it('refuses two files', () => {
    file('palimpsest.config.json', '{}')
    file('palimpsest.config.yml', '')
    expect(() => read()).toThrow(/two configuration files/)
  })
})

describe('flagOf', () => {
  it('spells flags, switches and settings that have none', () => {
    expect(flagOf('dataDir')?.flags).toBe('--data-dir <folder>')
    expect(flagOf('watch')?.flags).toBe('--no-watch')
    expect(flagOf('upstreamKey')).toBeNull()
  })
})

it('the database has the name in the environment that other programs give it, too', () => {
  const url = 'postgres://u@h/n'
  expect(readConfig({ flags: {}, limits: {}, env: { PALIMPSEST_DATABASE_URL: url }, cwd: '/' }).database).toBe(url)
  expect(readConfig({ flags: {}, limits: {}, env: { PALIMPSEST_DATABASE: url }, cwd: '/' }).database).toBe(url)
})
