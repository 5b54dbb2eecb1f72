import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openRuntime, type Runtime } from '../../src/engine/embedded/runtime.ts'
import type { Engine, Lora } from '../../src/engine/engine.ts'
import { hasServer, serverPath } from '../../src/engine/llama-server/build.ts'
import type { Sampling } from '../../src/request.ts'
import { Trace } from '../../src/trace.ts'
import { MODELS, needing, SERVER } from '../needs.ts'
import { loraBytes, loraFor } from '../support/lora-file.ts'

const HOME = join(homedir(), '.cache', 'palimpsest')
const MODEL = process.env.PALIMPSEST_TEST_MODEL ?? join(HOME, 'models', 'qwen2.5-coder-0.5b-instruct-q4_k_m.gguf')
const THREADS = Number(process.env.PALIMPSEST_TEST_THREADS ?? 1)
const able = existsSync(MODEL)
const serves = able && process.platform !== 'win32' && hasServer(HOME)

const QUESTIONS = ['Write one line of a poem about the sea.', 'Name three animals that live in the sea.']
/** As much as shows in the words, and not so much that only noise is left. */
const STRENGTH = 0.2
const folder = mkdtempSync(join(tmpdir(), 'palimpsest-adapters-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

async function made(id: string, seed: number): Promise<Lora> {
  const bytes = await loraFor(MODEL, seed, STRENGTH)
  const path = join(folder, `${id}.gguf`)
  writeFileSync(path, bytes)
  return { id, path, bytes: bytes.length, scale: 1, sha256: createHash('sha256').update(bytes).digest('hex') }
}

interface Answer {
  readonly text: string
  readonly cached: number
}

async function ask(engine: Engine, content: string, lora?: Lora, sampling: Partial<Sampling> = {}): Promise<Answer> {
  const trace = new Trace('t', () => performance.now())
  const prompt = { messages: [{ role: 'user' as const, content }], ...(lora && { lora }) }
  const settings = { temperature: 0, topP: 1, stop: [], maxTokens: 12, ...sampling }
  const pieces = engine.generate(prompt, settings, trace, new AbortController().signal)
  let text = ''
  for (;;) {
    const { value, done } = await pieces.next()
    if (done) return { text, cached: trace.tokensCached }
    text += value.text
  }
}

const kinds = [
  ['the embedded engine', able, (runtime: Runtime) => runtime.openChat],
  [
    'a real llama-server',
    serves,
    (runtime: Runtime) => (options: Parameters<Runtime['openChat']>[0]) =>
      runtime.openServed({ ...options, command: serverPath(HOME), environment: process.env }),
  ],
] as const

for (const [name, possible, open] of kinds) {
  needing(possible, name === 'a real llama-server' ? SERVER : MODELS)(`adapters in ${name}`, { timeout: 240_000 }, () => {
    let runtime: Runtime
    let engine: Engine
    let one: Lora
    let other: Lora
    beforeAll(async () => {
      ;[one, other] = await Promise.all([made('one', 1), made('other', 2)])
      runtime = await openRuntime({ threads: THREADS, gpu: false, log: () => {} })
      engine = await open(runtime)({ modelPath: MODEL, name: 'test', contextTokens: 1024, slots: 3 })
    }, 120_000)
    afterAll(async () => {
      await engine?.close(0)
      await runtime?.dispose()
    }, 60_000)

    it('answers otherwise through each, and as before without, loaded or not', async () => {
      const long = `${'Paris is a city on the Seine. '.repeat(20)}What is it known for?`
      for (const question of [QUESTIONS[0] ?? '', long]) {
        const base = await ask(engine, question)
        const through = await ask(engine, question, one)
        expect(through.text).not.toBe(base.text)
        expect((await ask(engine, question, other)).text).not.toBe(through.text)
        expect((await ask(engine, question)).text).toBe(base.text)
        expect((await ask(engine, question, { ...one, scale: 0 })).text).toBe(base.text)
        expect((await ask(engine, question, one)).text).toBe(through.text)
        expect((await ask(engine, question, { ...one, scale: 0.01 })).text).not.toBe(through.text)
      }
      expect(engine.loras?.loaded(one)).toBe(true)
      const before = await ask(engine, long)
      await engine.loras?.unload(one)
      expect(engine.loras?.loaded(one)).toBe(false)
      expect((await ask(engine, long)).text).toBe(before.text)
    })

    it('answers requests with different adapters at the same time as it does each alone', async () => {
      const asked = [undefined, one, other].flatMap((lora) => QUESTIONS.map((question) => ({ lora, question })))
      const alone: string[] = []
      for (const { lora, question } of asked) alone.push((await ask(engine, question, lora, { seed: 1 })).text)
      expect(new Set(alone).size).toBe(asked.length)
      const together = await Promise.all(asked.map(({ lora, question }) => ask(engine, question, lora, { seed: 1 })))
      expect(together.map(({ text }) => text)).toEqual(alone)
      // Unseeded ones share batches: none of another adapter's, or its words would show.
      const unseeded = await Promise.all(asked.map(({ lora, question }) => ask(engine, question, lora)))
      expect(unseeded.map(({ text }) => text.slice(0, 8))).toEqual(alone.map((text) => text.slice(0, 8)))
    })

    it('lets an adapter go only once its answers have ended, and loads it again when asked', async () => {
      const running = ask(engine, QUESTIONS[0] ?? '', one)
      await new Promise((resolve) => setTimeout(resolve, 100))
      await engine.loras?.unload(one)
      const { text } = await running
      expect((await ask(engine, QUESTIONS[0] ?? '', one)).text).toBe(text)
    })

    it('refuses what is not for this model, saying what was expected and what came', async () => {
      const weights = { 'blk.0.ffn_down.weight': [4864, 896] } as const
      const good = { weights, architecture: 'qwen2', rank: 2, seed: 1, strength: 0.1 }
      const check = async (bytes: Buffer) => {
        const path = join(folder, 'checked.gguf')
        writeFileSync(path, bytes)
        return engine.loras?.check(path)
      }
      expect(await check(loraBytes(good))).toMatchObject({ architecture: 'qwen2', rank: 2 })
      const wrong: readonly (readonly [Buffer, RegExp])[] = [
        [loraBytes({ ...good, architecture: 'llama' }), /expected an adapter for qwen2, got one for `llama`/],
        [
          loraBytes({ ...good, weights: { 'blk.0.ffn_down.weight': [11_008, 4096] } }),
          /4864 × 896, got an adapter for 11008 × 4096/,
        ],
        [loraBytes({ ...good, weights: { 'blk.99.ffn_down.weight': [4864, 896] } }), /weights that the model has, got `blk\.99/],
        [loraBytes({ ...good, extra: [['tokenizer.ggml.tokens', { type: 'strings', value: ['a'] }]] }), /vocabulary of 151936/],
        [loraBytes(good).subarray(0, 400), /breaks off|can't be read/],
        [Buffer.from('not a model'), /expected a GGUF file/],
      ]
      for (const [bytes, message] of wrong)
        await expect(check(bytes)).rejects.toMatchObject({ code: 'adapter_mismatch', message: expect.stringMatching(message) })
    })

    it('says so where a file that was registered is gone, and goes on', async () => {
      const gone = { ...one, id: 'gone', sha256: 'f'.repeat(64), path: join(folder, 'gone.gguf') }
      await expect(ask(engine, 'Hi', gone)).rejects.toMatchObject({ code: 'adapter_mismatch' })
      expect((await ask(engine, QUESTIONS[0] ?? '', one)).text).not.toBe('')
    })
  })
}
