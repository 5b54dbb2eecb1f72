import type { Gateway } from '../../gateway.ts'
import { detokenized, tokenized, tokenizerInfo } from '../../wire/palimpsest/tokenizing.ts'
import { bytes, json } from '../request/body.ts'
import { tenantOfHeader } from '../request/query.ts'
import { refuseWhenClosing } from '../request/request-context.ts'
import { servedBy } from '../request/request-identity.ts'
import type { Routes } from '../routes.ts'

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
      post: [
        ...guards,
        (req, res) =>
          void res.json(tokenized(json(req, limits.jsonDepthLevels), text, served(), tenantOfHeader(req), model.contextTokens)),
      ],
    },
    '/detokenize': {
      post: [
        ...guards,
        (req, res) => void res.json(detokenized(json(req, limits.jsonDepthLevels), text, served(), tenantOfHeader(req))),
      ],
    },
    '/tokenizer_info': { get: [(_req, res) => void res.json(tokenizerInfo(text, model.contextTokens))] },
  }
}
