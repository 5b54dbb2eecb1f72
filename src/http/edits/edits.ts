import type { Request, Response } from 'express'
import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import type { HeldEdit } from '../../memory/memory.ts'
import { check } from '../../wire/openai/refusal.ts'
import { wireHeld, wirePage, wireWithHistory } from '../../wire/palimpsest/edits.ts'
import { editChangeReply, editReply, editWithHistoryReply, listOf, pageOf, writtenReply } from '../../wire/palimpsest/replies.ts'
import { oneTenant, tenant } from '../../wire/palimpsest/selection.ts'
import { bytes, json, optionalJson } from '../request/body.ts'
import { changeAbout, filterFields, pageLength, pathParam, query, tenantOf, tenantOnly, toFilter } from '../request/query.ts'
import { nothing, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { writtenAt } from '../request/version.ts'
import { type Routes, route } from '../routes.ts'
import { importAbout, importEdits } from './import.ts'

/** What the log keeps as the origin of a change made through these routes. */
const SOURCE = 'http'

/** `/v1/edits`: land, list, search, read, withdraw and restore. */
export function editRoutes(gateway: Gateway): Routes {
  const { memory, limits } = gateway
  const open = refuseWhenClosing(gateway)
  const small = bytes(limits.chatBodyBytes)
  const listQuery = z.strictObject(filterFields(limits, pageLength(limits)))
  const searchBody = z.strictObject(filterFields(limits, z.int().min(1).max(limits.listPage)))
  const withdrawBody = z.strictObject({
    ids: z.array(z.string().min(1)).min(1).max(limits.withdrawIds),
    tenant: tenant.optional(),
  })

  /** Withdraws or restores the edit in the path. */
  const change = async (req: Request, res: Response, how: 'withdraw' | 'restore') => {
    check(nothing, optionalJson(req, limits.jsonDepthLevels))
    const { edit } = inPath(req, gateway)
    await memory[how](edit.tenant, [edit.id], SOURCE)
    return { ...read(req, gateway), ...writtenAt(res, memory.version(edit.tenant)) }
  }
  const withdrawMany = async (req: Request, res: Response) => {
    const { ids, tenant: named } = check(withdrawBody, json(req, limits.jsonDepthLevels))
    const tenant = oneTenant(named, tenantHeader(req), 'tenant')
    for (const id of ids) existing(gateway, tenant, id, 'ids')
    const held = await memory.withdraw(tenant, ids, SOURCE)
    const version = memory.version(tenant)
    return { object: 'list', data: held.map(wireHeld), version, ...writtenAt(res, version) }
  }

  return {
    '/v1/edits': {
      get: route(
        { summary: 'List edits, the latest first.', query: listQuery, reply: pageOf(editReply) },
        (req, res) => void res.json(wirePage(memory.list(toFilter(req, gateway, query(req, listQuery))))),
      ),
      post: route(importAbout(), open, bytes(limits.editsBodyBytes), (req, res) => importEdits(req, res, gateway)),
    },
    '/v1/edits/search': {
      post: route(
        { summary: 'List edits, with the filters in the body.', body: searchBody, reply: pageOf(editReply) },
        small,
        (req, res) =>
          void res.json(wirePage(memory.list(toFilter(req, gateway, check(searchBody, json(req, limits.jsonDepthLevels)))))),
      ),
    },
    '/v1/edits/withdraw': {
      post: route(
        {
          summary: 'Withdraw several edits, or none.',
          body: withdrawBody,
          reply: listOf(editReply).extend({ version: z.int(), ...writtenReply }),
          errors: ['edit_not_found', 'storage_full'],
          writes: true,
        },
        open,
        small,
        async (req, res) => void res.json(await withdrawMany(req, res)),
      ),
    },
    '/v1/edits/:id': {
      get: route(
        { summary: 'Read an edit and its history.', query: tenantOnly, reply: editWithHistoryReply },
        (req, res) => void res.json(read(req, gateway)),
      ),
      delete: route(
        { ...changeAbout('Withdraw an edit: nothing is erased.', editChangeReply), writes: true },
        open,
        small,
        async (req, res) => void res.json(await change(req, res, 'withdraw')),
      ),
    },
    '/v1/edits/:id/withdraw': {
      post: route(
        { ...changeAbout('Withdraw an edit.', editChangeReply), writes: true },
        open,
        small,
        async (req, res) => void res.json(await change(req, res, 'withdraw')),
      ),
    },
    '/v1/edits/:id/restore': {
      post: route(
        { ...changeAbout('Take a withdrawal back.', editChangeReply), writes: true },
        open,
        small,
        async (req, res) => void res.json(await change(req, res, 'restore')),
      ),
    },
  }
}

function read(req: Request, gateway: Gateway) {
  const held = inPath(req, gateway)
  return wireWithHistory(held, gateway.memory.history(held.edit.tenant, held.edit.id))
}

function inPath(req: Request, gateway: Gateway): HeldEdit {
  return existing(gateway, tenantOf(req), pathParam(req, 'id'), 'id')
}

function existing({ memory }: Gateway, tenant: string, id: string, param: string): HeldEdit {
  const held = memory.get(tenant, id)
  if (held !== undefined) return held
  const message = `There is no edit '${id.slice(0, 128)}' in tenant '${tenant}'. List them with GET /v1/edits.`
  throw new PalimpsestError('edit_not_found', message, { param })
}
