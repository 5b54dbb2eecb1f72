import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Limits } from '../../gateway.ts'
import { type ChatRequest, type EditsChoice, MULTI_HOP } from '../../request.ts'

export const DEFAULT_TENANT = 'default'

/** Text that can be tokenized: half a surrogate pair is no character. */
export const text = z.string().refine((value) => !/\p{Surrogate}/u.test(value), {
  error: 'The text contains half of a surrogate pair (a broken emoji, say): send whole characters.',
})

export const tenant = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,64}$/, { error: '1 to 64 letters, digits, dots, dashes or underscores' })
  .describe("The tenant; the header's, the key's own or `default` where left out.")

export const moment = z
  .union([z.iso.datetime({ offset: true }), z.iso.date()], {
    error: 'an ISO 8601 date, or date and time with its offset, such as 2026-03-01T00:00:00Z',
  })
  .transform((iso) => Date.parse(iso))

/** What narrows the selection of edits: the `palimpsest` object of a chat request, and the fields of an explain request. */
export function selectionFields(limits: Limits) {
  const several = z.array(text.min(1)).max(limits.selectors)
  return {
    edits: z
      .union([z.enum(['on', 'off']), several], { error: `'on', 'off' or an array of at most ${limits.selectors} edit ids` })
      .optional()
      .describe('Which edits may apply: all (`on`, the default), none, or those of these ids.'),
    template: text.optional().describe('Template that renders the edits.'),
    tags: several.optional().describe('Only edits with one of these tags.'),
    tenant: tenant.optional(),
    as_of: moment.optional().describe('The edits that held at this moment.'),
    multi_hop: z.enum(MULTI_HOP).optional().describe('How questions that describe what they ask about are followed.'),
  }
}

export type SelectionFields = z.output<z.ZodObject<ReturnType<typeof selectionFields>>>

export type Selection = Pick<ChatRequest, 'edits' | 'template' | 'tags' | 'tenant' | 'asOf' | 'multiHop'>

/**
 * Fields as read, to ours. `prefix` is where they stood, for error messages ("palimpsest." or "").
 * Throws `template_not_found`, and `invalid_value` for two tenants that differ.
 */
export function toSelection(
  fields: SelectionFields,
  headers: Tenancy | undefined,
  templates: readonly string[],
  prefix: string,
): Selection {
  const { template, as_of: asOf, multi_hop: multiHop } = fields
  if (template !== undefined && !templates.includes(template)) throw templateNotFound(template, templates, `${prefix}template`)
  return {
    edits: toChoice(fields.edits),
    tags: fields.tags ?? [],
    tenant: oneTenant(fields.tenant, headers, `${prefix}tenant`),
    ...(template !== undefined && { template }),
    ...(asOf !== undefined && { asOf }),
    ...(multiHop !== undefined && { multiHop }),
  }
}

function toChoice(edits: SelectionFields['edits']): EditsChoice {
  if (edits === undefined || edits === 'on') return { kind: 'on' }
  return edits === 'off' || edits.length === 0 ? { kind: 'off' } : { kind: 'only', ids: edits }
}

/** The tenant that a request is for, as far as its headers say. `fixed`: its key is for this one alone. */
export interface Tenancy {
  readonly name: string
  readonly fixed: boolean
}

/**
 * The tenant named in the body or query, or else in the headers, or else the default one. Throws `invalid_value` where they differ,
 * `insufficient_permissions` for one that the key is not for.
 */
export function oneTenant(named: string | undefined, headers: Tenancy | undefined, param: string): string {
  const header = headers?.name
  const read = header === undefined ? undefined : tenant.safeParse(header)
  if (read?.success === false)
    throw new PalimpsestError(
      'invalid_value',
      'Expected the header Palimpsest-Tenant to be 1 to 64 letters, digits, dots, dashes or underscores.',
      { param },
    )
  if (named !== undefined && header !== undefined && named !== header) {
    if (headers?.fixed) throw otherTenant(named, param)
    throw new PalimpsestError(
      'invalid_value',
      `\`${param}\` says '${named}' and the header Palimpsest-Tenant says '${header}': name one tenant.`,
      { param },
    )
  }
  return named ?? header ?? DEFAULT_TENANT
}

export function otherTenant(named: string, param: string): PalimpsestError {
  return new PalimpsestError(
    'insufficient_permissions',
    `This key is for another tenant than '${named.slice(0, 64)}'. Leave the tenant away, or send a key that is for it.`,
    { param },
  )
}

function templateNotFound(name: string, names: readonly string[], param: string): PalimpsestError {
  return new PalimpsestError(
    'template_not_found',
    `There is no template '${name.slice(0, 64)}'. Templates loaded: ${names.join(', ') || 'none'}.`,
    { param },
  )
}
