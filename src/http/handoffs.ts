import type { Request } from 'express'
import { z } from 'zod'
import type { Gateway } from '../gateway.ts'
import { type Job, job } from '../handoff/job.ts'
import type { Handoffs } from '../handoff/queue.ts'
import {
  adviceQuery,
  handoffBody,
  importBody,
  promotionBody,
  readAdvice,
  readHandoff,
  readImport,
  readPromotion,
  readResumption,
  resumptionBody,
} from '../handoff/request.ts'
import { wireAdapter } from '../wire/palimpsest/adapters.ts'
import { adapterReply, listOf } from '../wire/palimpsest/replies.ts'
import { oneTenant } from '../wire/palimpsest/selection.ts'
import { bytes, json, optionalJson } from './request/body.ts'
import { changeAbout, pathParam, tenantOf, tenantOnly } from './request/query.ts'
import { goneSignal, guarded, refuseWhenClosing, tenantHeader } from './request/request-context.ts'
import { type Routes, route } from './routes.ts'

const jobReply = z.object({ object: z.literal('handoff'), ...job.shape }).meta({ id: 'Handoff' })
const adviceReply = z.object({
  object: z.literal('handoff.advice'),
  method: z.string(),
  reasons: z.array(z.string()),
  basis: z.array(z.string()),
  unknown: z.array(z.string()),
  options: z.array(z.object({ method: z.string() })),
})

const STILL_READING_MS = 60_000

/** `/v1/handoffs`: edits into the parameters and back. Not served where this process keeps no hand-offs. */
export function handoffRoutes(gateway: Gateway, handoffs: Handoffs | undefined): Routes {
  if (handoffs === undefined) return {}
  const { adapters, limits } = gateway
  const change = [refuseWhenClosing(gateway), bytes(limits.editsBodyBytes)]
  const wire = (job: Job) => ({ object: 'handoff', ...job })
  const act = (
    { summary, body, reply }: { readonly summary: string; readonly body?: z.ZodType; readonly reply: z.ZodType },
    work: (tenant: string, id: string, body: unknown) => Promise<object>,
  ) => ({
    post: route(
      changeAbout(summary, reply, ['handoff_conflict', 'storage_full'], body),
      ...change,
      async (req: Request, res: { json(body: unknown): unknown }) => {
        const body = optionalJson(req, limits.jsonDepthLevels)
        res.json(await work(tenantOf(req), pathParam(req, 'id'), body))
      },
    ),
  })
  const shown = (adapter: Parameters<typeof wireAdapter>[0]) => (adapters === undefined ? {} : wireAdapter(adapter, adapters))
  return {
    '/v1/handoffs': {
      get: route(
        { summary: 'List hand-offs.', query: tenantOnly, reply: listOf(jobReply) },
        (req, res) => void res.json({ object: 'list', data: handoffs.list(tenantOf(req)).map(wire) }),
      ),
      post: route(
        {
          summary: 'Teach edits to the parameters, in stages that are judged.',
          body: handoffBody(limits),
          status: 202,
          reply: jobReply,
          errors: ['handoff_conflict', 'edit_not_found', 'storage_full'],
        },
        ...change,
        async (req, res) => {
          const request = readHandoff(json(req, limits.jsonDepthLevels), limits)
          const job = await handoffs.submit(oneTenant(request.tenant, tenantHeader(req), 'tenant'), request)
          res.status(202).json(wire(job))
        },
      ),
    },
    '/v1/handoffs/advice': {
      get: route(
        { summary: 'Which way into the parameters fits these edits, and why.', query: adviceQuery(limits), reply: adviceReply },
        async (req, res) => {
          const { when, tenant, query } = readAdvice(req.query, limits)
          res.json({
            object: 'handoff.advice',
            ...(await handoffs.advise(oneTenant(tenant, tenantHeader(req), 'tenant'), when, query)),
          })
        },
      ),
    },
    '/v1/handoffs/import': {
      post: route(
        {
          summary: 'Register what another tool made as an adapter.',
          body: importBody(limits),
          status: 201,
          reply: adapterReply.partial(),
          errors: ['adapter_conflict', 'handoff_failed', 'storage_full'],
        },
        ...change,
        async (req, res) => {
          const request = readImport(json(req, limits.jsonDepthLevels), limits)
          const tenant = oneTenant(request.tenant, tenantHeader(req), 'tenant')
          // On a busy machine the reading takes minutes, and Node's fetch gives up where nothing comes for five.
          const keepAlive = guarded(gateway, 'keeping a client waiting', () => res.writeProcessing())
          const alive = setInterval(keepAlive, STILL_READING_MS)
          const adapter = await handoffs.import(tenant, request, goneSignal(res)).finally(() => clearInterval(alive))
          res.status(201).json(shown(adapter))
        },
      ),
    },
    '/v1/handoffs/:id': {
      get: route(
        { summary: 'Read a hand-off.', query: tenantOnly, reply: jobReply },
        (req, res) => void res.json(wire(handoffs.get(tenantOf(req), pathParam(req, 'id')))),
      ),
    },
    '/v1/handoffs/:id/cancel': act({ summary: 'Stop a hand-off.', reply: jobReply }, async (tenant, id) =>
      wire(await handoffs.cancel(tenant, id)),
    ),
    '/v1/handoffs/:id/resume': act(
      { summary: 'Go on with a hand-off that ended early.', body: resumptionBody.optional(), reply: jobReply },
      async (tenant, id, body) => wire(await handoffs.resume(tenant, id, readResumption(body))),
    ),
    '/v1/handoffs/:id/promote': act(
      { summary: 'Promote what a hand-off made.', body: promotionBody.optional(), reply: adapterReply.partial() },
      async (tenant, id, body) => {
        const { adapter, snapshot } = await handoffs.promote(tenant, id, readPromotion(body))
        return { ...shown(adapter), snapshot }
      },
    ),
    '/v1/handoffs/:id/rollback': act({ summary: 'Take the promotion back.', reply: adapterReply.partial() }, async (tenant, id) =>
      shown(await handoffs.rollback(tenant, id)),
    ),
  }
}
