import type { Request, Response } from 'express'
import { completeText } from '../../complete-text.ts'
import type { Finish, Piece, TokenLogprob } from '../../engine/engine.ts'
import type { Gateway } from '../../gateway.ts'
import type { TextRequest } from '../../request.ts'
import { type Heading, obfuscated, provenance } from '../../wire/openai/completion.ts'
import { textReply } from '../../wire/openai/replies.ts'
import {
  likeliest,
  type TextAnswer,
  type TextCall,
  type TextReader,
  TextWriter,
  textBody,
  textChunk,
  textCompletion,
  textReader,
  textUsage,
} from '../../wire/openai/text-completion.ts'
import { choice, drive, headingOf, randomText, replyHeaders, streaming } from '../reply/reply.ts'
import { bytes, json } from '../request/body.ts'
import { withinBudget } from '../request/budget.ts'
import { beginTrace, exchangeOf, goneSignal, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { calledBy, servedBy } from '../request/request-identity.ts'
import { type Routes, route } from '../routes.ts'

/** `POST /v1/completions` */
export function textCompletionRoutes(gateway: Gateway): Routes {
  const read = textReader(gateway.limits)
  return {
    '/v1/completions': {
      post: route(
        {
          summary: 'Go on with a text.',
          description:
            "The facts stand before the client's text, which keeps its tokens: scores with `echo` cover that text alone.",
          body: textBody(gateway.limits),
          reply: textReply,
          stream: { type: 'text/event-stream', when: 'With `stream: true`: an event a chunk, and `[DONE]`.', each: textReply },
          answers: true,
        },
        refuseWhenClosing(gateway),
        bytes(gateway.limits.chatBodyBytes),
        (req, res) => complete(req, res, gateway, read),
      ),
    },
  }
}

async function complete(req: Request, res: Response, gateway: Gateway, read: TextReader): Promise<void> {
  const { limits } = gateway
  const served = servedBy(gateway)
  const asked = read(json(req, limits.jsonDepthLevels), tenantHeader(req), served)
  const heading = headingOf('cmpl', asked, gateway)
  const requests = (await bounded(res, gateway, asked)).map((request) => calledBy(request, req, heading.id, asked))
  const call = { ...asked, requests }
  const { n, stream } = call
  const [request] = requests
  const model = request?.model ?? gateway.engine.model.name
  exchangeOf(res).call = { operation: 'text_completion', id: heading.id, model, stream, n, ...(request && { request }) }
  const signal = goneSignal(res)
  if (call.stream) return streamed(res, call, heading, gateway, signal)
  const answers: TextAnswer[] = []
  for (const request of call.requests) answers.push(...(await best(res, call, request, gateway, signal)))
  res.set(replyHeaders(res, gateway))
  const [first] = call.requests
  res.json(textCompletion(heading, answers, call.n, first?.explain ?? false, first?.sampling.logprobs !== undefined))
}

/** The requests within the key's budget. */
async function bounded(res: Response, gateway: Gateway, { requests, bestOf }: TextCall): Promise<readonly TextRequest[]> {
  const [first] = requests
  if (first === undefined) return requests
  const tokensOf = ({ prompt }: TextRequest) =>
    typeof prompt === 'string' ? (gateway.engine.text?.tokenize(prompt).length ?? 0) : prompt.length
  const promptTokens = () => requests.reduce((sum, request) => sum + tokensOf(request), 0)
  const asked = { sampling: first.sampling, promptTokens, prompts: requests.length, answers: bestOf }
  const sampling = await withinBudget(res, gateway, asked)
  return requests.map((request) => ({ ...request, sampling }))
}

/** The `n` likeliest answers of `bestOf` to one prompt. */
async function best(
  res: Response,
  { n, bestOf }: TextCall,
  request: TextRequest,
  gateway: Gateway,
  signal: AbortSignal,
): Promise<TextAnswer[]> {
  const ranked = bestOf > n
  const asked = ranked ? { ...request, sampling: { logprobs: 0, ...request.sampling } } : request
  const answers: TextAnswer[] = []
  for (let index = 0; index < bestOf; index++) {
    const trace = beginTrace(res, gateway)
    let written = ''
    const tokens: TokenLogprob[] = []
    const finish = await drive(completeText(choice(asked, index), gateway, trace, signal), signal, (piece) => {
      written += piece.text
      tokens.push(...(piece.tokens ?? []))
    })
    answers.push({ piece: { text: written, tokens }, finish, trace })
  }
  return ranked ? likeliest(answers).slice(0, n) : answers
}

async function streamed(res: Response, call: TextCall, heading: Heading, gateway: Gateway, signal: AbortSignal): Promise<void> {
  await streaming(res, gateway, signal, async (events) => {
    const send = (one: object) => events.send(call.obfuscate ? obfuscated(one, randomText) : one)
    const finishes: Finish[] = []
    for (const request of call.requests) {
      for (let index = 0; index < call.n; index++) {
        const trace = beginTrace(res, gateway)
        const writer = new TextWriter(finishes.length)
        const part = (piece: Piece, reason: Finish['reason'] | null) =>
          textChunk(heading, call.includeUsage, writer.choice(piece, reason))
        const pieces = completeText(choice(request, index), gateway, trace, signal)
        const finish = await drive(pieces, signal, (piece) => send(part(piece, null)))
        await send({ ...part({ text: '' }, finish.reason), palimpsest: provenance(trace, request.explain) })
        finishes.push(finish)
      }
    }
    if (call.includeUsage)
      await events.send({ ...heading, object: 'text_completion', choices: [], usage: textUsage(finishes, call.n) })
  })
}
