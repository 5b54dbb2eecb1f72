import type { Request, Response } from 'express'
import type { Embedder } from '../../engine/engine.ts'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import { type EmbeddingReader, embeddingBody, embeddingReader, wireEmbeddings } from '../../wire/openai/embeddings.ts'
import { embeddingsReply } from '../../wire/openai/replies.ts'
import { bytes, json } from '../request/body.ts'
import { setAside } from '../request/budget.ts'
import { beginTrace, exchangeOf, goneSignal, refuseWhenClosing } from '../request/request-context.ts'
import { type Routes, route } from '../routes.ts'

/** `POST /v1/embeddings`, by the gateway's own embedder; not served where it can't count tokens. */
export function embeddingRoutes(gateway: Gateway): Routes {
  const { embedder, limits } = gateway
  if (embedder === undefined) return {}
  const read = embeddingReader(limits)
  let underWay = 0
  const post = async (req: Request, res: Response): Promise<void> => {
    if (underWay >= limits.embeddingRequests) throw busy(underWay)
    underWay++
    try {
      await embeddings(req, res, gateway, embedder, read)
    } finally {
      underWay--
    }
  }
  const about = {
    summary: "Embed texts with the gateway's own embedder.",
    description: '`query: ` is put before each text.',
    body: embeddingBody(limits, embedder.dimensions),
    reply: embeddingsReply,
    errors: ['model_not_found', 'queue_full'],
  } as const
  return { '/v1/embeddings': { post: route(about, refuseWhenClosing(gateway), bytes(limits.chatBodyBytes), post) } }
}

async function embeddings(req: Request, res: Response, gateway: Gateway, embedder: Required<Embedder>, read: EmbeddingReader) {
  const call = read(json(req, gateway.limits.jsonDepthLevels), embedder)
  exchangeOf(res).call = { operation: 'embeddings', id: null, model: embedder.name, stream: false, n: 1 }
  const trace = beginTrace(res, gateway)
  trace.arm = 'base'
  const signal = goneSignal(res)
  const vectors: Float32Array[] = []
  await trace.time('embed', async () => {
    for (const [index, text] of call.texts.entries()) trace.promptTokens += await fitting(text, index, embedder)
    await setAside(res, gateway, trace.promptTokens, trace.promptTokens, () => trace.promptTokens)
    // One at a time, so that a chat's question waits for one text at most.
    for (const text of call.texts) vectors.push(...(await embedder.embed([text], 'query', signal)))
  })
  trace.finish('stop', 0)
  res.json(wireEmbeddings(call, vectors, trace.promptTokens))
}

/** The text's tokens. Throws `context_length_exceeded`: the embedder would read the beginning only. */
async function fitting(text: string, index: number, embedder: Required<Embedder>): Promise<number> {
  const { maxTokens, name } = embedder
  const tokens = await embedder.countTokens(text)
  if (tokens <= maxTokens) return tokens
  throw new PalimpsestError(
    'context_length_exceeded',
    `Text ${index} of \`input\` has ${tokens} tokens, and ${name} reads ${maxTokens}. Send shorter pieces.`,
    { param: 'input' },
  )
}

function busy(underWay: number): PalimpsestError {
  return new PalimpsestError(
    'queue_full',
    `${underWay} requests for embeddings are under way, which is the limit; try again in a second.`,
    {
      retryAfterSeconds: 1,
    },
  )
}
