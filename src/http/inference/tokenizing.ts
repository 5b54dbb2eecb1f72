import type { Gateway } from '../../gateway.ts'
import {
  detokenizeBody,
  detokenized,
  detokenizeReply,
  tokenizeBody,
  tokenized,
  tokenizeReply,
  tokenizerInfo,
  tokenizerReply,
} from '../../wire/palimpsest/tokenizing.ts'
import { bytes, json } from '../request/body.ts'
import { tenantOfHeader } from '../request/query.ts'
import { refuseWhenClosing } from '../request/request-context.ts'
import { servedBy } from '../request/request-identity.ts'
import { type Routes, route } from '../routes.ts'

/**
 * vLLM's `/tokenize`, `/detokenize` and `/tokenizer_info`, which evaluation harnesses ask for, to know where in a scored text the answer
 * begins; not served where the vocabulary is another server's.
 */
export function tokenizingRoutes(gateway: Gateway): Routes {
  const { engine, limits } = gateway
  const { model, text } = engine
  if (text === undefined) return {}
  // The vocabulary is this model's alone.
  const served = () => ({ ...servedBy(gateway), others: [] })
  const guards = [refuseWhenClosing(gateway), bytes(limits.chatBodyBytes)]
  return {
    '/tokenize': {
      post: route(
        { summary: 'Tokens of a text, as vLLM serves them.', body: tokenizeBody, reply: tokenizeReply },
        ...guards,
        (req, res) =>
          void res.json(tokenized(json(req, limits.jsonDepthLevels), text, served(), tenantOfHeader(req), model.contextTokens)),
      ),
    },
    '/detokenize': {
      post: route(
        { summary: 'Text of tokens.', body: detokenizeBody, reply: detokenizeReply },
        ...guards,
        (req, res) => void res.json(detokenized(json(req, limits.jsonDepthLevels), text, served(), tenantOfHeader(req))),
      ),
    },
    '/tokenizer_info': {
      get: route(
        { summary: 'Marks and length of the vocabulary.', reply: tokenizerReply },
        (_req, res) => void res.json(tokenizerInfo(text, model.contextTokens)),
      ),
    },
  }
}
