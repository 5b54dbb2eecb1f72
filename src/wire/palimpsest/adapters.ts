import { z } from 'zod'
import { ADAPTER_ID, wireRecord } from '../../adapters/record.ts'
import type { Adapter, AdapterMade, Adapters } from '../../adapters/registry.ts'
import type { Limits } from '../../gateway.ts'
import { check } from '../openai/refusal.ts'
import { sent } from '../sent.ts'
import { moment, oneTenant, type Tenancy, tenant, text } from './selection.ts'

/** Adapters stronger than this only make noise; a negative one would be another adapter. */
const MOST_SCALE = 10
const METHOD_CHARS = 64

/** Who registers, and when: what the request leaves open. */
export interface Registering {
  readonly tenantHeader: Tenancy | undefined
  /** Milliseconds since the epoch. */
  readonly now: number
}

const scale = z.number().min(0).max(MOST_SCALE)

/** Fields of a registration. */
function made({ withdrawIds }: Limits) {
  return {
    id: z.string().regex(ADAPTER_ID, { error: '1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first' }),
    base_sha256: z.string().regex(/^[0-9a-f]{64}$/, { error: 'the sha256 of the model file, 64 hexadecimal digits' }),
    method: text.min(1).max(METHOD_CHARS).optional(),
    edits: z.array(text.min(1)).max(withdrawIds).optional(),
    created: moment.optional(),
    scale: scale.optional(),
    tenant: tenant.optional(),
  }
}

type Fields = z.output<z.ZodObject<ReturnType<typeof made>>>

function toMade(fields: Fields, { tenantHeader, now }: Registering): AdapterMade {
  const { id, base_sha256: baseSha256, method = 'unknown', edits = [], created = Math.round(now), scale = 1 } = fields
  return {
    id,
    baseSha256,
    method,
    edits: [...new Set(edits)],
    created,
    scale,
    tenant: oneTenant(fields.tenant, tenantHeader, 'tenant'),
  }
}

/** Reads the body of `POST /v1/adapters` for a file that lies in the data folder. */
export function readAdapterFile(
  body: unknown,
  limits: Limits,
  registering: Registering,
): AdapterMade & { readonly path: string } {
  const { path, ...fields } = check(adapterBody(limits), body)
  return { ...toMade(fields, registering), path }
}

/** The same, in the query, where the body is the file; ids of edits are separated by commas. */
export function readAdapterFields(query: unknown, limits: Limits, registering: Registering): AdapterMade {
  return toMade(check(adapterQuery(limits), query) as Fields, registering)
}

/** The body of `POST /v1/adapters` for a file on the gateway's machine. */
export function adapterBody(limits: Limits) {
  return z.strictObject({ ...made(limits), path: text.min(1).describe('Of a GGUF file in the data folder.') })
}

/** The query of `POST /v1/adapters` where the body is the file. */
export function adapterQuery(limits: Limits) {
  const fields = made(limits)
  return z.strictObject({
    ...fields,
    edits: z
      .preprocess((ids) => (typeof ids === 'string' ? ids.split(',').filter(Boolean) : ids), fields.edits)
      .register(sent, { as: z.string().describe('Ids with commas between.') }),
    scale: z.preprocess((digits) => (typeof digits === 'string' ? Number(digits) : digits), fields.scale),
  })
}

/** The body of `PATCH /v1/adapters/ID`. */
export function adapterChangeBody(limits: Limits) {
  return z.strictObject({ scale: scale.optional(), edits: made(limits).edits })
}

export const adapterPromotionBody = z.strictObject({
  gated: z.boolean().optional().describe('It answers only where an edit that it holds was selected.'),
})

/** Reads the body of `PATCH /v1/adapters/ID`. */
export function readAdapterChange(body: unknown, limits: Limits): Partial<Pick<Adapter, 'scale' | 'edits'>> {
  const { scale: to, edits } = check(adapterChangeBody(limits), body)
  return { ...(to !== undefined && { scale: to }), ...(edits !== undefined && { edits: [...new Set(edits)] }) }
}

/** Reads the body of `POST /v1/adapters/ID/promote`. */
export function readAdapterPromotion(body: unknown): boolean | undefined {
  return check(adapterPromotionBody, body ?? {}).gated
}

/** An adapter, whether it is in memory, and where the memory of edits has moved on since it was made. */
export function wireAdapter(adapter: Adapter, adapters: Adapters) {
  return {
    object: 'adapter',
    ...wireRecord(adapter),
    loaded: adapters.loaded(adapter),
    promoted: adapters.promoted(adapter.tenant)?.id === adapter.id,
    disagrees: adapters.disagreements(adapter),
  }
}
