import { randomUUID } from 'node:crypto'
import type { Request, Response } from 'express'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import { answer } from '../../pipeline.ts'
import type { Trace } from '../../trace.ts'
import { chatReader } from '../../wire/openai/chat.ts'
import { obfuscated } from '../../wire/openai/completion.ts'
import { responseEvent, responseReply } from '../../wire/openai/replies.ts'
import {
  inResponseNames,
  type ResponseCall,
  type ResponseReader,
  responseBody,
  responseReader,
} from '../../wire/openai/responses/request.ts'
import { ResponseBuilder, type ResponseEvent } from '../../wire/openai/responses/response.ts'
import { deletedReply } from '../../wire/palimpsest/replies.ts'
import { provenanceHeaders, warningHeader } from '../reply/provenance.ts'
import { drive, failure, openEvents, randomText } from '../reply/reply.ts'
import type { ResponseStore } from '../reply/response-store.ts'
import { bytes, json } from '../request/body.ts'
import { withinBudget } from '../request/budget.ts'
import { pathParam, tenantOf, tenantOnly } from '../request/query.ts'
import { beginTrace, exchangeOf, goneSignal, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { calledBy, servedBy } from '../request/request-identity.ts'
import { type Routes, route } from '../routes.ts'

/** `POST /v1/responses`, another rim onto the same answers as a chat's; `GET` and `DELETE /v1/responses/ID` for those still kept. */
export function responseRoutes(gateway: Gateway, store: ResponseStore): Routes {
  const { limits } = gateway
  const read = responseReader(limits, chatReader(limits))
  const respond = (req: Request, res: Response) => responses(req, res, gateway, store, read)
  return {
    '/v1/responses': {
      post: route(
        {
          summary: 'Answer, in the shape that Codex and current SDKs speak.',
          description:
            'The latest responses are kept, for `previous_response_id`: in memory, which a restart empties, or in the database that gateways share.',
          body: responseBody(limits),
          reply: responseReply,
          stream: {
            type: 'text/event-stream',
            when: 'With `stream: true`: named events. A fault after the first is an `error` event and `response.failed`.',
            each: responseEvent,
          },
          answers: true,
        },
        refuseWhenClosing(gateway),
        bytes(limits.chatBodyBytes),
        respond,
      ),
    },
    '/v1/responses/:id': {
      get: route(
        { summary: 'Read a response that is still kept.', query: tenantOnly, reply: responseReply },
        async (req, res) => {
          const id = pathParam(req, 'id')
          const response = await store.response(tenantOf(req), id)
          if (response === undefined) throw notKept(id)
          res.json(response)
        },
      ),
      delete: route(
        { summary: 'Forget a response.', query: tenantOnly, reply: deletedReply('response.deleted') },
        async (req, res) => {
          const id = pathParam(req, 'id')
          if (!(await store.drop(tenantOf(req), id))) throw notKept(id)
          res.json({ id, object: 'response.deleted', deleted: true })
        },
      ),
    },
  }
}

function notKept(id: string): PalimpsestError {
  return new PalimpsestError(
    'response_not_found',
    `The response '${id.slice(0, 64)}' is not kept, or not any more: only the latest are.`,
    { param: 'id' },
  )
}

async function responses(
  req: Request,
  res: Response,
  gateway: Gateway,
  store: ResponseStore,
  read: ResponseReader,
): Promise<void> {
  const { engine, limits, now } = gateway
  const served = servedBy(gateway)
  const asked = await read(json(req, limits.jsonDepthLevels), tenantHeader(req), served, store)
  const id = newId('resp')
  const { messages, tools, sampling } = asked.chat.request
  const promptTokens = () => engine.countTokens({ messages, ...(tools && { tools }) })
  const bounded = await withinBudget(res, gateway, { sampling, promptTokens, answers: 1 })
  const request = { ...calledBy(asked.chat.request, req, id, asked.chat), sampling: bounded }
  const call = { ...asked, chat: { ...asked.chat, request } }
  const { stream } = call.chat
  exchangeOf(res).call = { operation: 'chat', id, model: request.model, stream, n: 1, request }
  const builder = new ResponseBuilder({ id, created_at: Math.floor(now() / 1000), echo: call.echo }, newId)
  // Kept before it is sent: the next request may name it at once.
  const keep = async (response: object) => {
    const items = [...call.input, ...builder.conversation()]
    if (!call.store) return
    // An answer is not lost because it can't be kept; whoever refers to it is told.
    await store.keep(request.tenant, id, { response, items, previous: call.previous }).catch((err: unknown) => {
      gateway.log.warn({ request: id, err }, 'a response was not kept')
    })
  }
  if (call.leftOut.length > 0)
    res.set(warningHeader(`tools left out, since only functions can be called here: ${call.leftOut.join(', ')}`))
  const trace = beginTrace(res, gateway)
  const job: ResponseJob = { call, builder, trace, gateway, keep, signal: goneSignal(res) }
  if (stream) return streamed(res, job)
  const response = await build(job, async () => {})
  res.set(provenanceHeaders(trace, limits.headerEdits)).json(response)
}

interface ResponseJob {
  readonly call: ResponseCall
  readonly builder: ResponseBuilder
  readonly trace: Trace
  readonly gateway: Gateway
  readonly keep: (response: object) => Promise<void>
  readonly signal: AbortSignal
}

/** The whole response, its events sent as they come; the first of them once the model has begun. */
async function build(
  { call, builder, trace, gateway, keep, signal }: ResponseJob,
  send: (events: readonly ResponseEvent[]) => Promise<void>,
): Promise<object> {
  const { request } = call.chat
  let begun = false
  const begin = async () => {
    if (!begun) await send(builder.begin())
    begun = true
  }
  const pieces = answer(request, gateway, trace, signal)
  const finish = await drive(pieces, signal, async (piece) => {
    await begin()
    await send(builder.add(piece))
  }).catch((thrown: unknown) => {
    throw inResponseNames(thrown)
  })
  await begin()
  const { events, response } = builder.end(finish, trace, request.explain, Math.floor(gateway.now() / 1000))
  await keep(response)
  await send(events)
  return response
}

async function streamed(res: Response, job: ResponseJob): Promise<void> {
  const stream = openEvents(res, job.gateway)
  const { obfuscate } = job.call.chat
  const send = async (events: readonly ResponseEvent[]) => {
    for (const event of events)
      await stream.send(obfuscate && 'delta' in event ? obfuscated(event, randomText) : event, event.type)
  }
  try {
    await build(job, send)
  } catch (thrown) {
    stream.stop()
    if (!stream.opened || job.signal.aborted) throw thrown
    await send(job.builder.fail(failure(thrown, res, job.gateway)))
  }
  stream.end()
}

function newId(prefix: string): string {
  return `${prefix}_${randomUUID().replaceAll('-', '')}`
}
