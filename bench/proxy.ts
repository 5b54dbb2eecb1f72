/**
 * What the gateway costs over an HTTP upstream, beside its peers in one run: a stub upstream, the load and every server in processes of their
 * own, rounds taking turns, differences and ratios within a round, medians over rounds.
 * `npm run bench:proxy -- [--rounds 5] [--seconds 2] [--requests 300] [--peers portkey,litellm] [--out bench/results/proxy]`
 * Peers are installed from their registries into `--peers-dir` when they are not there. Writes OUT.json (every round) and OUT.md.
 */
import { type ChildProcess, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { at } from './client.ts'
import type { Done, Load } from './gateway/load.ts'
import {
  type Contender,
  chat,
  EDITS,
  endChildren,
  FIRING,
  freePort,
  OFF,
  palimpsest,
  QUESTIONS,
  serve,
  startLoad,
  startStub,
  told,
} from './proxy/parts.ts'
import { type Round, tables } from './proxy/report.ts'

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    requests: { type: 'string', default: '300' },
    streams: { type: 'string', default: '40' },
    connections: { type: 'string', default: '1,2,4,8,16,32,64' },
    peers: { type: 'string', default: 'portkey,litellm' },
    'peers-dir': { type: 'string', default: join(tmpdir(), 'palimpsest-peers') },
    out: { type: 'string', default: 'bench/results/proxy' },
    note: { type: 'string', default: '' },
  },
})
const rounds = Number(flags.rounds)
const wanted = flags.connections.split(',').map(Number)
const peers = flags.peers.split(',').filter((name) => name !== '')
const peersDir = resolve(flags['peers-dir'])
const scratch = mkdtempSync(join(tmpdir(), 'palimpsest-bench-proxy-'))
const say = (text: string) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`)

/** Versions that were measured. */
const PORTKEY = '@portkey-ai/gateway@1.15.2'
const LITELLM = 'litellm[proxy]==1.99.4'
const WARM_STREAMS = 1_000
const IDLE_MS = 10_000

function run(command: string, ...args: readonly string[]): void {
  const { status, stderr } = spawnSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}: ${stderr.slice(-1_000)}`)
}

function portkey(upstream: string, port: number): Promise<Contender> {
  const script = join(peersDir, 'node_modules/@portkey-ai/gateway/build/start-server.js')
  if (!existsSync(script)) run('npm', 'install', '--no-audit', '--no-fund', '--prefix', peersDir, PORTKEY)
  const headers = { 'x-portkey-provider': 'openai', 'x-portkey-custom-host': upstream, authorization: 'Bearer none' }
  return serve(scratch, 'portkey', port, process.execPath, [script, `--port=${port}`, '--headless'], headers)
}

function litellm(upstream: string, port: number): Promise<Contender> {
  const venv = join(peersDir, 'venv')
  const command = join(venv, 'bin/litellm')
  if (!existsSync(command)) {
    run('python3', '-m', 'venv', venv)
    run(join(venv, 'bin/pip'), 'install', '-q', LITELLM)
  }
  const config = join(scratch, 'litellm.yaml')
  const params = `model: openai/stub\n      api_base: ${upstream}\n      api_key: none`
  // Without a key, as the others are asked here.
  const open = 'general_settings:\n  dangerously_permit_weak_or_unset_master_key: true\n'
  writeFileSync(config, `model_list:\n  - model_name: stub\n    litellm_params:\n      ${params}\n${open}`)
  return serve(scratch, 'litellm', port, command, [
    '--config',
    config,
    '--host',
    '127.0.0.1',
    '--port',
    String(port),
    '--telemetry',
    'False',
  ])
}

const PEERS: Readonly<Record<string, (upstream: string, port: number) => Promise<Contender>>> = { portkey, litellm }

/** One way of asking a contender. */
interface Arm {
  readonly name: string
  readonly contender: Contender
  readonly bodies: readonly string[]
  /** One word after the other, as a model writes them. */
  readonly paced: readonly string[]
  /** As fast as may be. */
  readonly streamed: readonly string[]
}

function armsOf(contenders: readonly Contender[]): Arm[] {
  return contenders.flatMap((contender): Arm[] => {
    const arm = (name: string, more: object, whole: object = {}, questions = QUESTIONS): Arm => ({
      name,
      contender,
      bodies: questions.map((question) => chat(question, { ...more, ...whole })),
      paced: questions.map((question) => chat(`${question} (paced)`, { ...more, stream: true })),
      streamed: questions.map((question) => chat(question, { ...more, stream: true })),
    })
    if (contender.name !== 'palimpsest') return [arm(contender.name, {})]
    return [
      arm('palimpsest, edits off', OFF),
      arm('palimpsest, edits on', {}),
      arm('palimpsest, one edit fires', {}, {}, FIRING),
      // Without a bound the upstream is asked for a stream.
      arm('palimpsest, no max_tokens', OFF, { max_tokens: undefined }),
    ]
  })
}

/** A process and all that it started: processor microseconds, resident bytes. */
function usageOf(pid: number): { readonly cpuUs: number; readonly rssBytes: number } {
  const stats = readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return []
    try {
      const fields = readFileSync(`/proc/${entry}/stat`, 'utf8')
        .replace(/^.*\) /, '')
        .split(' ')
      return [
        {
          pid: Number(entry),
          parent: Number(fields[1]),
          ticks: Number(fields[11]) + Number(fields[12]),
          pages: Number(fields[21]),
        },
      ]
    } catch {
      return []
    }
  })
  const own = new Set([pid])
  for (let size = 0; size !== own.size; ) {
    size = own.size
    for (const { pid, parent } of stats) if (own.has(parent)) own.add(pid)
  }
  const all = stats.filter((one) => own.has(one.pid))
  const sum = (of: (one: (typeof all)[number]) => number) => all.reduce((total, one) => total + of(one), 0)
  // Of Linux: a hundred ticks a second, pages of 4 KiB.
  return { cpuUs: sum(({ ticks }) => ticks) * 10_000, rssBytes: sum(({ pages }) => pages) * 4_096 }
}

async function measured(
  load: ChildProcess,
  { name, paced, streamed, contender: { port, pid, headers } }: Arm,
  what: Omit<Load, 'port'>,
): Promise<Done & { readonly cpuUs: number }> {
  const before = pid === null ? 0 : usageOf(pid).cpuUs
  const done = await told(load, { port, headers, ...what })
  // Portkey 1.15.2 answers every stream with 500 (a fault of its own).
  if ((what.bodies === paced || what.bodies === streamed) && done.failed > 0)
    return { ...done, firstMs: [], gapsMs: [], cpuUs: Number.NaN }
  if (done.failed > 0) throw new Error(`${name}: ${done.failed} of ${done.latenciesMs.length} answers were not 200`)
  return { ...done, cpuUs: pid === null ? Number.NaN : (usageOf(pid).cpuUs - before) / done.latenciesMs.length }
}

/** The arms of one round one after the other, in turns forwards and backwards. */
async function round(load: ChildProcess, arms: readonly Arm[], number: number): Promise<Round[]> {
  const found: Round[] = []
  for (const arm of number % 2 === 0 ? arms : arms.toReversed()) {
    const one = { arm: arm.name, round: number }
    const single = await measured(load, arm, {
      bodies: arm.bodies,
      requests: Number(flags.requests),
      connections: 1,
      seconds: 60,
    })
    const latency = { p50: at(single.latenciesMs, 0.5), p99: at(single.latenciesMs, 0.99) }
    // Nobody's first streams: code that has not run is slow.
    if (number < 0) await measured(load, arm, { bodies: arm.streamed, requests: WARM_STREAMS, connections: 4, seconds: 20 })
    const paced = { bodies: arm.paced, requests: Number(flags.streams), connections: 1, seconds: 60 }
    const { firstMs, gapsMs } = await measured(load, arm, paced)
    const stream = { first: at(firstMs, 0.5), gap: at(gapsMs, 0.5), gap99: at(gapsMs, 0.99), words: gapsMs.length }
    const levels = []
    for (const connections of wanted) {
      const { latenciesMs, seconds, cpuUs } = await measured(load, arm, {
        ...{ bodies: arm.bodies, requests: 1e9, connections, seconds: Number(flags.seconds) },
      })
      levels.push({
        connections,
        perSecond: latenciesMs.length / seconds,
        p50: at(latenciesMs, 0.5),
        p99: at(latenciesMs, 0.99),
        cpuUs,
      })
    }
    found.push({ ...one, latency, stream, levels, loadAverage: loadavg()[0] ?? Number.NaN })
    const most = levels.find(({ connections }) => connections === 16) ?? levels.at(-1)
    say(
      `${number} ${arm.name}: p50 ${latency.p50.toFixed(2)} p99 ${latency.p99.toFixed(2)} ms, first ${stream.first.toFixed(2)} gap ${stream.gap.toFixed(3)} ms; at ${most?.connections}: ${most?.perSecond.toFixed(0)}/s, ${most?.cpuUs.toFixed(0)} µs`,
    )
  }
  return found
}

async function main(): Promise<void> {
  const port = await startStub()
  const upstream = `http://127.0.0.1:${port}/v1`
  const load = startLoad()
  const own = await palimpsest(scratch, upstream, await freePort())
  const contenders: Contender[] = [{ name: 'direct', port, pid: null, headers: {} }, own]
  for (const peer of peers) {
    const start = PEERS[peer]
    if (start === undefined) throw new Error(`--peers: expected some of ${Object.keys(PEERS).join(', ')}, but got ${peer}`)
    contenders.push(await start(upstream, await freePort()))
    say(`${peer} serves`)
  }
  const arms = armsOf(contenders)
  // Round -1 warms all of them up.
  await sleep(IDLE_MS)
  const memory = (of: string) =>
    contenders.flatMap(({ name, pid }) => (pid === null ? [] : [{ name, of, rssBytes: usageOf(pid).rssBytes }]))
  const idle = memory('idle')
  const all: Round[] = []
  for (let number = -1; number < rounds; number++) {
    const found = await round(load, arms, number)
    if (number >= 0) all.push(...found)
  }
  const loaded = memory('loaded')
  await sleep(3 * IDLE_MS)
  const results = {
    at: new Date().toISOString(),
    machine: { cpu: cpus()[0]?.model ?? '', cores: cpus().length, node: process.version },
    setup: { ...flags, edits: EDITS, portkey: PORTKEY, litellm: LITELLM },
    rounds: all,
    memory: [...idle, ...loaded, ...memory('after')],
  }
  mkdirSync(dirname(flags.out), { recursive: true })
  writeFileSync(`${flags.out}.json`, `${JSON.stringify(results, null, 1)}\n`)
  writeFileSync(`${flags.out}.md`, tables(results))
  console.log(tables(results))
}

function end(): void {
  endChildren()
  rmSync(scratch, { recursive: true, force: true })
}

process.once('SIGINT', () => process.exit(130)).once('exit', end)
await main()
process.exit()
