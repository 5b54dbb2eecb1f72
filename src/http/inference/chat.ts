import type { Request, Response } from 'express'
import type { Finish, Piece } from '../../engine/engine.ts'
import type { Gateway } from '../../gateway.ts'
import { answer } from '../../pipeline.ts'
import { type ChatCall, type ChatReader, chatBody, chatReader } from '../../wire/openai/chat.ts'
import {
  type Answer,
  chunk,
  completion,
  deltaOf,
  finishChunk,
  Gathering,
  type Heading,
  obfuscated,
  usageChunk,
} from '../../wire/openai/completion.ts'
import { chatChunk, chatReply } from '../../wire/openai/replies.ts'
import { choice, drive, headingOf, randomText, replyHeaders, streaming } from '../reply/reply.ts'
import type { EventStream } from '../reply/sse.ts'
import { bytes, json } from '../request/body.ts'
import { withinBudget } from '../request/budget.ts'
import { beginTrace, exchangeOf, goneSignal, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { calledBy, servedBy } from '../request/request-identity.ts'
import { type Routes, route } from '../routes.ts'

/** `POST /v1/chat/completions` */
export function inferenceRoutes(gateway: Gateway): Routes {
  const read = chatReader(gateway.limits)
  return {
    '/v1/chat/completions': {
      post: route(
        {
          summary: 'Answer a conversation.',
          description: 'The default temperature is 0. A last message of the assistant is answered by another, not continued.',
          body: chatBody(gateway.limits),
          reply: chatReply,
          stream: {
            type: 'text/event-stream',
            when: 'With `stream: true`: an event a chunk, and `[DONE]`. A fault after the first event is one event in the shape of Error.',
            each: chatChunk,
          },
          answers: true,
          errors: ['insufficient_quota'],
        },
        refuseWhenClosing(gateway),
        bytes(gateway.limits.chatBodyBytes),
        (req, res) => chat(req, res, gateway, read),
      ),
    },
  }
}

async function chat(req: Request, res: Response, gateway: Gateway, read: ChatReader): Promise<void> {
  const { engine, limits } = gateway
  const served = servedBy(gateway)
  const asked = read(json(req, limits.jsonDepthLevels), tenantHeader(req), served)
  const heading = headingOf('chatcmpl', asked, gateway)
  const { messages, tools, sampling } = asked.request
  const promptTokens = () => engine.countTokens({ messages, ...(tools && { tools }) })
  const bounded = await withinBudget(res, gateway, { sampling, promptTokens, answers: asked.n })
  // Of an answer that is broken off, a budget counts what came.
  const isCounted = exchangeOf(res).key?.tokensPerDay !== undefined
  const whole = !asked.stream && !isCounted
  const request = { ...calledBy(asked.request, req, heading.id, asked), sampling: bounded, whole }
  const call = { ...asked, request }
  const { n, stream } = call
  exchangeOf(res).call = { operation: 'chat', id: heading.id, model: request.model, stream, n, request }
  const signal = goneSignal(res)
  if (call.stream) await streamed(res, call, heading, gateway, signal)
  else await inOne(res, call, heading, gateway, signal)
}

/** Answers one after another: the later ones find the prompt in the first one's cache. */
async function inOne(res: Response, call: ChatCall, heading: Heading, gateway: Gateway, signal: AbortSignal): Promise<void> {
  const answers: Answer[] = []
  for (let index = 0; index < call.n; index++) {
    const parts = new Gathering(answerId(heading, index))
    const pieces = answer(choice(call.request, index), gateway, beginTrace(res, gateway), signal)
    const finish = await drive(pieces, signal, (piece) => parts.add(piece))
    answers.push(parts.answer(finish, call.request.sampling.logprobs !== undefined))
  }
  const [trace] = exchangeOf(res).traces
  if (trace === undefined) throw new Error('no answer was begun')
  res.set(replyHeaders(res, gateway))
  res.json(completion(heading, answers, trace, call.request.explain))
}

async function streamed(res: Response, call: ChatCall, heading: Heading, gateway: Gateway, signal: AbortSignal): Promise<void> {
  await streaming(res, gateway, signal, async (events) => {
    const finishes: Finish[] = []
    for (let index = 0; index < call.n; index++)
      finishes.push(await streamChoice(events, res, call, heading, gateway, signal, index))
    if (call.includeUsage) await events.send(usageChunk(heading, finishes))
  })
}

async function streamChoice(
  events: EventStream,
  res: Response,
  { request, includeUsage, obfuscate }: ChatCall,
  heading: Heading,
  gateway: Gateway,
  signal: AbortSignal,
  index: number,
): Promise<Finish> {
  const trace = beginTrace(res, gateway)
  const send = (one: object) => events.send(obfuscate ? obfuscated(one, randomText) : one)
  let begun = false
  const begin = async (first: Piece | null) => {
    const content = first?.calls !== undefined && first.text === '' ? null : ''
    if (!begun) await send(chunk(heading, includeUsage, index, { role: 'assistant', content, refusal: null }))
    begun = true
  }
  const finish = await drive(answer(choice(request, index), gateway, trace, signal), signal, async (piece) => {
    await begin(piece)
    const delta = deltaOf(piece, answerId(heading, index))
    if (Object.keys(delta).length > 0) await send(chunk(heading, includeUsage, index, delta, piece.tokens))
  })
  await begin(null)
  await send(finishChunk(heading, includeUsage, index, finish, trace, request.explain))
  return finish
}

function answerId({ id }: Heading, index: number): string {
  return `${id}/${index}`
}
