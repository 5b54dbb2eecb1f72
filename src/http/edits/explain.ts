import type { Gateway } from '../../gateway.ts'
import { explain } from '../../pipeline.ts'
import { explainBody, explainReader, wireExplanation } from '../../wire/palimpsest/explain.ts'
import { explanationReply } from '../../wire/palimpsest/replies.ts'
import { bytes, json } from '../request/body.ts'
import { beginTrace, goneSignal, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { servedBy } from '../request/request-identity.ts'
import { type Routes, route } from '../routes.ts'

/** `POST /v1/edits/explain`: what would be selected for a question, with scores and reasons, and the exact prompt. The model is not asked. */
export function explainRoutes(gateway: Gateway): Routes {
  const { limits } = gateway
  const read = explainReader(limits)
  return {
    '/v1/edits/explain': {
      post: route(
        {
          summary: 'What would be selected for a question, with scores and reasons, and the exact prompt.',
          description: 'The model is not asked.',
          body: explainBody(limits),
          reply: explanationReply,
          errors: ['model_not_found'],
        },
        refuseWhenClosing(gateway),
        bytes(limits.chatBodyBytes),
        async (req, res) => {
          const served = servedBy(gateway)
          const request = read(json(req, limits.jsonDepthLevels), tenantHeader(req), served)
          res.json(wireExplanation(request.model, await explain(request, gateway, beginTrace(res, gateway), goneSignal(res))))
        },
      ),
    },
  }
}
