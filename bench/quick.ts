/**
 * Whether something has become slower: ratios only, all of one run, in short rounds that take turns, medians over rounds.
 * `npm run bench:quick -- [--only proxy,memory,first,engines] [--rounds 5] [--write]`
 * Prints them beside those of bench/results/quick.json, and flags what is worse by more than a quarter; `--write` replaces that file.
 * `first` and `engines` want the 0.5B in the cache folder, `engines` a llama-server, too.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, homedir, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { hasServer, serverPath } from '../src/engine/llama-server/build.ts'
import { at, median } from './client.ts'
import { prompt, reply } from './engine/client.ts'
import type { Reply } from './engine/contender.ts'
import { firstTokens } from './gateway/first.ts'
import { chat, endChildren, freePort, OFF, palimpsest, QUESTIONS, startLoad, startStub, told } from './proxy/parts.ts'
import { compared, type Measure, tableOf } from './quick/compare.ts'
import { memoryRounds } from './quick/memory.ts'

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string', default: 'proxy,memory,first,engines' },
    rounds: { type: 'string', default: '5' },
    home: { type: 'string', default: join(homedir(), '.cache/palimpsest') },
    out: { type: 'string', default: 'bench/results/quick.json' },
    write: { type: 'boolean', default: false },
  },
})
const rounds = Number(flags.rounds)
const scratch = mkdtempSync(join(tmpdir(), 'palimpsest-bench-quick-'))
const model = join(flags.home, 'models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf')
const threads = Math.min(2, cpus().length)
const say = (text: string) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`)

const REQUESTS = 200
const CONNECTIONS = 16
const SECONDS = 1
const TOKENS = 32
const PROMPT_WORDS = 60
const FIRST_ROUNDS = 4
const ENGINE_ROUNDS = 3
const PORT = 18_480

const less = (name: string, ratios: readonly number[]): Measure => ({ name, ratio: median(ratios), better: 'less' })
const more = (name: string, ratios: readonly number[]): Measure => ({ name, ratio: median(ratios), better: 'more' })

interface Asked {
  readonly p50: number
  readonly perSecond: number
}

async function proxy(): Promise<Measure[]> {
  const port = await startStub()
  const load = startLoad()
  const own = await palimpsest(scratch, `http://127.0.0.1:${port}/v1`, await freePort())
  const bodies = (extra: object) => QUESTIONS.map((question) => chat(question, extra))
  const arms = [
    { name: 'direct', port, bodies: bodies({}) },
    { name: 'edits off', port: own.port, bodies: bodies(OFF) },
    { name: 'edits on', port: own.port, bodies: bodies({}) },
  ] as const
  const found = new Map<string, Asked[]>(arms.map(({ name }) => [name, []]))
  // Rounds -2 and -1 warm up.
  for (let round = -2; round < rounds; round++) {
    for (const arm of round % 2 === 0 ? arms : arms.toReversed()) {
      const ask = { port: arm.port, headers: {}, bodies: arm.bodies }
      const single = await told(load, { ...ask, connections: 1, requests: REQUESTS, seconds: 60 })
      const many = await told(load, { ...ask, connections: CONNECTIONS, requests: 1e9, seconds: SECONDS })
      if (single.failed + many.failed > 0) throw new Error(`${arm.name}: ${single.failed + many.failed} answers were not 200`)
      const one = { p50: at(single.latenciesMs, 0.5), perSecond: many.latenciesMs.length / many.seconds }
      if (round >= 0) found.get(arm.name)?.push(one)
    }
  }
  const direct = found.get('direct') ?? []
  const against = (name: string, of: (own: Asked, direct: Asked) => number) =>
    (found.get(name) ?? []).map((own, i) => of(own, direct[i] ?? { p50: Number.NaN, perSecond: Number.NaN }))
  return ['edits off', 'edits on'].flatMap((name) => [
    less(
      `proxy, ${name}: p50 added, in p50 of direct`,
      against(name, (own, direct) => (own.p50 - direct.p50) / direct.p50),
    ),
    more(
      `proxy, ${name}: requests a second at ${CONNECTIONS}, share of direct`,
      against(name, (own, direct) => own.perSecond / direct.perSecond),
    ),
  ])
}

async function memory(): Promise<Measure[]> {
  const all = await memoryRounds(rounds)
  return [
    less(
      '100 searches among 10,000 edits, in reference loops',
      all.map(({ search }) => search),
    ),
    less(
      '100 selections among 10,000 edits, in reference loops',
      all.map(({ selection }) => selection),
    ),
    less(
      '1,000 edits landed, in reference loops',
      all.map(({ landing }) => landing),
    ),
  ]
}

async function first(): Promise<Measure[]> {
  if (!existsSync(model)) return leftOut('first', `${model} is not there`)
  const sizes = { threads, rounds: FIRST_ROUNDS, warmTokens: 0, kinds: ['cold'] as const }
  const paths = { modelPath: model, serverPath: null, dataDir: join(scratch, 'first'), editsDir: join(scratch, 'no-edits') }
  const all = await firstTokens({ ...sizes, ...paths }, say)
  const of = (arm: string) => all.filter((one) => one.arm === arm).toSorted((a, b) => a.round - b.round)
  const base = of('edits off')
  return [
    less(
      'first token of a cold prompt, one edit firing, in those of base',
      of('one firing').map(({ firstMs }, i) => firstMs / (base[i]?.firstMs ?? Number.NaN)),
    ),
  ]
}

async function engines(): Promise<Measure[]> {
  if (!existsSync(model) || !hasServer(flags.home)) return leftOut('engines', 'the 0.5B or a llama-server is not there')
  const contenders: { child: ChildProcess; perSecond: number[] }[] = []
  try {
    for (const [i, contender] of (['embedded', 'server'] as const).entries()) {
      const child = fork(join(import.meta.dirname, 'engine/contender.js'))
      contenders.push({ child, perSecond: [] })
      const setup = { contender, modelPath: model, command: serverPath(flags.home), threads }
      await reply(child, { ...setup, slots: 1, contextTokens: 1024, port: PORT + i })
    }
    let serial = 0
    // Round -1 warms up.
    for (let round = -1; round < ENGINE_ROUNDS; round++) {
      for (const { child, perSecond } of round % 2 === 0 ? contenders : contenders.toReversed()) {
        const start = performance.now()
        const { answers } = await reply<Reply>(child, { prompts: [prompt(++serial, PROMPT_WORDS)], tokens: TOKENS })
        const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0)
        if (round >= 0) perSecond.push((tokens * 1_000) / (performance.now() - start))
      }
    }
  } finally {
    for (const { child } of contenders) child.send('end')
  }
  const [embedded, server] = contenders.map(({ perSecond }) => perSecond)
  const ratios = server?.map((one, i) => one / (embedded?.[i] ?? Number.NaN)) ?? []
  return [more('tokens a second of llama-server, in those of the embedded engine', ratios)]
}

function leftOut(part: string, why: string): Measure[] {
  say(`${part} is left out: ${why}`)
  return []
}

const PARTS: Readonly<Record<string, () => Promise<Measure[]>>> = { proxy, memory, first, engines }

interface Results {
  readonly at: string
  readonly cpu: string
  readonly cores: number
  readonly load: number | undefined
  readonly measures: readonly Measure[]
}

function end(): void {
  endChildren()
  rmSync(scratch, { recursive: true, force: true })
}

process.once('SIGINT', () => process.exit(130)).once('exit', end)
const found: Measure[] = []
for (const part of flags.only.split(',')) {
  const measure = PARTS[part]
  if (measure === undefined) throw new Error(`--only: expected some of ${Object.keys(PARTS).join(', ')}, but got ${part}`)
  say(part)
  found.push(...(await measure()))
}
const last = existsSync(flags.out) ? (JSON.parse(readFileSync(flags.out, 'utf8')) as Results) : null
const table = compared(found, last?.measures ?? [])
console.log(`${cpus()[0]?.model}, ${cpus().length} cores; last: ${last === null ? 'none' : `${last.at}, ${last.cpu}`}\n`)
console.log(tableOf(table))
const worse = table.filter((row) => row.worse).length
if (worse > 0) console.log(`\n${worse} worse by more than a quarter: run it once more on a quiet machine before you believe it.`)
if (flags.write) {
  // What was left out this time keeps its last figure.
  const kept = (last?.measures ?? []).filter(({ name }) => !found.some((one) => one.name === name))
  const machine = { cpu: cpus()[0]?.model ?? '', cores: cpus().length, load: loadavg()[0] }
  const results: Results = { at: new Date().toISOString(), ...machine, measures: [...found, ...kept] }
  writeFileSync(flags.out, `${JSON.stringify(results, null, 1)}\n`)
}
process.exit()
