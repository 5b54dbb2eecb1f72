/**
 * One server of bench/gateway.ts in a process of its own, over a scripted engine: the gateway as it is served (default limits, log at `warn`),
 * or a pass-through that reads the request, asks the same engine and writes an answer of the same shape, in node:http or Express.
 */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import express from 'express'
import { createApp } from '../../src/app.ts'
import { Bridges } from '../../src/engine/bridge.ts'
import { openRuntime } from '../../src/engine/embedded/runtime.ts'
import type { Embedder } from '../../src/engine/engine.ts'
import { openScripted } from '../../src/engine/scripted.ts'
import { DEFAULT_LIMITS, type Gateway } from '../../src/gateway.ts'
import { openMemory } from '../../src/memory/store.ts'
import { cachedEmbedder } from '../../src/memory/vectors/cached-embedder.ts'
import { EMBED_PREFIX, EMBEDDER_MODEL, READER_MODEL } from '../../src/models/catalog.ts'
import { openTemplates } from '../../src/prompt/templates.ts'
import { readCalibration } from '../../src/selection/gate.ts'
import { cachedReader } from '../../src/selection/reader-cache.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { openLog } from '../../src/server/console-log.ts'
import { Trace } from '../../src/trace.ts'
import { edit, recipeEmbedder } from '../scale/vectors.ts'

export const SERVERS = ['node:http', 'express', 'gateway'] as const
export type ServerName = (typeof SERVERS)[number]

export interface Setup {
  readonly server: ServerName
  readonly embedderPath: string
  readonly readerPath: string
  /** Kept between runs. */
  readonly dataDir: string
  readonly vectors: string
  readonly edits: number
}

/** `start` begins a measurement, `stop` ends it, `embed` times the embedder alone. */
export type Order = Setup | { readonly order: 'start' | 'stop' | 'end' } | { readonly order: 'embed'; readonly texts: string[] }

export interface Ready {
  readonly port: number
}

export interface Usage {
  readonly cpuMs: number
  readonly rssBytes: number
  readonly heapBytes: number
  /** What timers came late by. */
  readonly loopDelayMs: { readonly p50: number; readonly p99: number; readonly max: number }
}

const MODEL = 'scripted'
const ANSWER = 'A scripted answer, as long as a short sentence of a model.'
const engine = openScripted({ name: MODEL, reply: () => ANSWER, contextTokens: 1_000_000 })
const DATA_BATCH = 50_000

/** What a plain server does for a chat: no field checked, nothing looked up. */
async function plainly(body: { readonly model: string; readonly messages: readonly { role: 'user'; content: string }[] }) {
  const sampling = { temperature: 0, topP: 1, maxTokens: undefined, stop: [] }
  const trace = new Trace('bench', () => performance.now())
  const answer = engine.generate({ messages: body.messages } as never, sampling as never, trace, new AbortController().signal)
  let content = ''
  for (;;) {
    const { done, value } = await answer.next()
    if (done) {
      const usage = { prompt_tokens: value.promptTokens, completion_tokens: value.completionTokens }
      const choices = [{ index: 0, message: { role: 'assistant', content }, finish_reason: value.reason }]
      return {
        id: 'chatcmpl-1',
        object: 'chat.completion',
        created: Math.floor(Date.now() / 1_000),
        model: body.model,
        choices,
        usage,
      }
    }
    content += value.text
  }
}

const inNodeHttp: RequestListener = (req, res) => {
  const chunks: Buffer[] = []
  req.on('data', (chunk: Buffer) => chunks.push(chunk))
  req.on('end', async () => {
    const text = JSON.stringify(await plainly(JSON.parse(Buffer.concat(chunks).toString('utf8'))))
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }).end(text)
  })
}

function inExpress(): RequestListener {
  const app = express()
  app.post('/v1/chat/completions', express.json(), async (req, res) => void res.json(await plainly(req.body)))
  return app
}

let embedder: Embedder | undefined

async function inGateway({ embedderPath, readerPath, dataDir, vectors, edits }: Setup): Promise<RequestListener> {
  const log = openLog('warn')
  const runtime = await openRuntime({ threads: 1, gpu: false, log: () => undefined })
  const real = await runtime.openEmbedder({
    modelPath: embedderPath,
    name: EMBEDDER_MODEL,
    prefix: EMBED_PREFIX[EMBEDDER_MODEL] ?? '',
  })
  embedder = real
  const recipe = await recipeEmbedder(async () => real, vectors)
  // Edits are made up, and so are their vectors (scale/vectors.ts); what is asked is embedded for real.
  const mixed: Embedder = { ...real, embed: (texts, priority) => (priority === 'import' ? recipe : real).embed(texts, priority) }
  const cached = cachedEmbedder(mixed, 32 << 20)
  const memory = await openMemory({ dataDir, embedder: cached, now: Date.now, log })
  const held = memory.list({ tenant: 'default', state: 'live', limit: 1 }).total
  for (let from = held; from < edits; from += DATA_BATCH) {
    const batch = Array.from({ length: Math.min(DATA_BATCH, edits - from) }, (_, i) => edit(from + i))
    await memory.land(batch, { source: 'bench', tenant: 'default', dryRun: false })
  }
  await memory.indexed()
  const reader = cachedReader(await runtime.openReader({ modelPath: readerPath, name: READER_MODEL }), 32 << 20)
  const retriever = new Retriever(memory, cached, reader, { now: Date.now, cacheBytes: 32 << 20 })
  const gateway: Gateway = {
    ...{ engine, memory, retriever, log, limits: DEFAULT_LIMITS, calibration: readCalibration() },
    templates: openTemplates({ dir: 'templates', watch: false, log }),
    multiHop: { mode: 'chain', bridges: new Bridges(engine) },
    now: () => performance.timeOrigin + performance.now(),
    ...{ version: 'bench', startedAt: Date.now() },
  }
  return createApp(gateway)
}

async function serve(setup: Setup): Promise<Ready> {
  const listeners = { 'node:http': () => inNodeHttp, express: inExpress, gateway: () => inGateway(setup) }
  const server = createServer(await listeners[setup.server]())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { port: (server.address() as AddressInfo).port }
}

/** The histogram holds the time between two beats of a timer, its period included. */
const RESOLUTION_MS = 1
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
let cpu = process.cpuUsage()

function stop(): Usage {
  delay.disable()
  const { user, system } = process.cpuUsage(cpu)
  const { rss, heapUsed } = process.memoryUsage()
  const late = (ns: number) => Math.max(0, ns / 1e6 - RESOLUTION_MS)
  return {
    ...{ cpuMs: (user + system) / 1_000, rssBytes: rss, heapBytes: heapUsed },
    loopDelayMs: { p50: late(delay.percentile(50)), p99: late(delay.percentile(99)), max: late(delay.max) },
  }
}

async function embedTimes(texts: readonly string[]): Promise<number[]> {
  const times: number[] = []
  for (const text of texts) {
    const start = performance.now()
    await embedder?.embed([text], 'query')
    times.push(performance.now() - start)
  }
  return times
}

async function obey(order: Order): Promise<unknown> {
  if ('server' in order) return serve(order)
  switch (order.order) {
    case 'start':
      delay.reset()
      delay.enable()
      cpu = process.cpuUsage()
      return 'started'
    case 'stop':
      return stop()
    case 'embed':
      return embedTimes(order.texts)
    case 'end':
      return process.exit()
    default:
      throw new Error(`no such order: ${JSON.stringify(order satisfies never)}`)
  }
}

if (process.send !== undefined) {
  process.once('disconnect', () => process.exit())
  process.on('message', (order: Order) => {
    obey(order).then(
      (value) => process.send?.(value),
      (error) => process.send?.({ failed: error instanceof Error ? error.stack : String(error) }),
    )
  })
}
