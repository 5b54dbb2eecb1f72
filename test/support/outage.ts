import { setTimeout as sleep } from 'node:timers/promises'
import type { PostgresServer } from './databases/postgres.ts'
import { type GatewayChild, RoundRobin } from './gateways.ts'

export interface OutageOptions {
  readonly server: PostgresServer
  /** Started, over the server. */
  readonly nodes: readonly GatewayChild[]
  /** How long the server is away. */
  readonly awayMs: number
  /** Requests under way at a time. */
  readonly workers: number
}

export interface OutageFigures {
  /** Answers while the server was away, and those of them that were streams. */
  answers: number
  streams: number
  /** Requests for an answer that failed, whenever. */
  readonly faults: string[]
  /** Writes refused with 503 and `Retry-After` while the server was away, and what else came of writes then. */
  refused: number
  readonly otherWrites: string[]
  /** Gateways whose /health said that the server is away. */
  noticed: number
  /** From the moment at which the server takes connections again. */
  writableAfterMs: number
  /** Until a write that a gateway took first after the outage is in effect on all. */
  caughtUpAfterMs: number
}

const WRITE_EVERY_MS = 1_000
const LOOK_MS = 50
/** After that, catching up has failed. */
const BACK_MS = 120_000
const MESSAGE = 'Who is the mayor of Lund?'

const send = (url: string, path: string, body: object) =>
  fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
const ask = (url: string, content: string, stream = false) =>
  send(url, '/v1/chat/completions', { model: 'scripted', messages: [{ role: 'user', content }], stream })
const write = (url: string, id: string, subject: string) =>
  send(url, '/v1/edits', { edits: [{ id, subject, prompt: `The mayor of ${subject} is`, target_new: 'Ada' }] })

/** Kills the server under load, starts it again after a while, and counts. The upstream is the scripted one, which says when it reads of Ada. */
export async function outage({ server, nodes, awayMs, workers }: OutageOptions): Promise<OutageFigures> {
  const figures: OutageFigures = {
    ...{ answers: 0, streams: 0, faults: [], refused: 0, otherWrites: [], noticed: 0, writableAfterMs: -1, caughtUpAfterMs: -1 },
  }
  const urls = nodes.map(({ url }) => url)
  await until(async () => (await write(urls[0] ?? '', 'lund', 'Lund')).ok)
  for (const url of urls) await until(async () => (await (await ask(url, MESSAGE)).text()).includes('edited'))
  const balancer = new RoundRobin(urls, 100)
  let isAway = false
  let isOver = false
  const asking = async (n: number) => {
    for (let i = n; !isOver; i++) {
      const stream = i % 2 === 0
      const began = isAway
      const fault = await answered(balancer.next(), stream).catch((error: unknown) => String((error as Error).cause ?? error))
      if (fault !== null) figures.faults.push(fault)
      else if (began && isAway) {
        figures.answers++
        if (stream) figures.streams++
      }
    }
  }
  const asked = Array.from({ length: workers }, (_, n) => asking(n))
  await sleep(1_000)
  await server.kill()
  isAway = true
  const end = performance.now() + awayMs
  for (let n = 0; performance.now() < end; n++) {
    const response = await write(balancer.next(), `away-${n}`, `Away ${n}`)
    if (response.status === 503 && response.headers.has('retry-after')) figures.refused++
    else figures.otherWrites.push(`${response.status}: ${await response.text()}`)
    await sleep(Math.min(WRITE_EVERY_MS, Math.max(0, end - performance.now())))
  }
  figures.noticed = (await Promise.all(urls.map(memoryOf))).filter(({ log }) => log.state === 'away').length
  isAway = false
  await server.start()
  const back = performance.now()
  let version = Number.POSITIVE_INFINITY
  await until(async () => {
    const response = await write(urls[0] ?? '', 'back', 'Back Town')
    version = response.ok ? Number(response.headers.get('palimpsest-memory-version')) : version
    return response.ok
  })
  figures.writableAfterMs = performance.now() - back
  await Promise.all(urls.map((url) => until(async () => (await memoryOf(url)).version >= version)))
  figures.caughtUpAfterMs = performance.now() - back
  for (const url of urls)
    if (!(await (await ask(url, 'Who is the mayor of Back Town?')).text()).includes('edited'))
      figures.faults.push(`${url}: what was written after the outage is not in effect`)
  isOver = true
  await Promise.all(asked)
  await balancer.close()
  return figures
}

/** Null, or what is wrong with the answer: edits apply throughout, and streams come to their end. */
async function answered(url: string, stream: boolean): Promise<string | null> {
  const response = await ask(url, MESSAGE, stream)
  const text = await response.text()
  if (response.status !== 200) return `${response.status}: ${text}`
  if (stream && !text.endsWith('data: [DONE]\n\n')) return `cut: ${text.slice(-300)}`
  return text.includes('edited') ? null : `not edited: ${text.slice(0, 300)}`
}

async function memoryOf(url: string) {
  const health = (await (await fetch(`${url}/health`)).json()) as { memory: { version: number; log: { state: string } } }
  return health.memory
}

async function until(work: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + BACK_MS
  while (!(await work())) {
    if (performance.now() > end) throw new Error(`not so within ${BACK_MS} ms: ${work}`)
    await sleep(LOOK_MS)
  }
}
