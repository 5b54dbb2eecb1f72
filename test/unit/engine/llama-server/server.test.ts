import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Engine, Finish } from '../../../../src/engine/engine.ts'
import { ServedEngine } from '../../../../src/engine/llama-server/engine.ts'
import { COUNTING, ServerProcess } from '../../../../src/engine/llama-server/process.ts'
import { completionBody, completionEvent, serverArgs } from '../../../../src/engine/llama-server/wire.ts'
import { Turns } from '../../../../src/engine/scheduling/shared-lock.ts'
import { openScripted } from '../../../../src/engine/scripted.ts'
import type { Sampling } from '../../../../src/request.ts'
import { Trace } from '../../../../src/trace.ts'

const STAND_IN = join(import.meta.dirname, '../../../support/stand-ins/llama-server-stand-in.mjs')
const GREEDY: Sampling = { temperature: 0, topP: 1, stop: [] }
const never = new AbortController().signal

let folder: string
let open: { server: ServerProcess; engine: Engine } | null

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'palimpsest-test-'))
  open = null
})
afterEach(async () => {
  await open?.engine.close(0)
  rmSync(folder, { recursive: true, force: true })
})

const noted = () => readFileSync(join(folder, 'log'), 'utf8').trim().split('\n')
const asks = () =>
  noted()
    .filter((line) => line.startsWith('ask '))
    .map((line) => JSON.parse(line.slice(4)))
const starts = () => noted().filter((line) => line.startsWith('start ')).length

async function serve(environment: Record<string, string> = {}, limits: Record<string, number> = {}, slots = 2) {
  const server = new ServerProcess({
    command: process.execPath,
    args: [STAND_IN, '--threads', '1'],
    environment: { LOG: join(folder, 'log'), MARK: join(folder, 'mark'), ...environment },
    log: () => {},
    now: () => performance.now(),
    limits: { firstBackoffMs: 20, ...limits },
  })
  const engine = new ServedEngine({
    server,
    vocabulary: { tokens: { bos: null, eos: null }, tokenize: (text) => [...text].map((c) => c.codePointAt(0) ?? 0) },
    info: { name: 'm', family: 'chatml', contextTokens: 10_000, device: 'cpu', threads: 1, sha256: null },
    family: 'chatml',
    ...{ defaultSystem: null, bosText: '', eosText: '', leadingSpace: false, slots, queueLimit: 4 },
    ...{ now: () => performance.now(), randomSeed: () => 7, free: async () => {} },
    ...{ detokenize: (tokens) => String.fromCodePoint(...tokens), shouldPrependBos: false, vocabularySize: 0x110000 },
    ...{ args: () => [STAND_IN], loraMemoryBytes: 1000, basePath: 'base.gguf', baseSha256: async () => '' },
    checkLora: async () => ({ architecture: 'qwen2', rank: 1, bytes: 1 }),
    openEmbedded: async () => openScripted({ name: 'embedded', reply: () => 'from within' }),
  })
  open = { server, engine }
  await server.start()
  return open
}

async function ask(engine: Engine, sampling: Partial<Sampling> = {}, signal = never, content = 'hello') {
  const trace = new Trace('t', () => performance.now())
  const stream = engine.generate({ messages: [{ role: 'user', content }] }, { ...GREEDY, ...sampling }, trace, signal)
  const pieces: string[] = []
  for (;;) {
    const { value, done } = await stream.next()
    if (done) return { ...(value as Finish), text: pieces.join(''), pieces, trace }
    pieces.push(value.text)
  }
}

describe('llama-server as a child process', () => {
  it('streams the answer, counts its tokens without the one that ends it, and fills in the trace', async () => {
    const { engine } = await serve({ TEXT: 'one two three' })
    const answer = await ask(engine)
    expect(answer).toMatchObject({ text: 'one two three', reason: 'stop', completionTokens: 3, cachedTokens: 5 })
    expect(answer.pieces.length).toBe(3)
    expect(Object.keys(answer.trace.stagesMs)).toEqual(['queue', 'prefill', 'decode'])
    expect(await ask(engine, { maxTokens: 2 })).toMatchObject({ text: 'one two ', reason: 'length', completionTokens: 2 })
  })

  it('sends token ids, one slot a request, and nothing cached for a request with a seed', async () => {
    const { engine } = await serve()
    const prompt = { messages: [{ role: 'user' as const, content: 'hello' }] }
    await ask(engine)
    await ask(engine, { seed: 3, temperature: 0.5 })
    expect(asks()[0]).toMatchObject({ prompt: engine.inspect(prompt).tokens, cache_prompt: true, seed: 7, top_k: 1 })
    expect(asks()[1]).toMatchObject({ cache_prompt: false, seed: 3, temperature: 0.5, samplers: ['top_p', 'temperature'] })
    await Promise.all([ask(engine), ask(engine)])
    expect(
      new Set(
        asks()
          .slice(2)
          .map((body) => body.id_slot),
      ).size,
    ).toBe(2)
  })

  it('ends at a stop string that is cut across pieces, and lets go of the server', async () => {
    const { engine } = await serve({ TEXT: `one two three ${'more '.repeat(200)}` })
    expect(await ask(engine, { stop: ['wo th'] })).toMatchObject({ text: 'one t', reason: 'stop' })
    await expect.poll(() => noted().includes('closed')).toBe(true)
  })

  it('closes the connection within a token of an abort', async () => {
    const { engine } = await serve({ TEXT: 'word '.repeat(400) })
    const stop = new AbortController()
    const asked = ask(engine, {}, stop.signal)
    await sleep(60)
    stop.abort(new Error('enough'))
    await expect(asked).rejects.toThrow('enough')
    await expect.poll(() => noted().includes('closed')).toBe(true)
    expect(engine.load().busy).toBe(0)
  })

  it('asks again where the server ended before a word, and says so where it ended after one', async () => {
    const { engine } = await serve({ FAULT: 'dies at once' })
    expect((await ask(engine)).text).toBe('one two three')
    expect(starts()).toBe(2)
    await engine.close(0)
    rmSync(join(folder, 'mark'))
    const again = await serve({ FAULT: 'dies midway' })
    await expect(ask(again.engine)).rejects.toMatchObject({ code: 'engine_failed' })
    expect((await ask(again.engine)).text).toBe('one two three')
  })

  it('answers 503 with the time to come back while it cannot be started', async () => {
    const { engine, server } = await serve({ FAULT: 'no second start' }, { waitMs: 100, firstBackoffMs: 2_000 })
    writeFileSync(join(folder, 'mark'), 'x')
    process.kill(server.pid ?? 0, 'SIGKILL')
    await expect.poll(() => server.state).toBe('restarting')
    await expect(ask(engine)).rejects.toMatchObject({
      code: 'engine_unavailable',
      status: 503,
      retryAfterSeconds: expect.any(Number),
    })
  })

  it.each(['not JSON', 'error event'])('fails an answer that holds what is %s', async (FAULT) => {
    const { engine } = await serve({ FAULT })
    await expect(ask(engine)).rejects.toMatchObject({ code: 'engine_failed' })
    expect(engine.load().busy).toBe(0)
  })

  it('ends a server that hangs, and starts another', async () => {
    const { engine } = await serve({ FAULT: 'hangs' }, { silenceMs: 150 })
    await expect(ask(engine)).rejects.toMatchObject({ code: 'engine_failed' })
    expect((await ask(engine)).text).toBe('one two three')
  })

  it('passes on a refusal, with the server’s words', async () => {
    const { engine } = await serve()
    await expect(ask(engine, {}, never, 'x'.repeat(6_000))).rejects.toThrow('too long for me')
  })

  it('holds an answer to a grammar, and one with tools from the beginning of a call on', async () => {
    const { engine } = await serve({ TEXT: 'Look: <tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>' })
    await ask(engine, { format: { kind: 'json' } })
    expect(asks()[0].grammar).toContain('root ::= object')
    const tool = { name: 'f', parameters: { type: 'object', properties: {} }, param: 'tools[0]' }
    const tools = { tools: [tool], allowed: ['f'], required: false, parallel: false }
    const stream = engine.generate(
      { messages: [{ role: 'user', content: 'hello' }], tools },
      { ...GREEDY, maxTokens: 40 },
      new Trace('t', () => 0),
      never,
    )
    for await (const _ of stream);
    const [, free, held] = asks()
    expect(free.grammar).toBeUndefined()
    expect(held.grammar).toMatch(/^root ::= /m)
    expect(String.fromCodePoint(...held.prompt)).toBe(`${String.fromCodePoint(...free.prompt)}Look: <tool_call>`)
    expect(held.n_predict).toBe(40 - 'Look: <tool_call>'.length)
  })

  it('leaves what llama-server cannot do to the embedded engine', async () => {
    const { engine } = await serve()
    expect((await ask(engine, { logprobs: 0 })).text).toBe('from within')
    expect((await ask(engine, { presencePenalty: 1 })).text).toBe('from within')
    expect((await ask(engine)).text).toBe('one two three')
  })

  it('goes on with plain text, in which control words are tokens, and repeats it where asked', async () => {
    const { engine } = await serve()
    const trace = new Trace('t', () => 0)
    const pieces: string[] = []
    const prompt = { before: '', text: 'ab', echo: true }
    for await (const { text } of engine.text?.complete(prompt, GREEDY, trace, never) ?? []) pieces.push(text)
    expect(pieces.join('')).toBe('abone two three')
    expect(asks()[0].prompt).toEqual([97, 98])
  })

  it('fails at once, with its last words, where it does not start', async () => {
    await expect(serve({ FAULT: 'no start' })).rejects.toThrow('the model is not to its taste')
    open = null
  })

  it.each([
    ['rubbish', ['', '--no-repack']],
    ['none', ['']],
  ])('starts it without repacked weights where it answers its trial with %s', async (fault, args) => {
    const warnings: string[] = []
    const server = new ServerProcess({
      ...{
        command: process.execPath,
        args: [STAND_IN],
        environment: { LOG: join(folder, 'log'), FAULT: fault, TEXT: ' 9, 10, 11' },
      },
      ...{ log: (_, text) => warnings.push(text), now: () => performance.now(), trial: COUNTING },
    })
    await server.start()
    expect(
      noted()
        .filter((line) => line.startsWith('start '))
        .map((line) => /--no-repack/.exec(line)?.[0] ?? ''),
    ).toEqual(args)
    expect(server.state).toBe('up')
    expect(warnings.join()).toBe(fault === 'none' ? '' : warnings[0])
    if (fault !== 'none') expect(warnings[0]).toContain('"GmbH)s\\n"')
    await server.close()
  })

  it('does not start without repacked weights where they are required', async () => {
    const server = new ServerProcess({
      ...{
        command: process.execPath,
        args: [STAND_IN],
        environment: { LOG: join(folder, 'log'), FAULT: 'rubbish', TEXT: ' 9, 10' },
      },
      ...{ log: () => {}, now: () => performance.now(), trial: COUNTING, repacking: 'required' },
    })
    await expect(server.start()).rejects.toMatchObject({ code: 'engine_failed', message: expect.stringContaining('"GmbH)s') })
    expect([server.state, starts()]).toEqual(['closed', 1])
  })

  it('ends with the gateway, also when that is killed', async () => {
    const script = join(folder, 'gateway.mjs')
    writeFileSync(
      script,
      `import { spawn } from 'node:child_process'
       const env = { ...process.env, LLAMA_SERVER_ROUTER_PORT: '0' }
       spawn(process.execPath, [${JSON.stringify(STAND_IN)}, '--host', ${JSON.stringify(join(folder, 's.sock'))}], { env, stdio: ['pipe', 'inherit', 'inherit'] })`,
    )
    const gateway = spawn(process.execPath, [script], { env: { ...process.env, LOG: join(folder, 'log') } })
    await expect.poll(() => existsSync(join(folder, 'log')), { timeout: 5_000 }).toBe(true)
    const pid = Number(noted()[0]?.split(' ')[1])
    gateway.kill('SIGKILL')
    const alive = () => {
      try {
        return process.kill(pid, 0)
      } catch {
        return false
      }
    }
    await expect.poll(alive, { timeout: 5_000 }).toBe(false)
  })

  it('is ended by close, running answers with it', async () => {
    const { engine, server } = await serve({ TEXT: 'word '.repeat(4_000) })
    const asked = ask(engine)
    await sleep(50)
    const pid = server.pid ?? 0
    const refused = expect(asked).rejects.toMatchObject({ code: 'shutting_down' })
    await engine.close(10)
    await refused
    expect(() => process.kill(pid, 0)).toThrow()
  })
})

describe('the words of llama-server', () => {
  it('starts it with slots that share nothing and no cache beside them', () => {
    const args = serverArgs({ modelPath: 'm.gguf', slots: 4, contextTokens: 1024, threads: 2, gpu: false })
    expect(args.join(' ')).toContain('--ctx-size 4096 --parallel 4 --threads 2')
    expect(args).toEqual(expect.arrayContaining(['--cache-ram', '--no-kv-unified', '--n-gpu-layers']))
  })

  it('names adapters by their position', () => {
    const asked = { tokens: [1], slot: 0, limit: 4, seed: 1, sampling: GREEDY, grammar: null, reuse: true }
    expect(completionBody({ ...asked, loras: [{ id: 0, scale: 0.5 }] })).toMatchObject({ lora: [{ id: 0, scale: 0.5 }] })
    expect(completionBody({ ...asked, loras: null })).not.toHaveProperty('lora')
  })

  it('tells an answer that ended from one that was cut', () => {
    const last = (stop_type: string) => completionEvent(JSON.stringify({ stop: true, stop_type, tokens_predicted: 9 }))
    expect(last('eos')).toEqual({ kind: 'end', reason: 'stop', tokens: 8 })
    expect(last('limit')).toEqual({ kind: 'end', reason: 'length', tokens: 9 })
  })
})

describe('turns', () => {
  it('lets many in together, and one alone, in the order they came', async () => {
    const turns = new Turns()
    const order: string[] = []
    const enter = async (name: string, alone: boolean) => {
      const leave = await turns.enter(alone, never)
      order.push(name)
      return leave
    }
    const [a, b] = [await enter('a', false), await enter('b', false)]
    const [c, d] = [enter('c', true), enter('d', false)]
    a()
    await sleep(0)
    expect(order).toEqual(['a', 'b'])
    b()
    const leaveC = await c
    await sleep(0)
    expect(order).toEqual(['a', 'b', 'c'])
    leaveC()
    await d
    expect(order).toEqual(['a', 'b', 'c', 'd'])
  })

  it('does not stand still when one who waits gives up', async () => {
    const turns = new Turns()
    const leave = await turns.enter(false, never)
    const stop = new AbortController()
    const alone = turns.enter(true, stop.signal)
    const later = turns.enter(false, never)
    stop.abort(new Error('gone'))
    await expect(alone).rejects.toThrow('gone')
    await later
    leave()
  })
})
