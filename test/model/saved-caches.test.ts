import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openRuntime, type Runtime } from '../../src/engine/embedded/runtime.ts'
import type { Engine } from '../../src/engine/engine.ts'
import { Trace } from '../../src/trace.ts'
import { MODELS, needing } from '../needs.ts'

const MODEL =
  process.env.PALIMPSEST_TEST_MODEL ??
  join(homedir(), '.cache', 'palimpsest', 'models', 'qwen2.5-coder-0.5b-instruct-q4_k_m.gguf')
const THREADS = Number(process.env.PALIMPSEST_TEST_THREADS ?? 1)

const long = (about: string) => `${`${about} is a city on a river. `.repeat(40)}Which city is meant?`

needing(existsSync(MODEL), MODELS)('caches of conversations that lost their slot', { timeout: 240_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-caches-'))
  const said: string[] = []
  let runtime: Runtime
  let engine: Engine
  const open = (limitBytes: number) =>
    runtime.openChat({
      modelPath: MODEL,
      name: 'test',
      contextTokens: 1024,
      slots: 1,
      savedCaches: { dir, limitBytes },
      sha256: 'x',
    })
  const ask = async (content: string, seed?: number) => {
    const trace = new Trace('t', () => performance.now())
    const sampling = { temperature: 0, topP: 1, stop: [], maxTokens: 8, ...(seed !== undefined && { seed }) }
    const pieces = engine.generate({ messages: [{ role: 'user', content }] }, sampling, trace, new AbortController().signal)
    let text = ''
    for (;;) {
      const { value, done } = await pieces.next()
      if (done) return { text, cached: trace.tokensCached }
      text += value.text
    }
  }
  const states = () => readdirSync(dir).filter((name) => !name.includes('.'))

  beforeAll(async () => {
    runtime = await openRuntime({
      threads: THREADS,
      gpu: false,
      log: (level, message) => void (level === 'warn' && said.push(message)),
    })
    engine = await open(1e9)
  }, 120_000)
  afterAll(async () => {
    await engine?.close(0)
    await runtime?.dispose()
    rmSync(dir, { recursive: true, force: true })
  }, 60_000)

  it('come back from the disk, to the same answer, seeded or not, and over a restart', async () => {
    const first = await ask(long('Lyon'), 1)
    expect(first.cached).toBe(0)
    const other = await ask(long('Turin'))
    expect(other.cached).toBeLessThan(64)
    expect(states()).toHaveLength(1)
    expect(statSync(dir).mode & 0o077).toBe(0)
    const back = await ask(long('Lyon'), 1)
    expect(back.cached).toBeGreaterThan(256)
    expect(back.text).toBe(first.text)
    await engine.close(0)
    engine = await open(1e9)
    const again = await ask(long('Turin'))
    expect(again.cached).toBeGreaterThan(256)
    expect(again.text).toBe(other.text)
    expect((await ask(long('Lyon'), 1)).text).toBe(first.text)
  })

  it('are removed and told where damaged, and the answer is the same', async () => {
    const before = await ask(long('Turin'))
    await ask(long('Oslo'))
    for (const name of states()) {
      const bytes = readFileSync(join(dir, name))
      bytes.writeUInt8((bytes[5000] ?? 0) ^ 1, 5000)
      writeFileSync(join(dir, name), bytes)
    }
    said.length = 0
    const after = await ask(long('Turin'))
    expect(after.cached).toBeLessThan(64)
    expect(after.text).toBe(before.text)
    expect(said).toEqual([expect.stringMatching(/removed: its checksum/)])
    writeFileSync(join(dir, 'junk.json'), '{')
    await engine.close(0)
    engine = await open(1e9)
    expect(readdirSync(dir)).not.toContain('junk.json')
  })

  it('stay within their bytes', async () => {
    await engine.close(0)
    const most = 12e6
    engine = await open(most)
    for (const city of ['Bern', 'Rome', 'Kyiv']) await ask(long(city))
    expect(states().reduce((sum, name) => sum + statSync(join(dir, name)).size, 0)).toBeLessThanOrEqual(most)
  })
})
