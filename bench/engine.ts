/**
 * Tokens a second of the engines beside a bare llama-server built from the same source: same model file, threads and prompts, rounds taking
 * turns in one run, ratios within a round. `npm run bench:engine -- --model FILE [--rounds 3] [--contenders bare,server,…] [--out FILE]`
 */
import { type ChildProcess, fork } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, homedir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { serverPath } from '../src/engine/llama-server/build.ts'
import { median } from './client.ts'
import { prompt, reply } from './engine/client.ts'
import { type Answer, CONTENDERS, type Contender, type Reply } from './engine/contender.ts'

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string', default: join(homedir(), '.cache/palimpsest/models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf') },
    home: { type: 'string', default: join(homedir(), '.cache/palimpsest') },
    server: { type: 'string' },
    contenders: { type: 'string', default: CONTENDERS.join(',') },
    clients: { type: 'string', default: '1,4,8' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    words: { type: 'string', default: '180' },
    tokens: { type: 'string', default: '64' },
    out: { type: 'string', default: 'bench/results/engine.json' },
  },
})
const contenders = flags.contenders.split(',') as Contender[]
const clientCounts = flags.clients.split(',').map(Number)

interface Measured {
  readonly contender: Contender
  readonly clients: number
  readonly round: number
  /** Tokens of answers a second, of all clients together, prompts included in the time. */
  readonly perSecond: number
  /** Tokens a second of one answer once it has begun, mean over the clients. */
  readonly decodePerSecond: number
  readonly firstMs: number
  /** Processor milliseconds for each token of an answer, prompts included. */
  readonly cpuMsPerToken: number
  readonly tokens: number
  readonly promptTokens: number
}

let serial = 0
async function measure(child: ChildProcess, contender: Contender, clients: number, round: number): Promise<Measured> {
  const prompts = Array.from({ length: clients }, () => prompt(++serial, Number(flags.words)))
  const start = performance.now()
  const { answers, cpuMs } = await reply<Reply>(child, { prompts, tokens: Number(flags.tokens) })
  const seconds = (performance.now() - start) / 1000
  const mean = (of: (answer: Answer) => number) => answers.reduce((sum, answer) => sum + of(answer), 0) / answers.length
  const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0)
  const decodePerSecond = mean(({ tokens, totalMs, firstMs }) => ((tokens - 1) * 1000) / (totalMs - firstMs))
  const found = {
    contender,
    clients,
    round,
    perSecond: tokens / seconds,
    decodePerSecond,
    firstMs: mean((a) => a.firstMs),
    cpuMsPerToken: cpuMs / tokens,
  }
  return { ...found, tokens, promptTokens: answers.reduce((sum, answer) => sum + answer.promptTokens, 0) }
}

const children = new Map<Contender, ChildProcess>()
try {
  for (const [i, contender] of contenders.entries()) {
    const child = fork(join(import.meta.dirname, 'engine/contender.js'))
    children.set(contender, child)
    await reply(child, {
      ...{ contender, modelPath: flags.model, command: flags.server ?? serverPath(flags.home), threads: Number(flags.threads) },
      ...{ slots: Math.max(...clientCounts), contextTokens: 1024, port: 18_400 + i },
    })
  }
  const all: Measured[] = []
  // Round 0 warms up and does not count.
  for (let round = 0; round <= Number(flags.rounds); round++) {
    for (const clients of round === 0 ? [1] : clientCounts) {
      const order = round % 2 === 0 ? contenders : contenders.toReversed()
      for (const contender of order) {
        const found = await measure(children.get(contender) as ChildProcess, contender, clients, round)
        if (round > 0) all.push(found)
        console.error(
          `round ${round} ${contender} × ${clients}: ${found.perSecond.toFixed(1)} tok/s, decode ${found.decodePerSecond.toFixed(1)}, ${found.cpuMsPerToken.toFixed(0)} ms of processor a token`,
        )
      }
    }
  }
  const of = (contender: Contender, clients: number) => all.filter((m) => m.contender === contender && m.clients === clients)
  console.log(`${basename(flags.model)}, ${flags.threads} threads, ${cpus()[0]?.model}, ${flags.rounds} rounds, medians`)
  console.log(
    '| engine | clients | tok/s | against bare | decode tok/s a client | against bare | first token ms | processor ms a token | bare over it |\n|---|---|---|---|---|---|---|---|---|',
  )
  for (const contender of contenders) {
    for (const clients of clientCounts) {
      const [own, bare] = [of(contender, clients), of('bare', clients)]
      const ratio = (of: (m: Measured) => number) =>
        bare.length === 0 ? '–' : median(own.map((m, i) => of(m) / of(bare[i] as Measured))).toFixed(3)
      console.log(
        `| ${contender} | ${clients} | ${median(own.map((m) => m.perSecond)).toFixed(1)} | ${ratio((m) => m.perSecond)} | ${median(own.map((m) => m.decodePerSecond)).toFixed(1)} | ${ratio((m) => m.decodePerSecond)} | ${median(own.map((m) => m.firstMs)).toFixed(0)} | ${median(own.map((m) => m.cpuMsPerToken)).toFixed(0)} | ${ratio((m) => 1 / m.cpuMsPerToken)} |`,
      )
    }
  }
  mkdirSync(dirname(flags.out), { recursive: true })
  writeFileSync(
    flags.out,
    `${JSON.stringify({ model: basename(flags.model), threads: Number(flags.threads), cpu: cpus()[0]?.model, all }, null, 1)}\n`,
  )
} finally {
  for (const child of children.values()) child.send('end')
}
