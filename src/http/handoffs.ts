import type { Request } from 'express'
import type { Gateway } from '../gateway.ts'
import type { Job } from '../handoff/job.ts'
import type { Handoffs } from '../handoff/queue.ts'
import { readAdvice, readHandoff, readImport, readPromotion, readResumption } from '../handoff/request.ts'
import { wireAdapter } from '../wire/palimpsest/adapters.ts'
import { oneTenant } from '../wire/palimpsest/selection.ts'
import { bytes, json, optionalJson } from './request/body.ts'
import { pathParam, tenantOf } from './request/query.ts'
import { goneSignal, guarded, refuseWhenClosing, tenantHeader } from './request/request-context.ts'
import type { Routes } from './routes.ts'

const STILL_READING_MS = 60_000

/** `/v1/handoffs`: edits into the parameters and back. Not served where this process keeps no hand-offs. */
export function handoffRoutes(gateway: Gateway, handoffs: Handoffs | undefined): Routes {
  if (handoffs === undefined) return {}
  const { adapters, limits } = gateway
  const change = [refuseWhenClosing(gateway), bytes(limits.editsBodyBytes)]
  const wire = (job: Job) => ({ object: 'handoff', ...job })
  const act = (work: (tenant: string, id: string, body: unknown) => Promise<object>) => ({
    post: [
      ...change,
      async (req: Request, res: { json(body: unknown): unknown }) => {
        const body = optionalJson(req, limits.jsonDepthLevels)
        res.json(await work(tenantOf(req), pathParam(req, 'id'), body))
      },
    ],
  })
  const shown = (adapter: Parameters<typeof wireAdapter>[0]) => (adapters === undefined ? {} : wireAdapter(adapter, adapters))
  return {
    '/v1/handoffs': {
      get: [(req, res) => void res.json({ object: 'list', data: handoffs.list(tenantOf(req)).map(wire) })],
      post: [
        ...change,
        async (req, res) => {
          const request = readHandoff(json(req, limits.jsonDepthLevels), limits)
          const job = await handoffs.submit(oneTenant(request.tenant, tenantHeader(req), 'tenant'), request)
          res.status(202).json(wire(job))
        },
      ],
    },
    '/v1/handoffs/advice': {
      get: [
        async (req, res) => {
          const { when, tenant, query } = readAdvice(req.query, limits)
          res.json({
            object: 'handoff.advice',
            ...(await handoffs.advise(oneTenant(tenant, tenantHeader(req), 'tenant'), when, query)),
          })
        },
      ],
    },
    '/v1/handoffs/import': {
      post: [
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
      ],
    },
    '/v1/handoffs/:id': { get: [(req, res) => void res.json(wire(handoffs.get(tenantOf(req), pathParam(req, 'id'))))] },
    '/v1/handoffs/:id/cancel': act(async (tenant, id) => wire(await handoffs.cancel(tenant, id))),
    '/v1/handoffs/:id/resume': act(async (tenant, id, body) => wire(await handoffs.resume(tenant, id, readResumption(body)))),
    '/v1/handoffs/:id/promote': act(async (tenant, id, body) => {
      const { adapter, snapshot } = await handoffs.promote(tenant, id, readPromotion(body))
      return { ...shown(adapter), snapshot }
    }),
    '/v1/handoffs/:id/rollback': act(async (tenant, id) => shown(await handoffs.rollback(tenant, id))),
  }
}
