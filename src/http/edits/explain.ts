import type { Gateway } from '../../gateway.ts'
import { explain } from '../../pipeline.ts'
import type { ChatRequest } from '../../request.ts'
import { explainBody, explainReader, wireExplanation } from '../../wire/palimpsest/explain.ts'
import { explanationReply } from '../../wire/palimpsest/replies.ts'
import { bytes, json } from '../request/body.ts'
import { setAside, usedBy } from '../request/budget.ts'
import { beginTrace, goneSignal, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { servedBy } from '../request/request-identity.ts'
import { type Routes, route } from '../routes.ts'

/** The most tokens that following hops may take. */
function askedOfModel({ multiHop, messages, edits }: ChatRequest, { multiHop: configured }: Gateway): number {
  if (configured === undefined || edits.kind !== 'on' || (multiHop ?? configured.mode) !== 'model') return 0
  return configured.bridges.mostTokens(messages.flatMap(({ role, content }) => (role === 'user' ? [content] : [])))
}

/** `POST /v1/edits/explain`: what would be selected for a question, with scores and reasons, and the exact prompt. The model is not asked. */
export function explainRoutes(gateway: Gateway): Routes {
  const { limits } = gateway
  const read = explainReader(limits)
  return {
    '/v1/edits/explain': {
      post: route(
        {
          summary: 'What would be selected for a question, with scores and reasons, and the exact prompt.',
          description: 'The model is not asked, save with `multi_hop: model` for a part of the question, which counts as tokens.',
          body: explainBody(limits),
          reply: explanationReply,
          errors: ['model_not_found', 'insufficient_quota'],
        },
        refuseWhenClosing(gateway),
        bytes(limits.chatBodyBytes),
        async (req, res) => {
          const served = servedBy(gateway)
          const request = read(json(req, limits.jsonDepthLevels), tenantHeader(req), served)
          const trace = beginTrace(res, gateway)
          const most = askedOfModel(request, gateway)
          if (most > 0) await setAside(res, gateway, most, most, () => usedBy([trace], 1))
          const explanation = await explain(request, gateway, trace, goneSignal(res))
          res.json(wireExplanation(request.model, explanation, trace.decomposition))
        },
      ),
    },
  }
}
