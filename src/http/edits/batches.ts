import type { Request, Response } from 'express'
import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import type { BatchSummary } from '../../memory/memory.ts'
import { check } from '../../wire/openai/refusal.ts'
import { wireBatch } from '../../wire/palimpsest/edits.ts'
import { batchChangeReply, batchReply, pageOf } from '../../wire/palimpsest/replies.ts'
import { oneTenant, tenant } from '../../wire/palimpsest/selection.ts'
import { bytes, optionalJson } from '../request/body.ts'
import { changeAbout, pageLength, pathParam, query, tenantOf, tenantOnly } from '../request/query.ts'
import { nothing, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { writtenAt } from '../request/version.ts'
import { type Routes, route } from '../routes.ts'

/** `/v1/batches`: list, read, withdraw and restore whole batches. The edits of one: `GET /v1/edits?batch=ID`. */
export function batchRoutes(gateway: Gateway): Routes {
  const { memory, limits } = gateway
  const listQuery = z.strictObject({
    limit: pageLength(limits).optional(),
    cursor: z.string().optional(),
    tenant: tenant.optional(),
  })

  const list = (req: Request) => {
    const { limit = limits.listPageDefault, cursor, tenant } = query(req, listQuery)
    const batches = memory.batches(oneTenant(tenant, tenantHeader(req), 'tenant')).toReversed()
    return page(batches, limit, cursor)
  }
  /** Withdraws the batch in the path, or takes back its latest withdrawal; says of how many edits. */
  const change = async (req: Request, res: Response, how: 'withdraw' | 'restore') => {
    check(nothing, optionalJson(req, limits.jsonDepthLevels))
    const { id, tenant } = existing(req, gateway)
    const { length } = await memory[`${how}Batch`](tenant, id, 'http')
    const done = how === 'withdraw' ? { withdrawn: length } : { restored: length }
    const version = memory.version(tenant)
    return { ...wireBatch(existing(req, gateway)), ...done, version, ...writtenAt(res, version) }
  }
  const changing = [refuseWhenClosing(gateway), bytes(limits.chatBodyBytes)]

  return {
    '/v1/batches': {
      get: route(
        { summary: 'List batches, the latest first.', query: listQuery, reply: pageOf(batchReply) },
        (req, res) => void res.json(list(req)),
      ),
    },
    '/v1/batches/:id': {
      get: route(
        { summary: 'Read a batch.', description: 'Its edits: `GET /v1/edits?batch=ID`.', query: tenantOnly, reply: batchReply },
        (req, res) => void res.json(wireBatch(existing(req, gateway))),
      ),
    },
    '/v1/batches/:id/withdraw': {
      post: route(
        { ...changeAbout('Withdraw every edit of a batch.', batchChangeReply), writes: true },
        ...changing,
        async (req, res) => void res.json(await change(req, res, 'withdraw')),
      ),
    },
    '/v1/batches/:id/restore': {
      post: route(
        { ...changeAbout('Take back the latest withdrawal within a batch.', batchChangeReply), writes: true },
        ...changing,
        async (req, res) => void res.json(await change(req, res, 'restore')),
      ),
    },
  }
}

/** Latest first. The cursor is the id of the last batch of the page before. */
function page(batches: readonly BatchSummary[], limit: number, cursor: string | undefined) {
  const last = batches.findIndex(({ id }) => id === cursor)
  if (cursor !== undefined && last === -1) {
    throw new PalimpsestError(
      'invalid_value',
      'The cursor is none that this server gave out. Leave it away to start from the first page.',
      { param: 'cursor' },
    )
  }
  const shown = batches.slice(last + 1, last + 1 + limit)
  const more = last + 1 + limit < batches.length
  return {
    object: 'list',
    data: shown.map(wireBatch),
    has_more: more,
    next_cursor: more ? (shown.at(-1)?.id ?? null) : null,
    total: batches.length,
  }
}

function existing(req: Request, { memory }: Gateway): BatchSummary {
  const tenant = tenantOf(req)
  const id = pathParam(req, 'id')
  const found = memory.batches(tenant).find((batch) => batch.id === id)
  if (found === undefined)
    throw new PalimpsestError(
      'batch_not_found',
      `There is no batch '${id}' in tenant '${tenant}'. List them with GET /v1/batches.`,
      { param: 'id' },
    )
  return found
}
