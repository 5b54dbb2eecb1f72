import type { Request } from 'express'
import { z } from 'zod'
import { type ErrorCode, PalimpsestError } from '../../errors.ts'
import type { Gateway, Limits } from '../../gateway.ts'
import type { ListFilter } from '../../memory/memory.ts'
import { check } from '../../wire/openai/refusal.ts'
import { oneTenant, tenant, text } from '../../wire/palimpsest/selection.ts'
import { sent } from '../../wire/sent.ts'
import type { About } from '../routes.ts'
import { nothing, tenantHeader } from './request-context.ts'

/** The query string against a schema of strings. A parameter given twice, or one not in the schema, is refused by name. */
export function query<Schema extends z.ZodType>(req: Request, schema: Schema): z.output<Schema> {
  return check(schema, req.query)
}

export const tenantOnly = z.strictObject({ tenant: tenant.optional() })

/** What the reference says of a change to what the path names; most of them need no body. */
export function changeAbout(
  summary: string,
  reply: z.ZodType,
  errors: readonly ErrorCode[] = ['storage_full'],
  body: z.ZodType = nothing,
): About {
  return { summary, query: tenantOnly, body, reply, errors }
}

/** Tenant of a request whose query takes nothing else. */
export function tenantOf(req: Request): string {
  return oneTenant(query(req, tenantOnly).tenant, tenantHeader(req), 'tenant')
}

/** Tenant of a request that names one in its header only. */
export function tenantOfHeader(req: Request): string {
  return oneTenant(undefined, tenantHeader(req), 'tenant')
}

export const flag = z
  .enum(['true', 'false', '1', '0', ''], { error: "'true' or 'false'" })
  .transform((value) => value !== 'false' && value !== '0')
  .register(sent, { as: z.enum(['true', 'false']) })

/** A page's length in a query string. */
export function pageLength(limits: Limits) {
  return z
    .string()
    .regex(/^\d{1,9}$/, { error: 'a whole number' })
    .transform(Number)
    .pipe(z.int().min(1).max(limits.listPage))
}

const STATES = ['live', 'superseded', 'withdrawn', 'not_yet_valid', 'expired'] as const

/** Filters of a list of edits; `limit` differs between a query string and a JSON body. */
export function filterFields<Limit extends z.ZodType<number>>(limits: Limits, limit: Limit) {
  const short = text.min(1).max(limits.searchChars)
  return {
    state: z.enum(STATES).optional(),
    tag: short.optional(),
    model: short.optional().describe('Only edits for the served model of this name.'),
    batch: short.optional().describe('Id of the batch that they landed with.'),
    subject: short.optional(),
    q: short.optional().describe('Whole words; `fran*` for their beginning.'),
    cursor: short.optional().describe('`next_cursor` of the page before.'),
    tenant: tenant.optional(),
    limit: limit.optional().describe(`Edits of one page; ${limits.listPageDefault} where left out.`),
  }
}

export type FilterFields = z.output<z.ZodObject<ReturnType<typeof filterFields<z.ZodType<number>>>>>

export function toFilter(req: Request, { limits }: Gateway, fields: FilterFields): ListFilter {
  const { state, tag, model, batch, subject, q, cursor } = fields
  return {
    tenant: oneTenant(fields.tenant, tenantHeader(req), 'tenant'),
    limit: fields.limit ?? limits.listPageDefault,
    ...(state !== undefined && { state }),
    ...(tag !== undefined && { tag }),
    ...(model !== undefined && { model }),
    ...(batch !== undefined && { batchId: batch }),
    ...(subject !== undefined && { subject }),
    ...(q !== undefined && { text: q }),
    ...(cursor !== undefined && { cursor }),
  }
}

/** A parameter of the path. */
export function pathParam(req: Request, name: string): string {
  const value = [req.params[name]].flat().join('/')
  if (value.length > 256)
    throw new PalimpsestError('invalid_value', `The ${name} in the path is ${value.length} characters long: no ${name} is.`, {
      param: name,
    })
  return value
}
