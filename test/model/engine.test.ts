import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openRuntime, type Runtime } from '../../src/engine/embedded/runtime.ts'
import type { Embedder, Engine, Finish, Piece } from '../../src/engine/engine.ts'
import { EMBED_PREFIX, EMBEDDER_MODEL } from '../../src/models/catalog.ts'
import type { Message, Sampling } from '../../src/request.ts'
import { Trace } from '../../src/trace.ts'
import { MODELS, needing } from '../needs.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest', 'models')
const MODEL = process.env.PALIMPSEST_TEST_MODEL ?? join(CACHE, 'qwen2.5-coder-0.5b-instruct-q4_k_m.gguf')
const EMBEDDER = process.env.PALIMPSEST_TEST_EMBEDDER ?? join(CACHE, `${EMBEDDER_MODEL}-q4_0.gguf`)
const THREADS = Number(process.env.PALIMPSEST_TEST_THREADS ?? 1)

const GREEDY: Sampling = { temperature: 0, topP: 1, stop: [] }
const SEEDED: Sampling = { temperature: 1, topP: 0.95, seed: 42, maxTokens: 24, stop: [] }
const never = new AbortController().signal
const user = (content: string): Message => ({ role: 'user', content })
const assistant = (content: string): Message => ({ role: 'assistant', content })
const LONG = Array.from({ length: 25 }, (_, i) => `Item ${i} of the list is number ${i * 7}.`).join(' ')

interface Answer extends Finish {
  readonly text: string
  readonly pieces: readonly string[]
  readonly trace: Trace
}

async function collect(stream: AsyncGenerator<Piece, Finish>, trace: Trace): Promise<Answer> {
  const pieces: string[] = []
  for (;;) {
    const { value, done } = await stream.next()
    if (done) return { ...value, pieces, text: pieces.join(''), trace }
    pieces.push(value.text)
  }
}

needing(existsSync(MODEL), MODELS)('the engine on a real model', { timeout: 180_000 }, () => {
  let runtime: Runtime
  let engine: Engine
  const ask = (messages: readonly Message[], sampling: Partial<Sampling> = {}, signal = never) => {
    const trace = new Trace('t', () => performance.now())
    return collect(engine.generate({ messages }, { ...GREEDY, ...sampling }, trace, signal), trace)
  }

  beforeAll(async () => {
    runtime = await openRuntime({ threads: THREADS, gpu: false, log: () => {} })
    engine = await runtime.openChat({ modelPath: MODEL, name: 'test', contextTokens: 2048, slots: 4, queueLimit: 2 })
  }, 120_000)
  afterAll(async () => {
    await engine?.close(0)
    await runtime?.dispose()
  }, 60_000)

  it('answers, and fills in the trace', async () => {
    const { text, reason, promptTokens, completionTokens, trace } = await ask([
      user('What is the capital of France? Answer with one word.'),
    ])
    expect(text).toMatch(/Paris/)
    expect(reason).toBe('stop')
    expect(trace).toMatchObject({ promptTokens, tokensCached: 0 })
    expect(Object.keys(trace.stagesMs)).toEqual(['queue', 'prefill', 'decode'])
    expect(completionTokens).toBeGreaterThan(0)
    expect(engine.countTokens({ messages: [user('What is the capital of France? Answer with one word.')] })).toBe(promptTokens)
  })

  it('formats a chat exactly as the model’s own template, to the token', () => {
    const { text, tokens } = engine.inspect({ messages: [user('Hi')] })
    expect(text).toBe(
      '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n',
    )
    const [start, end, newline] = [151644, 151645, 198]
    const system = [8948, newline, 2610, 525, 1207, 16948, 11, 3465, 553, 54364, 14817, 13, 1446, 525, 264, 10950, 17847, 13]
    expect(tokens).toEqual([start, ...system, end, newline, start, 872, newline, 13048, end, newline, start, 77091, newline])
  })

  it('keeps every control string inert inside a message', () => {
    const controls = [
      '<|im_start|>system',
      '<|im_end|>',
      '<|endoftext|>',
      '<|fim_prefix|>',
      '<|repo_name|>',
      '</s>',
      '[INST]',
      '<<SYS>>',
      '{{> x}}',
    ]
    const plain = engine.inspect({ messages: [user('x')] }).tokens.filter((id) => id >= 151643)
    for (const control of controls) {
      expect(
        engine.inspect({ messages: [user(`a ${control} b`)] }).tokens.filter((id) => id >= 151643),
        control,
      ).toEqual(plain)
    }
  })

  it('gives the same answer twice for a seed, whatever was served between, and another for another seed', async () => {
    const messages = [user('Write one line of a poem about the sea.')]
    const first = await ask(messages, SEEDED)
    await ask([...messages, assistant(first.text), user('And another one.')], { maxTokens: 8 })
    await ask(messages, { temperature: 1, maxTokens: 8 })
    expect((await ask(messages, SEEDED)).pieces).toEqual(first.pieces)
    expect((await ask(messages, { ...SEEDED, seed: 43 })).text).not.toBe(first.text)
  })

  it('gives a seeded answer that does not depend on a conversation’s history in the cache', async () => {
    const opening = [user(`${LONG} Which is item 3?`)]
    const turn = await ask(opening, { maxTokens: 30 })
    const messages = [...opening, assistant(turn.text), user('And item 4? Then tell a story about it.')]
    const warm = await ask(messages, SEEDED)
    expect(warm.cachedTokens).toBeGreaterThan(0)
    const fresh = await runtime.openChat({ modelPath: MODEL, name: 'fresh', contextTokens: 2048, slots: 1 })
    const trace = new Trace('t', () => performance.now())
    const cold = await collect(fresh.generate({ messages }, SEEDED, trace, never), trace)
    await fresh.close(0)
    expect(cold.cachedTokens).toBe(0)
    expect(warm.text).toBe(cold.text)
  })

  it('gives seeded answers that do not depend on who else is served', async () => {
    const messages = [user('Tell me something surprising about octopuses.')]
    const alone = await ask(messages, SEEDED)
    const others = [1, 2].map((n) => ask([user(`Write a long text about the number ${n}.`)], { maxTokens: 30 }))
    const together = await Promise.all([ask(messages, SEEDED), ...others])
    expect(together[0]?.text).toBe(alone.text)
  })

  it('reuses the conversation’s cache in a follow-up', async () => {
    const opening = [user(`${LONG} Which number is item 5? Answer briefly.`)]
    const turn = await ask(opening, { maxTokens: 20 })
    const again = await ask(opening, { maxTokens: 20 })
    expect(again.text).toBe(turn.text)
    const followUp = await ask([...opening, assistant(turn.text), user('And item 6?')], { maxTokens: 20 })
    const evaluated = [turn, again, followUp].map(({ promptTokens, cachedTokens }) => promptTokens - cachedTokens)
    console.log('tokens evaluated: first, repeated, follow-up:', evaluated, 'of', followUp.promptTokens)
    expect(evaluated[1]).toBeLessThanOrEqual(64)
    expect(evaluated[2]).toBeLessThan(40)
  })

  it('ends at maxTokens, at a stop string, and where the context is full', async () => {
    const messages = [user('Count from 1 to 30, separated by commas.')]
    expect(await ask(messages, { maxTokens: 5 })).toMatchObject({ reason: 'length', completionTokens: 5 })
    const whole = (await ask(messages, { maxTokens: 60 })).text
    const stopped = await ask(messages, { maxTokens: 60, stop: [', 7', '9'] })
    expect(stopped.reason).toBe('stop')
    expect(stopped.text).toBe(whole.slice(0, whole.indexOf(', 7')))
    const small = await runtime.openChat({ modelPath: MODEL, name: 'small', contextTokens: 64, slots: 1 })
    const trace = new Trace('t', () => 0)
    const full = await collect(
      small.generate({ messages: [user('Count to one hundred, one number a line.')] }, GREEDY, trace, never),
      trace,
    )
    expect(full.reason).toBe('length')
    expect(full.promptTokens + full.completionTokens).toBe(64)
    await expect(small.generate({ messages: [user(LONG)] }, GREEDY, trace, never).next()).rejects.toMatchObject({
      code: 'context_length_exceeded',
      message: expect.stringMatching(/\b\d{3,}\b.*\b64\b/),
    })
    await small.close(0)
  })

  it('writes whole characters only', async () => {
    const { pieces, text } = await ask([user('Repeat exactly: 漢字かな 👩‍🚀🎉 naïve žluťoučký')], { maxTokens: 60 })
    expect(text).toMatch(/[^\u0020-\u00ff]/)
    for (const piece of pieces) expect(piece).not.toMatch(/\ufffd|[\ud800-\udbff]$|^[\udc00-\udfff]/)
  })

  it('serves four at once, each as if alone', async () => {
    const messages = ['France', 'Italy', 'Japan', 'Egypt'].map((country) => [
      user(`What is the capital of ${country}? One word.`),
    ])
    const answers = await Promise.all(messages.map((each) => ask(each)))
    expect(answers.map(({ text }) => text).join(' ')).toMatch(/Paris.*Rome.*Tokyo.*Cairo/s)
    expect(engine.load()).toMatchObject({ busy: 0, queued: 0 })
  })

  it('lets a conversation that must rewind its cache begin while others are being answered', async () => {
    const opening = [user(`${LONG} Which number is item 2?`)]
    await ask(opening, { maxTokens: 4 })
    const ended: string[] = []
    const others = [1, 2].map((n) =>
      ask([user(`Write a long text about the number ${n}.`)], { maxTokens: 40 }).then(() => ended.push('long')),
    )
    await new Promise((resolve) => setTimeout(resolve, 200))
    const short = await ask(opening, { maxTokens: 2 })
    ended.push('short')
    await Promise.all(others)
    expect(short.cachedTokens).toBeGreaterThan(0)
    expect(ended).toEqual(['short', 'long', 'long'])
  })

  it('refuses beyond the queue’s limit, and frees an aborted request’s place at once', async () => {
    const all = new AbortController()
    const hold = () => ask([user('Write a very long story.')], {}, all.signal).catch((error: unknown) => error)
    const running = [hold(), hold(), hold(), hold()]
    const waiting = new AbortController()
    const aborted = ask([user('Hi')], {}, waiting.signal).catch((error: unknown) => error)
    const other = hold()
    await new Promise((resume) => setImmediate(resume))
    expect(engine.load()).toMatchObject({ busy: 4, queued: 2 })
    await expect(ask([user('Hi')])).rejects.toMatchObject({ code: 'queue_full' })
    waiting.abort(new Error('gone'))
    expect(await aborted).toMatchObject({ message: 'gone' })
    expect(engine.load()).toMatchObject({ busy: 4, queued: 1 })
    all.abort(new Error('all gone'))
    for (const held of [...running, other]) expect(await held).toMatchObject({ message: 'all gone' })
    expect(engine.load()).toMatchObject({ busy: 0, queued: 0 })
  })

  it('stops a prefill within one piece, and keeps what it has evaluated', async () => {
    const messages = [user(`Prefill: ${LONG}`)]
    const gone = new AbortController()
    const aborted = ask(messages, {}, gone.signal).catch((error: unknown) => error)
    setTimeout(() => gone.abort(new Error('gone')), 100)
    expect(await aborted).toMatchObject({ message: 'gone' })
    expect(engine.load().busy).toBe(0)
    const { promptTokens, cachedTokens } = await ask(messages, { maxTokens: 1 })
    console.log(`prefill aborted after 100 ms: ${cachedTokens} of ${promptTokens} tokens had been evaluated`)
    expect(cachedTokens).toBeLessThan(promptTokens - 64)
  })

  it('stops decoding within one token, by abort and by leaving', async () => {
    const messages = [user('Write a very long story about a lighthouse.')]
    const gone = new AbortController()
    let pieces = 0
    const trace = new Trace('t', () => performance.now())
    const reading = (async () => {
      for await (const _ of engine.generate({ messages }, GREEDY, trace, gone.signal))
        if (++pieces === 3) setTimeout(() => gone.abort(new Error('gone')), 0)
    })()
    await expect(reading).rejects.toThrow('gone')
    expect(pieces).toBeLessThanOrEqual(4)
    expect(engine.load().busy).toBe(0)
    for await (const _ of engine.generate({ messages }, GREEDY, trace, never)) break
    expect(engine.load().busy).toBe(0)
    expect((await ask([user('What is the capital of France? One word.')])).text).toMatch(/Paris/)
  })

  it('names a model file that is absent, cut short, cut in its header, or something else', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'engine-'))
    const head = Buffer.alloc(8_000_000)
    const file = await open(MODEL)
    await file.read(head)
    await file.close()
    const files = {
      'cut.gguf': head,
      'header.gguf': head.subarray(0, 1000),
      'text.gguf': Buffer.from('hello, this is no model at all'),
    }
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content)
    for (const name of [...Object.keys(files), 'absent.gguf']) {
      await expect(runtime.openChat({ modelPath: join(folder, name), name: 'x' })).rejects.toMatchObject({
        code: 'model_file',
        message: expect.stringContaining(name),
      })
    }
    rmSync(folder, { recursive: true })
  })

  it('closes while answers are being written, without taking the process along', async () => {
    const other = await runtime.openChat({ modelPath: MODEL, name: 'other', contextTokens: 512, slots: 2 })
    const trace = new Trace('t', () => 0)
    const stream = other.generate({ messages: [user('Write a very long story.')] }, GREEDY, trace, never)
    await stream.next()
    const ending = expect(collect(stream, trace)).rejects.toMatchObject({ code: 'shutting_down' })
    await other.close(50)
    await ending
    await expect(other.generate({ messages: [user('Hi')] }, GREEDY, trace, never).next()).rejects.toMatchObject({
      code: 'shutting_down',
    })
  })

  needing(existsSync(EMBEDDER), MODELS)('with the embedder', {}, () => {
    let embedder: Embedder
    beforeAll(async () => {
      embedder = await runtime.openEmbedder({
        modelPath: EMBEDDER,
        name: EMBEDDER_MODEL,
        prefix: EMBED_PREFIX[EMBEDDER_MODEL] ?? '',
      })
    })
    afterAll(() => embedder?.close())

    const dot = (a: Float32Array | undefined, b: Float32Array | undefined) =>
      a?.reduce((sum, x, i) => sum + x * (b?.[i] ?? 0), 0) ?? Number.NaN

    it('gives unit vectors that put like beside like', async () => {
      const [cat, kitten, tax, nothing] = await embedder.embed(
        ['A cat sleeps.', 'A kitten is asleep.', 'Tax law of 1986', ''],
        'query',
      )
      expect(embedder).toMatchObject({ dimensions: 384, maxTokens: 256 })
      for (const vector of [cat, kitten, tax, nothing]) expect(dot(vector, vector)).toBeCloseTo(1, 5)
      expect(dot(cat, kitten)).toBeGreaterThan(dot(cat, tax) + 0.1)
    })

    it('reads a long text’s beginning only', async () => {
      const [whole, beginning] = await embedder.embed([`${'cat '.repeat(254)}${'tax '.repeat(500)}`, 'cat '.repeat(254)], 'query')
      expect(dot(whole, beginning)).toBeCloseTo(1, 5)
    })

    it('embeds while the chat model generates, and neither stalls', async () => {
      const story = () => ask([user('Write a very long story about a mountain.')], { seed: 1, maxTokens: 40 })
      const texts = Array.from({ length: 40 }, (_, i) => `What is the capital of country number ${i}?`)
      const embed = async () => {
        const start = performance.now()
        await embedder.embed(texts, 'import')
        return (performance.now() - start) / texts.length
      }
      await story()
      const [alone, embedAlone] = [await story(), await embed()]
      const [together, embedTogether] = await Promise.all([story(), embed()])
      const perToken = ({ trace, completionTokens }: Answer) => (trace.stagesMs.decode ?? 0) / completionTokens
      console.log(
        `${THREADS} threads: decode ${perToken(alone).toFixed(1)} ms/token alone, ${perToken(together).toFixed(1)} while embedding;`,
        `embedding ${embedAlone.toFixed(1)} ms/text alone, ${embedTogether.toFixed(1)} while decoding`,
      )
      expect(together.text).toBe(alone.text)
    })
  })
})
