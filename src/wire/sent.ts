import { z } from 'zod'
import type { Decision } from './openai/fields.ts'

/** What the reference says of a schema beside what the schema itself checks. */
interface Sent {
  /** Schema of what a client may send, where this one reads it into another form first, or leaves the check to somebody else. (zod rewrites the type of any schema here.) */
  readonly as?: unknown
  /** Fields that are decided before the schema sees them; `null` is dropped there, so every optional field may be `null`. */
  readonly decided?: Readonly<Record<string, Decision>>
}

export const sent = z.registry<Sent>()

/** For a field that somebody else checks, by `schema`. */
export const checkedLater = (schema: z.ZodType) => z.unknown().register(sent, { as: schema }).optional()
