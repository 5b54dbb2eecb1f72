/**
 * A gateway in a process of its own under good and hostile load at once: `npm run bench:soak -- --minutes 30`. It prints the good requests'
 * times in quiet and under attack (`--only 'NAME;NAME'`: these attacks alone), and the slope of the memory. It ends with 1 where their 99th
 * percentile is beyond three times the quiet one, an answer is a 500, or the process ends.
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { openKeys } from '../src/server/access.ts'
import { table } from '../src/terminal/table.ts'
import { at } from './client.ts'
import { type Child, startChild } from './served.ts'
import type { Attack, Attacking } from './soak/attacks.ts'
import { type Send, sender } from './soak/send.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    quiet: { type: 'string', default: '2' },
    good: { type: 'string', default: '2' },
    hostile: { type: 'string', default: '2' },
    only: { type: 'string' },
    out: { type: 'string' },
  },
})
const [MINUTES, QUIET_MINUTES, GOOD_CLIENTS, HOSTILE_CLIENTS] = [values.minutes, values.quiet, values.good, values.hostile].map(
  Number,
) as [number, number, number, number]
const MINUTE_MS = 60_000
const SAMPLE_MS = 5_000
/** Between two requests of a good client: people think. */
const PAUSE_MS = 200
/** The bound of issue 19, for all good requests together; each kind has its own line. */
const MOST_SLOWER = 3
const MODEL = 'soak'
const ALL = 'all'

// ---- the server behind the gateway --------------------------------------------------------------------------------------------------

const piece = (content: string) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason: null }] })}\n\n`
const END = `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage: { prompt_tokens: 20, completion_tokens: 8 } })}\n\ndata: [DONE]\n\n`

/** What it answers where the last message asks for rubbish, one after the other. */
const RUBBISH: readonly ((res: ServerResponse) => void)[] = [
  (res) => res.writeHead(500).end('{"error":{"message":"no"}}'),
  (res) =>
    res
      .writeHead(200, { 'content-type': 'text/event-stream' })
      .end('data: {"choices":[{"delta":{"tool_calls":[{"index":200000000,"function":{"name":"f"}}]}}]}\n\n'),
  (res) => res.writeHead(200, { 'content-type': 'text/event-stream' }).end(`data: ${'x'.repeat(5_000_000)}`),
  (res) =>
    res
      .writeHead(200, { 'content-type': 'text/event-stream' })
      .end('data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":-1,"completion_tokens":1e999}}\n\n'),
  (res) => res.writeHead(200, { 'content-type': 'application/json' }).end('{"error":{"message":"no"}}'),
  (res) => res.destroy(),
]

async function behind(): Promise<Server> {
  let turn = 0
  const server = createServer(async (req, res) => {
    let body = ''
    for await (const chunk of req) body += chunk
    if (req.url?.endsWith('/models'))
      return void res.setHeader('content-type', 'application/json').end(JSON.stringify({ data: [{ id: MODEL }] }))
    if (body.includes('rubbish')) return RUBBISH[turn++ % RUBBISH.length]?.(res)
    res.writeHead(200, { 'content-type': 'text/event-stream' })
    for (let i = 0; i < 8 && !res.destroyed; i++) {
      res.write(piece(`word${i} `))
      await sleep(5)
    }
    res.end(END)
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return server
}

// ---- good clients ---------------------------------------------------------------------------------------------------------------------

interface Asked {
  readonly kind: string
  readonly ms: number
  readonly status: number
}

const GOOD: readonly (readonly [kind: string, work: (send: Send, n: number) => Promise<number>])[] = [
  [
    'chat',
    (send, n) =>
      send('/v1/chat/completions', {
        model: MODEL,
        messages: [{ role: 'user', content: `Who is the mayor of Town ${n % 50}?` }],
      }),
  ],
  [
    'stream',
    (send, n) =>
      send('/v1/chat/completions', {
        model: MODEL,
        stream: true,
        messages: [{ role: 'user', content: `What is new in Town ${n % 50}?` }],
      }),
  ],
  ['list', (send) => send('/v1/edits?limit=20')],
  [
    'edit',
    (send, n) =>
      send('/v1/edits', {
        id: `g${n % 20}`,
        subject: `Town ${n % 20}`,
        prompt: `The mayor of Town ${n % 20} is`,
        target_new: `Mayor ${n}`,
      }),
  ],
]

async function goodClient(send: Send, until: () => boolean, noted: (asked: Asked) => void): Promise<void> {
  for (let n = 0; !until(); n++) {
    const [kind, work] = GOOD[n % GOOD.length] as (typeof GOOD)[number]
    const start = performance.now()
    const status = await work(send, n).catch(() => 0)
    noted({ kind, ms: performance.now() - start, status })
    await sleep(PAUSE_MS)
  }
}

// ---- the run ----------------------------------------------------------------------------------------------------------------------------

/** MB an hour, by least squares, from a third of the run on: caches fill at first. */
function slope(samples: readonly { readonly minute: number; readonly mb: number }[]): number {
  const late = samples.slice(Math.floor(samples.length / 3))
  const mean = (of: (one: (typeof late)[number]) => number) =>
    late.reduce((sum, one) => sum + of(one), 0) / Math.max(1, late.length)
  const [x0, y0] = [mean(({ minute }) => minute), mean(({ mb }) => mb)]
  const over = late.reduce((sum, { minute }) => sum + (minute - x0) ** 2, 0)
  return over === 0 ? 0 : (60 * late.reduce((sum, { minute, mb }) => sum + (minute - x0) * (mb - y0), 0)) / over
}

async function goodFor(minutes: number, send: Send, isOver: () => boolean): Promise<Asked[]> {
  const asked: Asked[] = []
  const end = performance.now() + minutes * MINUTE_MS
  const until = () => performance.now() > end || isOver()
  await Promise.all(Array.from({ length: GOOD_CLIENTS }, () => goodClient(send, until, (one) => void asked.push(one))))
  return asked
}

/** Attackers have machines of their own, so theirs gives way to everybody here. */
async function attacked(attacking: Attacking): Promise<Attack[]> {
  const script = join(import.meta.dirname, 'soak/attacks.js')
  const { stdout } = await promisify(execFile)('chrt', ['--idle', '0', process.execPath, script, JSON.stringify(attacking)])
  return JSON.parse(stdout) as Attack[]
}

async function soak(child: Child, good: Send, token: string) {
  let ended = false
  child.process.once('close', () => {
    ended = true
  })
  await goodFor(0.25, good, () => ended) // caches and code are cold at first
  const quiet = await goodFor(QUIET_MINUTES, good, () => ended)
  const samples: { minute: number; mb: number }[] = []
  const begun = performance.now()
  const isOver = () => ended || performance.now() - begun > MINUTES * MINUTE_MS
  const watching = (async () => {
    for (; !isOver(); await sleep(SAMPLE_MS))
      samples.push({ minute: (performance.now() - begun) / MINUTE_MS, mb: child.rss() / 1e6 })
  })()
  const only = values.only?.split(';')
  const attacking = attacked({
    url: child.url,
    token,
    model: MODEL,
    clients: HOSTILE_CLIENTS,
    minutes: MINUTES,
    ...(only && { only }),
  })
  const under = await goodFor(MINUTES, good, isOver)
  const [attacks] = await Promise.all([attacking, watching])
  return { quiet, under, attacks, samples, ended }
}

const folder = mkdtempSync(join(tmpdir(), 'palimpsest-soak-'))
const server = await behind()
const store = await openKeys(folder)
const tokenOf = async (tenant: string) =>
  (await store.create({ name: tenant, tenant, scopes: ['inference', 'edits'] }, Date.now())).token
const [good, hostile] = [await tokenOf('good'), await tokenOf('hostile')]
await store.database.close()
const upstreams = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
const child = await startChild([
  '--data-dir',
  folder,
  '--edits-dir',
  join(folder, 'edits'),
  '--upstreams',
  upstreams,
  '--upstream-model',
  MODEL,
  '--auth',
  'keys',
])
try {
  const { quiet, under, attacks, samples, ended } = await soak(child, sender(child.url, good), hostile)
  const rows = [...GOOD.map(([kind]) => kind), ALL].map((kind) => {
    const isOf = (one: Asked) => kind === ALL || one.kind === kind
    const [before, now] = [quiet, under].map((asked) => asked.filter(isOf).map(({ ms }) => ms)) as [number[], number[]]
    const [calm, pressed] = [at(before, 0.99), at(now, 0.99)]
    const failed = under.filter((one) => isOf(one) && (one.status < 200 || one.status > 299)).length
    return {
      kind,
      n: now.length,
      calm50: at(before, 0.5),
      now50: at(now, 0.5),
      calm,
      pressed,
      ratio: pressed / calm,
      failed,
    }
  })
  const ms = (value: number) => value.toFixed(1)
  const heads = ['good', 'n>', 'p50 quiet>', 'p50>', 'p99 quiet>', 'p99>', 'ratio>', 'failed>']
  const shown = rows.map((r) => [
    r.kind,
    String(r.n),
    ms(r.calm50),
    ms(r.now50),
    ms(r.calm),
    ms(r.pressed),
    r.ratio.toFixed(2),
    String(r.failed),
  ])
  console.info(
    `${MINUTES} minutes under attack, ${GOOD_CLIENTS} good and ${HOSTILE_CLIENTS} hostile clients; milliseconds\n${table(heads, shown)}`,
  )
  const told = attacks.map(({ name, count, statuses, slowestMs }) => [
    name,
    String(count),
    ms(slowestMs),
    Object.entries(statuses)
      .map(([status, n]) => `${status === '0' ? 'left' : status}: ${n}`)
      .join(', '),
  ])
  console.info(table(['hostile', 'n>', 'slowest>', 'answers'], told))
  const first = samples[Math.floor(samples.length / 3)]?.mb ?? 0
  console.info(
    `memory: ${first.toFixed(0)} MB after a third, ${(samples.at(-1)?.mb ?? 0).toFixed(0)} MB at the end, ${slope(samples).toFixed(1)} MB an hour`,
  )
  const crashes = attacks.filter(({ statuses }) => 500 in statuses).map(({ name }) => name)
  // One that nothing was measured of is slow.
  const slow = rows.filter(({ ratio }) => !(ratio <= MOST_SLOWER))
  const verdict = [
    ...(ended ? ['the process ended'] : []),
    ...(crashes.length > 0 ? [`answers of 500: ${crashes.join(', ')}`] : []),
    ...(slow.some(({ kind }) => kind === ALL) ? [`p99 of all good requests beyond ${MOST_SLOWER} × quiet`] : []),
  ]
  const kinds = slow.flatMap(({ kind }) => (kind === ALL ? [] : kind))
  if (kinds.length > 0) console.info(`kinds whose own p99 is beyond ${MOST_SLOWER} × quiet: ${kinds.join(', ')}`)
  console.info(verdict.length === 0 ? 'held' : `not held: ${verdict.join('; ')}`)
  if (values.out !== undefined)
    writeFileSync(values.out, `${JSON.stringify({ minutes: MINUTES, rows, samples, attacks: told, verdict }, null, 1)}\n`)
  process.exitCode = verdict.length === 0 ? 0 : 1
} finally {
  await child.stop()
  server.closeAllConnections()
  server.close()
  rmSync(folder, { recursive: true, force: true })
}
