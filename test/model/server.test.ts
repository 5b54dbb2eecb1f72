import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openRuntime, type Runtime } from '../../src/engine/embedded/runtime.ts'
import type { Engine, Finish, Piece, Prompt } from '../../src/engine/engine.ts'
import { hasServer, serverPath } from '../../src/engine/llama-server/build.ts'
import { openUpstream } from '../../src/engine/upstream/engine.ts'
import type { Sampling } from '../../src/request.ts'
import { Trace } from '../../src/trace.ts'
import { needing, SERVER } from '../needs.ts'

const HOME = join(homedir(), '.cache', 'palimpsest')
const MODEL = process.env.PALIMPSEST_TEST_MODEL ?? join(HOME, 'models', 'qwen2.5-coder-0.5b-instruct-q4_k_m.gguf')
const THREADS = Number(process.env.PALIMPSEST_TEST_THREADS ?? 1)
const able = existsSync(MODEL) && process.platform !== 'win32' && hasServer(HOME)

const statusOf = (pid: string, file: string): string => {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}
const parentOf = (pid: string): number => Number(/PPid:\s+(\d+)/.exec(statusOf(pid, 'status'))?.[1])
const commandOf = (pid: string): string => statusOf(pid, 'cmdline')

const GREEDY: Sampling = { temperature: 0, topP: 1, stop: [], maxTokens: 12 }
const never = new AbortController().signal

async function collect(stream: AsyncGenerator<Piece, Finish>) {
  const pieces: Piece[] = []
  for (;;) {
    const { value, done } = await stream.next()
    if (done) return { ...value, pieces, text: pieces.map(({ text }) => text).join('') }
    pieces.push(value)
  }
}

needing(able, SERVER)('a real llama-server', { timeout: 240_000 }, () => {
  let runtime: Runtime
  let served: Engine
  const ask = (engine: Engine, content: string, sampling: Partial<Sampling> = {}, more: Partial<Prompt> = {}, signal = never) => {
    const trace = new Trace('t', () => performance.now())
    const prompt = { messages: [{ role: 'user' as const, content }], ...more }
    return collect(engine.generate(prompt, { ...GREEDY, ...sampling }, trace, signal))
  }
  const open = () =>
    runtime.openServed({
      ...{ modelPath: MODEL, name: 'test', contextTokens: 1024, slots: 2 },
      ...{ command: serverPath(HOME), environment: process.env },
    })

  beforeAll(async () => {
    runtime = await openRuntime({ threads: THREADS, gpu: false, log: () => {} })
    served = await open()
  }, 240_000)
  afterAll(async () => {
    await served?.close(0)
    await runtime?.dispose()
  }, 60_000)

  it('answers as the embedded engine does, control words in the prompt and all', async () => {
    const embedded = await runtime.openChat({ modelPath: MODEL, name: 'test', contextTokens: 1024, slots: 1 })
    for (const question of ['What is the capital of France?', 'Repeat: <|im_end|> 漢字 😊']) {
      const [ours, theirs] = [await ask(served, question), await ask(embedded, question)]
      expect(ours.text).toBe(theirs.text)
      expect([ours.reason, ours.promptTokens, ours.completionTokens]).toEqual([
        theirs.reason,
        theirs.promptTokens,
        theirs.completionTokens,
      ])
    }
    await embedded.close(0)
  })

  it('gives a seeded request the same answer, whoever else is served', async () => {
    const seeded = { seed: 11, temperature: 1.2 }
    const alone = await ask(served, 'Name three animals.', seeded)
    const [among] = await Promise.all([
      ask(served, 'Name three animals.', seeded),
      ask(served, 'Count to ten.'),
      ask(served, 'Say hi.'),
    ])
    expect(among?.text).toBe(alone.text)
  })

  it('holds an answer to JSON, and a call to its schema once its tag has come', async () => {
    const json = await ask(served, 'Describe a cat.', { format: { kind: 'json' }, maxTokens: 60, stop: [] })
    expect(json.text.trimStart()[0]).toBe('{')
    const tool = {
      name: 'get_weather',
      description: 'Weather of a city',
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
      param: 'tools[0]',
    }
    const tools = { tools: [tool], allowed: ['get_weather'], required: false, parallel: false }
    const called = await ask(served, 'What is the weather in Paris? Use the function.', { maxTokens: 60 }, { tools })
    const calls = called.pieces.flatMap((piece) => piece.calls ?? [])
    if (called.reason === 'tool_calls') expect(JSON.parse(calls.map((call) => call.arguments).join(''))).toHaveProperty('city')
    else expect(called.text).not.toBe('')
    const required = await ask(served, 'Weather in Rome?', { maxTokens: 60 }, { tools: { ...tools, required: true } })
    expect(required.reason).toBe('tool_calls')
    expect(required.pieces.flatMap((piece) => piece.calls ?? [])[0]?.name).toBe('get_weather')
  })

  it('is started again after kill -9, and the request that follows is answered', async () => {
    const before = served.backends?.()[0]
    expect(before?.state).toBe('up')
    const pid = Number(
      readdirSync('/proc').find(
        (entry) => /^\d+$/.test(entry) && parentOf(entry) === process.pid && commandOf(entry).includes('llama-server'),
      ),
    )
    process.kill(pid, 'SIGKILL')
    let text = ''
    // The model takes longer to load on a busy machine than a request waits: it is told when to come back.
    for (let tries = 0; text === '' && tries < 30; tries++) {
      text = await ask(served, 'What is the capital of France?').then(
        (answer) => answer.text,
        async (error) => {
          expect(error).toMatchObject({ code: 'engine_unavailable', status: 503 })
          await new Promise((resolve) => setTimeout(resolve, 1_000))
          return ''
        },
      )
    }
    expect(text).toContain('Paris')
    expect(served.backends?.()[0]).toMatchObject({ state: 'up', faults: 1 })
  })

  it('serves as an upstream, too', async () => {
    const port = 18_500 + (process.pid % 1_000)
    const child = spawn(
      serverPath(HOME),
      // Repacked weights crash this build on some processors (src/engine/llama-server/process.ts).
      ['-m', MODEL, '-c', '1024', '-np', '1', '-t', String(THREADS), '--port', String(port), '--no-ui', '--no-repack'],
      {
        stdio: 'ignore',
      },
    )
    try {
      const url = `http://127.0.0.1:${port}`
      const up = () =>
        fetch(`${url}/health`).then(
          (r) => r.ok,
          () => false,
        )
      await expect.poll(up, { timeout: 120_000, interval: 250 }).toBe(true)
      const engine = await openUpstream({ servers: [{ url }, { url: 'http://127.0.0.1:9', model: 'm' }], healthMs: 0 })
      const answer = await ask(engine, 'What is the capital of France? One word.')
      expect(answer.text).toContain('Paris')
      expect(answer.promptTokens).toBeGreaterThan(10)
      expect(answer.completionTokens).toBeGreaterThan(0)
      await engine.close(0)
    } finally {
      child.kill('SIGKILL')
    }
  })
})
