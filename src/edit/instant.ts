/** Moments in time as users write them: ISO 8601, in the profile of RFC 3339, plus bare dates. */
import { z } from 'zod'
import { show } from './values.ts'

const ISO = /^(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,9})?)?(Z|z|[+-]\d\d:\d\d)?)?$/
const EXPECTED = 'expected an ISO 8601 date ("2025-05-08", midnight UTC) or date and time with a zone ("2025-05-08T18:07:00Z")'
/** Years 0000 to 9999, so that what is read can be written back in four digits. */
const FIRST_MS = Date.parse('0000-01-01T00:00:00Z')
const LAST_MS = Date.parse('9999-12-31T23:59:59.999Z')

/** Milliseconds since the epoch, or a sentence saying what is wrong. */
export function parseInstant(written: string): number | string {
  const match = ISO.exec(written.trim())
  if (match === null) return `${EXPECTED}, got ${show(written)}`
  const [whole, year, month, day, hour, , , zone] = match
  if (hour !== undefined && zone === undefined)
    return `${EXPECTED}; ${show(written)} has no zone: add Z or an offset such as +02:00`
  // Date.parse rolls 30 February over into March, and takes 24:00: both are slips of the pen here.
  const midnight = new Date(`${year}-${month}-${day}T00:00:00Z`)
  const ms = Date.parse(whole.toUpperCase().replace(' ', 'T'))
  if (Number.isNaN(ms) || midnight.getUTCDate() !== Number(day) || Number(hour ?? 0) > 23)
    return `${show(written)} is not a day and time that exists`
  return ms < FIRST_MS || ms > LAST_MS ? `${show(written)} is outside the years 0000 to 9999` : ms
}

export const instant = z.string({ error: (issue) => `${EXPECTED}, got ${show(issue.input)}` }).transform((written, check) => {
  const read = parseInstant(written)
  if (typeof read === 'number') return read
  check.addIssue({ code: 'custom', message: read })
  return z.NEVER
})

export function isoDate(ms: number): string {
  return new Date(ms).toISOString()
}
