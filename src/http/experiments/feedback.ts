import { createHash } from 'node:crypto'
import type { Request } from 'express'
import { feedbackBody, readFeedback } from '../../wire/palimpsest/experiments.ts'
import { feedbackReply } from '../../wire/palimpsest/replies.ts'
import { oneTenant } from '../../wire/palimpsest/selection.ts'
import { tenantHeader } from '../request/request-context.ts'
import { type Route, route } from '../routes.ts'
import type { ExperimentContext } from './context.ts'

export function feedbackRoute(context: ExperimentContext): Route {
  return route(
    { summary: 'Say how good an answer was.', body: feedbackBody, reply: feedbackReply },
    ...context.change,
    async (req, res) => void res.json(await feedback(context, req)),
  )
}

async function feedback(context: ExperimentContext, req: Request): Promise<object> {
  const { registry } = context.parts
  const { completion_id: completion, tenant: named, id, score, label, numbers = {} } = readFeedback(context.body(req))
  const said = { ...(score !== undefined && { score }), ...(label !== undefined && { label }), numbers }
  const own = createHash('sha256').update(JSON.stringify(said)).digest('base64url').slice(0, 22)
  const outcome = await registry.ledger.feedback({
    tenant: oneTenant(named, tenantHeader(req), 'tenant'),
    completion,
    id: id ?? own,
    at: Math.round(context.gateway.now()),
    ...said,
  })
  if (outcome === 'recorded') registry.heard(completion)
  return { object: 'feedback', completion_id: completion, id: id ?? own, outcome }
}
