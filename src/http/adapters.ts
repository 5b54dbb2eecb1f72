import type { Request } from 'express'
import { z } from 'zod'
import type { Adapter, Adapters } from '../adapters/registry.ts'
import type { Gateway } from '../gateway.ts'
import {
  adapterBody,
  adapterChangeBody,
  adapterPromotionBody,
  adapterQuery,
  readAdapterChange,
  readAdapterFields,
  readAdapterFile,
  readAdapterPromotion,
  wireAdapter,
} from '../wire/palimpsest/adapters.ts'
import { adapterReply, deletedReply, listOf } from '../wire/palimpsest/replies.ts'
import { bytes, json, mediaType, optionalJson } from './request/body.ts'
import { changeAbout, pathParam, tenantOf, tenantOnly } from './request/query.ts'
import { refuseWhenClosing, tenantHeader } from './request/request-context.ts'
import { type Routes, route } from './routes.ts'

/**
 * `/v1/adapters`: register (a file in the data folder, or the body itself as `application/octet-stream`), list, load, unload, scale, promote,
 * roll back, delete. Another tenant's do not exist. Not served where the engine takes no adapters.
 */
export function adapterRoutes(gateway: Gateway): Routes {
  const { adapters, limits, memory, now } = gateway
  if (adapters === undefined) return {}
  const small = bytes(limits.chatBodyBytes)
  const open = refuseWhenClosing(gateway)
  const shown = (adapter: Adapter) => wireAdapter(adapter, adapters)
  const asked = (req: Request) => [pathParam(req, 'id'), tenantOf(req)] as const
  const change = (
    summary: string,
    work: (asked: readonly [id: string, tenant: string], body: unknown) => Promise<Adapter>,
    accepted?: z.ZodType,
  ) =>
    route(
      changeAbout(summary, adapterReply, ['adapter_conflict', 'engine_failed'], accepted),
      open,
      small,
      async (req: Request, res: { json(body: unknown): unknown }) => {
        const body = optionalJson(req, limits.jsonDepthLevels)
        res.json(shown(await work(asked(req), body)))
      },
    )
  return {
    '/v1/adapters': {
      get: route(
        { summary: 'List adapters.', query: tenantOnly, reply: listOf(adapterReply) },
        (req, res) => void res.json({ object: 'list', data: adapters.list(tenantOf(req)).map(shown) }),
      ),
      post: route(
        {
          summary: 'Register an adapter: a file in the data folder, or the body itself.',
          description: 'The parameters of the query are for a body that is the file; a JSON body carries them itself.',
          query: adapterQuery(limits).partial(),
          body: { 'application/json': adapterBody(limits), 'application/octet-stream': z.string().describe('A GGUF LoRA file.') },
          status: 201,
          reply: adapterReply,
          errors: ['adapter_conflict', 'storage_full'],
        },
        open,
        (req, res, next) => (mediaType(req) === 'application/octet-stream' ? next() : small(req, res, next)),
        async (req, res) => void res.status(201).json(shown(await register(req, adapters, gateway))),
      ),
    },
    '/v1/adapters/:id': {
      get: route(
        { summary: 'Read an adapter.', query: tenantOnly, reply: adapterReply },
        (req, res) => void res.json(shown(adapters.get(...asked(req)))),
      ),
      patch: route(
        {
          summary: "Change an adapter's scale, or the edits that it counts as holding.",
          query: tenantOnly,
          body: adapterChangeBody(limits),
          reply: adapterReply,
        },
        open,
        small,
        async (req, res) => {
          const to = readAdapterChange(json(req, limits.jsonDepthLevels), limits)
          res.json(shown(await adapters.change(...asked(req), to)))
        },
      ),
      delete: route(
        { summary: 'Delete an adapter and its file.', query: tenantOnly, reply: deletedReply('adapter.deleted') },
        open,
        async (req, res) => {
          const { id } = await adapters.remove(...asked(req))
          res.json({ object: 'adapter.deleted', id, deleted: true })
        },
      ),
    },
    '/v1/adapters/:id/load': { post: change('Load an adapter into memory.', (one) => adapters.load(...one)) },
    '/v1/adapters/:id/unload': { post: change('Take an adapter out of memory.', (one) => adapters.unload(...one)) },
    '/v1/adapters/:id/promote': {
      post: change(
        "Make an adapter its tenant's default.",
        (one, body) => adapters.promote(...one, readAdapterPromotion(body)),
        adapterPromotionBody.optional(),
      ),
    },
    '/v1/adapters/:id/rollback': { post: change('Take the promotion back.', (one) => adapters.rollback(...one)) },
  }

  /** The engine loads what is registered, so that a file that it refuses is refused now; nothing is kept of it. */
  async function register(req: Request, into: Adapters, { limits }: Gateway): Promise<Adapter> {
    // The clock by which edits land: an adapter made after one holds what it says.
    const asked = { tenantHeader: tenantHeader(req), now: Math.max(now(), memory.moment()) }
    if (mediaType(req) === 'application/octet-stream')
      return loaded(into, await into.register(req, readAdapterFields(req.query, limits, asked)))
    const { path, ...made } = readAdapterFile(json(req, limits.jsonDepthLevels), limits, asked)
    return loaded(into, await into.registerFile(path, made))
  }

  async function loaded(into: Adapters, adapter: Adapter): Promise<Adapter> {
    try {
      return await into.load(adapter.id, adapter.tenant)
    } catch (error) {
      await into.remove(adapter.id, adapter.tenant)
      throw error
    }
  }
}
