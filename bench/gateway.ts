/**
 * What the gateway costs, beside peers in one run, rounds taking turns, differences within a round, medians over rounds.
 * `npm run bench -- [--only latency,retrieval,load,first,soak] [--edits 100000] [--rounds 7] [--soak-minutes 20] [--out bench/results/gateway]`
 * Writes OUT.json (every round), OUT.md and OUT-*.svg. The model is a scripted one but in `first`.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, homedir, loadavg, tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { hasServer, serverPath } from '../src/engine/llama-server/build.ts'
import { EMBEDDER_MODEL, READER_MODEL } from '../src/models/catalog.ts'
import { at } from './client.ts'
import { type Order, type Ready, SERVERS, type ServerName, type Setup, type Usage } from './gateway/contender.ts'
import { type First, firstTokens } from './gateway/first.ts'
import type { Done, Load } from './gateway/load.ts'
import { type Added, type Loaded, type Results, type Retrieved, type Sample, tables, writePlots } from './gateway/report.ts'
import { asked } from './scale/vectors.ts'

const models = join(homedir(), '.cache/palimpsest/models')
const { values: flags } = parseArgs({
  options: {
    only: { type: 'string', default: 'latency,retrieval,load,first,soak' },
    edits: { type: 'string', default: '10000' },
    rounds: { type: 'string', default: '7' },
    requests: { type: 'string', default: '400' },
    questions: { type: 'string', default: '200' },
    seconds: { type: 'string', default: '4' },
    connections: { type: 'string', default: '8' },
    'first-rounds': { type: 'string', default: '9' },
    'warm-tokens': { type: 'string', default: '2000' },
    'soak-minutes': { type: 'string', default: '1' },
    threads: { type: 'string', default: '2' },
    model: { type: 'string', default: join(models, 'qwen2.5-coder-0.5b-instruct-q4_k_m.gguf') },
    embedder: { type: 'string', default: join(models, `${EMBEDDER_MODEL}-q4_0.gguf`) },
    reader: { type: 'string', default: join(models, `${READER_MODEL}-q8_0.gguf`) },
    home: { type: 'string', default: join(homedir(), '.cache/palimpsest') },
    data: { type: 'string' },
    vectors: { type: 'string', default: join(tmpdir(), 'palimpsest-scale-vectors.json') },
    out: { type: 'string', default: 'bench/results/gateway' },
  },
})
const wanted = flags.only.split(',')
const rounds = Number(flags.rounds)
const edits = Number(flags.edits)
const dataDir = flags.data ?? join(tmpdir(), `palimpsest-bench-${edits}`)
const say = (text: string) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`)

const children: ChildProcess[] = []
/** Logs go nowhere; what fails comes back as a message. */
function start(script: string): ChildProcess {
  const nowhere = openSync('/dev/null', 'w')
  const child = fork(join(import.meta.dirname, script), { stdio: ['ignore', nowhere, nowhere, 'ipc'] })
  children.push(child)
  return child
}

function told<T>(child: ChildProcess, message: Order | Load): Promise<T> {
  return new Promise((resolve, reject) => {
    const lost = (code: number | null) => reject(new Error(`a child ended with ${code}`))
    child.once('exit', lost)
    child.once('message', (value) => {
      child.off('exit', lost)
      const { failed } = value as { failed?: unknown }
      if (typeof failed === 'string') reject(new Error(failed))
      else resolve(value as T)
    })
    child.send(message)
  })
}

interface Server {
  readonly child: ChildProcess
  readonly port: number
}

async function startServer(server: ServerName): Promise<Server> {
  const child = start('gateway/contender.js')
  const setup: Setup = { server, embedderPath: flags.embedder, readerPath: flags.reader, dataDir, vectors: flags.vectors, edits }
  const { port } = await told<Ready>(child, setup)
  say(`${server} listens`)
  return { child, port }
}

const ask = (content: string, edits: 'on' | 'off', stream = false) =>
  JSON.stringify({
    model: 'scripted',
    ...{
      messages: [
        { role: 'system', content: 'You are a helpful assistant.' },
        { role: 'user', content },
      ],
    },
    ...{ max_tokens: 64, temperature: 0, palimpsest: { edits }, ...(stream && { stream }) },
  })
const PLAIN = ask('Write one short sentence about rain in an old harbour.', 'off')

async function measured(load: ChildProcess, { child, port }: Server, what: Omit<Load, 'port'>): Promise<Done & { usage: Usage }> {
  await told(child, { order: 'start' })
  const done = await told<Done>(load, { port, ...what })
  const usage = await told<Usage>(child, { order: 'stop' })
  if (done.failed > 0) throw new Error(`${done.failed} of ${done.latenciesMs.length} answers were not 200`)
  return { ...done, usage }
}

const turns = <T>(list: readonly T[], round: number): readonly T[] => (round % 2 === 0 ? list : list.toReversed())

/** One request at a time. */
const single = (bodies: readonly string[], requests: number) => ({ bodies, requests, connections: 1, seconds: 600 })

async function latency(load: ChildProcess, servers: ReadonlyMap<ServerName, Server>): Promise<Added[]> {
  const all: Added[] = []
  for (let round = -1; round < rounds; round++) {
    for (const server of turns(SERVERS, round)) {
      const { latenciesMs } = await measured(load, servers.get(server) as Server, single([PLAIN], Number(flags.requests)))
      const one = { arm: server, round, p50: at(latenciesMs, 0.5), p99: at(latenciesMs, 0.99) }
      if (round >= 0) all.push(one)
      say(`latency ${round} ${server}: p50 ${one.p50.toFixed(2)}, p99 ${one.p99.toFixed(2)} ms`)
    }
  }
  return all
}

/** Half the questions are on edits that the memory holds, half on names that it does not; each is new to the gateway, then asked again. */
async function retrieval(load: ChildProcess, gateway: Server): Promise<{ added: Retrieved[]; embedMs: number[] }> {
  const count = Number(flags.questions)
  const added: Retrieved[] = []
  const embedMs: number[] = []
  // Other questions in every run, since the gateway's caches start empty but its kept index does not.
  const from = (round: number, outside: boolean) => (outside ? edits : 0) + ((round * count) % Math.max(1, edits - count))
  for (let round = 0; round <= rounds; round++) {
    for (const outside of [false, true]) {
      const numbers = Array.from({ length: count }, (_, i) => from(round, outside) + i)
      const questions = numbers.map(asked)
      const on = questions.map((question) => ask(question, 'on'))
      const off = questions.map((question) => ask(question, 'off'))
      const where = outside ? 'of no edit' : 'of an edit'
      for (const [arm, bodies] of [
        ['off', off],
        ['first asked', on],
        ['asked again', on],
      ] as const) {
        const { latenciesMs, readMs } = await measured(load, gateway, single(bodies, bodies.length))
        const ranks = (ms: readonly number[]) => ({ p50: at(ms, 0.5), p99: at(ms, 0.99) })
        const rest = ranks(latenciesMs.map((ms, i) => ms - (readMs[i] ?? 0)))
        if (round > 0) added.push({ arm: `${arm}, ${where}`, round, ...ranks(latenciesMs), rest })
      }
    }
    const fresh = Array.from({ length: 50 }, (_, i) => asked(3 * edits + round * 50 + i))
    const times = await told<number[]>(gateway.child, { order: 'embed', texts: fresh })
    if (round > 0) embedMs.push(...times)
    const [last, again] = [added.at(-2), added.at(-1)]
    say(
      `retrieval ${round}: first asked p50 ${last?.p50.toFixed(2)}, p99 ${last?.p99.toFixed(2)}, again ${again?.p50.toFixed(2)}`,
    )
  }
  return { added, embedMs }
}

/** As many requests as the server answers. */
async function busy(load: ChildProcess, servers: ReadonlyMap<ServerName, Server>): Promise<Loaded[]> {
  const gateway = servers.get('gateway') as Server
  const again = Array.from({ length: 50 }, (_, i) => ask(asked(2 * edits + i), 'on'))
  const arms = [
    ...SERVERS.map((server) => ({ arm: server as string, server: servers.get(server) as Server, bodies: [PLAIN] })),
    { arm: 'gateway, edits on', server: gateway, bodies: again },
    { arm: 'gateway, streamed', server: gateway, bodies: [ask('Write one short sentence about rain.', 'off', true)] },
  ]
  const all: Loaded[] = []
  for (let round = -1; round < rounds; round++) {
    for (const { arm, server, bodies } of turns(arms, round)) {
      const limits = {
        connections: Number(flags.connections),
        requests: 1e9,
        seconds: Number(flags.seconds),
      }
      const { latenciesMs, seconds, usage } = await measured(load, server, { bodies, ...limits })
      const perSecond = latenciesMs.length / seconds
      const cpuMsPerRequest = usage.cpuMs / latenciesMs.length
      const one = { arm, round, perSecond, cpuMsPerRequest, p50: at(latenciesMs, 0.5), p99: at(latenciesMs, 0.99), ...usage }
      if (round >= 0) all.push(one)
      say(`load ${round} ${arm}: ${perSecond.toFixed(0)}/s, loop p99 ${usage.loopDelayMs.p99.toFixed(1)} ms`)
    }
  }
  return all
}

/** Whole answers and streams, edits off and on, sixty stretches. */
async function soak(load: ChildProcess, gateway: Server): Promise<Sample[]> {
  const minutes = Number(flags['soak-minutes'])
  const bodies = Array.from({ length: 600 }, (_, i) => ask(asked(2 * edits + (i % 300)), i % 3 === 0 ? 'off' : 'on', i % 2 === 0))
  const samples: Sample[] = []
  for (let stretch = 1; stretch <= 60; stretch++) {
    const limits = { connections: Number(flags.connections), requests: 1e9, seconds: minutes }
    const { latenciesMs, seconds, usage } = await measured(load, gateway, { bodies, ...limits })
    const { rssBytes, heapBytes } = usage
    samples.push({ minute: (stretch * minutes) / 60, rssBytes, heapBytes, perSecond: latenciesMs.length / seconds })
    if (stretch % 6 === 0)
      say(`soak ${stretch}/60: ${(rssBytes / 1e6).toFixed(0)} MB, ${(latenciesMs.length / seconds).toFixed(0)}/s`)
  }
  return samples
}

async function scripted(): Promise<Partial<Results>> {
  const servers = new Map<ServerName, Server>()
  for (const server of SERVERS) servers.set(server, await startServer(server))
  const gateway = servers.get('gateway') as Server
  const load = start('gateway/load.js')
  const found: Partial<Results> = {
    ...(wanted.includes('latency') && { latency: await latency(load, servers) }),
    ...(wanted.includes('load') && { load: await busy(load, servers) }),
    ...(wanted.includes('retrieval') && { retrieval: await retrieval(load, gateway) }),
    ...(wanted.includes('soak') && { soak: await soak(load, gateway) }),
  }
  for (const child of children.splice(0)) {
    child.disconnect()
    await new Promise((resolve) => child.once('exit', resolve))
  }
  return found
}

/** In a copy of the memory, since edits are added to it. */
async function first(): Promise<First[]> {
  const scratch = mkdtempSync(join(tmpdir(), 'palimpsest-bench-first-'))
  cpSync(dataDir, scratch, { recursive: true })
  const sizes = {
    rounds: Number(flags['first-rounds']),
    warmTokens: Number(flags['warm-tokens']),
    threads: Number(flags.threads),
  }
  const paths = {
    modelPath: flags.model,
    serverPath: hasServer(flags.home) ? serverPath(flags.home) : null,
    editsDir: join(scratch, 'no-edits'),
  }
  try {
    return await firstTokens({ ...sizes, ...paths, dataDir: scratch }, say)
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

try {
  const [load1 = 0] = loadavg()
  const results: Results = {
    at: new Date().toISOString(),
    machine: { cpu: cpus()[0]?.model ?? '', cores: cpus().length, loadAtStart: load1, node: process.version },
    setup: {
      edits,
      model: basename(flags.model),
      threads: Number(flags.threads),
      connections: Number(flags.connections),
      rounds,
    },
    // First of all, so that the memory is there.
    ...(await scripted()),
    ...(wanted.includes('first') && { first: await first() }),
  }
  mkdirSync(dirname(flags.out), { recursive: true })
  writeFileSync(`${flags.out}.json`, `${JSON.stringify(results, null, 1)}\n`)
  const text = tables(results)
  writeFileSync(`${flags.out}.md`, text)
  await writePlots(results, flags.out)
  console.log(text)
} finally {
  for (const child of children) child.kill()
}
process.exit()
