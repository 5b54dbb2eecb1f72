/** One contender of bench/engine.ts in a process of its own, so that none disturbs another: told over IPC what to ask, it reports times. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { openRuntime } from '../../src/engine/embedded/runtime.ts'
import type { Engine } from '../../src/engine/engine.ts'
import { eventData } from '../../src/engine/upstream/sse-parser.ts'
import { Trace } from '../../src/trace.ts'

export const CONTENDERS = ['bare', 'server', 'embedded', 'embedded-own'] as const
export type Contender = (typeof CONTENDERS)[number]

export interface Setup {
  readonly contender: Contender
  readonly modelPath: string
  readonly command: string
  readonly threads: number
  readonly slots: number
  readonly contextTokens: number
  readonly port: number
}

export interface Ask {
  readonly prompts: readonly string[]
  readonly tokens: number
}

export interface Answer {
  readonly tokens: number
  readonly promptTokens: number
  readonly firstMs: number
  readonly totalMs: number
}

export interface Reply {
  readonly answers: readonly Answer[]
  /** Processor time of this process and of the server it started, which neighbours on the machine lengthen less than the clock's. */
  readonly cpuMs: number
}

/** Linux; a hundred ticks a second. */
function cpuMs(): number {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').split(' ').filter(Boolean)
  const ticks = [String(process.pid), ...children].map((pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    return Number(fields[11]) + Number(fields[12])
  })
  return ticks.reduce((sum, n) => sum + n, 0) * 10
}

type Asker = (prompt: string, tokens: number) => Promise<Answer>

async function engineAsker(engine: Engine): Promise<Asker> {
  return async (prompt, tokens) => {
    const start = performance.now()
    const sampling = { temperature: 0, topP: 1, maxTokens: tokens, stop: [] }
    const trace = new Trace('bench', () => performance.now())
    const answer = engine.generate(
      { messages: [{ role: 'user', content: prompt }] },
      sampling,
      trace,
      new AbortController().signal,
    )
    let firstMs = 0
    for (;;) {
      const { value, done } = await answer.next()
      if (firstMs === 0) firstMs = performance.now() - start
      if (done)
        return { tokens: value.completionTokens, promptTokens: value.promptTokens, firstMs, totalMs: performance.now() - start }
    }
  }
}

let child: ChildProcess | undefined

/** llama-server as its README starts it, asked over HTTP as anyone would. */
async function bareAsker({ modelPath, command, threads, slots, contextTokens, port }: Setup): Promise<Asker> {
  const args = ['-m', modelPath, '-c', slots * contextTokens, '-np', slots, '-t', threads, '--port', port].map(String)
  child = spawn(command, [...args, '--host', '127.0.0.1', '--no-ui'], { stdio: 'ignore' })
  const base = `http://127.0.0.1:${port}`
  while (
    !(await fetch(`${base}/health`).then(
      (r) => r.ok,
      () => false,
    ))
  )
    await sleep(100)
  const system = 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.'
  const turn = (role: string, text: string) => `<|im_start|>${role}\n${text}<|im_end|>\n`
  return async (prompt, tokens) => {
    const start = performance.now()
    const body = {
      prompt: `${turn('system', system)}${turn('user', prompt)}<|im_start|>assistant\n`,
      ...{ n_predict: tokens, temperature: 0, stream: true },
    }
    const response = await fetch(`${base}/completion`, { method: 'POST', body: JSON.stringify(body) })
    let firstMs = 0
    for await (const data of eventData(response.body as AsyncIterable<Uint8Array>)) {
      const event = JSON.parse(data)
      if (firstMs === 0) firstMs = performance.now() - start
      if (event.stop) {
        const ended = event.stop_type === 'eos' ? 1 : 0
        return {
          tokens: event.tokens_predicted - ended,
          promptTokens: event.tokens_evaluated,
          firstMs,
          totalMs: performance.now() - start,
        }
      }
    }
    throw new Error('the answer broke off')
  }
}

async function open(setup: Setup): Promise<Asker> {
  if (setup.contender === 'bare') return bareAsker(setup)
  const { threads, modelPath, slots, contextTokens, command } = setup
  const runtime = await openRuntime({ threads, gpu: false, prebuilt: setup.contender !== 'embedded-own', log: () => {} })
  const options = { modelPath, name: 'bench', slots, contextTokens }
  return engineAsker(
    setup.contender === 'server'
      ? await runtime.openServed({ ...options, command, environment: {} })
      : await runtime.openChat(options),
  )
}

if (process.send !== undefined) {
  let asker: Asker | undefined
  process.on('message', async (message: Setup | Ask | 'end') => {
    if (message === 'end') {
      child?.kill()
      process.exit()
    }
    if ('contender' in message) {
      asker = await open(message)
      process.send?.('ready')
      return
    }
    const ask = asker
    if (ask === undefined) return
    const before = cpuMs()
    const answers = await Promise.all(message.prompts.map((prompt) => ask(prompt, message.tokens)))
    process.send?.({ answers, cpuMs: cpuMs() - before } satisfies Reply)
  })
}
