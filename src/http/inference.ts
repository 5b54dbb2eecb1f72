import { createHash, randomUUID } from 'node:crypto'
import type { Request, Response } from 'express'
import type { Finish, Piece } from '../engine/engine.ts'
import type { Gateway } from '../gateway.ts'
import { type ChatCall, type ChatReader, chatReader } from '../openai/chat.ts'
import { type Answer, chunk, completion, finishChunk, type Heading, usageChunk } from '../openai/completion.ts'
import { presentable } from '../openai/error.ts'
import { answer } from '../pipeline.ts'
import type { ChatRequest } from '../request.ts'
import { Trace } from '../trace.ts'
import { bytes, json } from './body.ts'
import { exchangeOf, goneSignal, refuseWhenClosing, tenantHeader } from './exchange.ts'
import { provenanceHeaders, serverTiming } from './provenance.ts'
import type { Routes } from './routes.ts'
import { EventStream } from './sse.ts'

/** `POST /v1/chat/completions` */
export function inferenceRoutes(gateway: Gateway): Routes {
  const read = chatReader(gateway.limits)
  return {
    '/v1/chat/completions': {
      post: [refuseWhenClosing(gateway), bytes(gateway.limits.chatBodyBytes), (req, res) => chat(req, res, gateway, read)],
    },
  }
}

async function chat(req: Request, res: Response, gateway: Gateway, read: ChatReader): Promise<void> {
  const { engine, templates, limits, now } = gateway
  const served = { model: engine.model.name, templates: templates.names() }
  const call = read(json(req, limits.jsonDepthLevels), tenantHeader(req), served)
  const heading: Heading = {
    id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
    created: Math.floor(now() / 1000),
    model: call.model,
    system_fingerprint: fingerprint(gateway),
  }
  const signal = goneSignal(res)
  if (call.stream) await streamed(res, call, heading, gateway, signal)
  else await whole(res, call, heading, gateway, signal)
}

/** Answers one after another: the later ones find the prompt in the first one's cache. */
async function whole(res: Response, call: ChatCall, heading: Heading, gateway: Gateway, signal: AbortSignal): Promise<void> {
  const { traces, startedMs } = exchangeOf(res)
  const answers: Answer[] = []
  for (let index = 0; index < call.n; index++) {
    let text = ''
    const finish = await drive(
      answer(choice(call.request, index), gateway, beginTrace(res, gateway), signal),
      signal,
      (piece) => {
        text += piece.text
      },
    )
    answers.push({ text, finish })
  }
  const [trace] = traces as [Trace]
  res.set({ ...provenanceHeaders(trace, gateway.limits.headerEdits), ...serverTiming(traces, gateway.now() - startedMs) })
  res.json(completion(heading, answers, trace, call.request.explain))
}

async function streamed(res: Response, call: ChatCall, heading: Heading, gateway: Gateway, signal: AbortSignal): Promise<void> {
  const { traces, startedMs } = exchangeOf(res)
  const { heartbeatMs, stalledMs, headerEdits } = gateway.limits
  const headers = () => ({
    ...(traces[0] && provenanceHeaders(traces[0], headerEdits)),
    ...serverTiming(traces, gateway.now() - startedMs),
  })
  const events = new EventStream(res, { heartbeatMs, stalledMs, headers })
  try {
    const finishes: Finish[] = []
    for (let index = 0; index < call.n; index++)
      finishes.push(await streamChoice(events, res, call, heading, gateway, signal, index))
    if (call.includeUsage) await events.send(usageChunk(heading, finishes))
    await events.done()
  } catch (thrown) {
    events.stop()
    if (!events.opened || signal.aborted) throw thrown
    const error = presentable(thrown)
    gateway.log.error({ request: exchangeOf(res).id, code: error.code, err: thrown }, 'stream failed')
    await events.fail(error)
  }
}

async function streamChoice(
  events: EventStream,
  res: Response,
  { request, includeUsage }: ChatCall,
  heading: Heading,
  gateway: Gateway,
  signal: AbortSignal,
  index: number,
): Promise<Finish> {
  const trace = beginTrace(res, gateway)
  let begun = false
  const begin = async () => {
    if (!begun) await events.send(chunk(heading, includeUsage, index, { role: 'assistant', content: '', refusal: null }))
    begun = true
  }
  const finish = await drive(answer(choice(request, index), gateway, trace, signal), signal, async (piece) => {
    await begin()
    if (piece.text !== '') await events.send(chunk(heading, includeUsage, index, { content: piece.text }))
  })
  await begin()
  await events.send(finishChunk(heading, includeUsage, index, finish, trace, request.explain))
  return finish
}

/** Runs a generation to its end, one piece at a time; closes it if `take` fails or the client leaves. */
async function drive(
  pieces: AsyncGenerator<Piece, Finish>,
  signal: AbortSignal,
  take: (piece: Piece) => void | Promise<void>,
): Promise<Finish> {
  try {
    for (;;) {
      const { done, value } = await pieces.next()
      if (done) return value
      await take(value)
      signal.throwIfAborted()
    }
  } finally {
    await pieces.return(undefined as never)
  }
}

function beginTrace(res: Response, gateway: Gateway): Trace {
  const { id, traces } = exchangeOf(res)
  const trace = new Trace(id, gateway.now)
  traces.push(trace)
  return trace
}

/** With a seed, the answers of one request differ but each is reproducible. */
function choice(request: ChatRequest, index: number): ChatRequest {
  const { seed } = request.sampling
  return seed === undefined ? request : { ...request, sampling: { ...request.sampling, seed: seed + index } }
}

function fingerprint({ engine, version }: Gateway): string {
  const { name, sha256, device } = engine.model
  return `fp_${createHash('sha256')
    .update(JSON.stringify([name, sha256, device, version]))
    .digest('hex')
    .slice(0, 10)}`
}
