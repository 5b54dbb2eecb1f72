/** What a setting's value may be, from a flag, the environment or the file; the error says what was expected. */
import { z } from 'zod'

export const text = z.string({ error: 'a text' }).trim().min(1, { error: 'a text that is not empty' })
export const orNone = <T>(schema: z.ZodType<T>): z.ZodType<T | undefined> => schema.optional()

export function number(min: number, max: number) {
  const error = `a whole number from ${min} to ${max}`
  return z.preprocess(fromDigits, z.int({ error }).min(min, { error }).max(max, { error }))
}

export function fraction(min: number, max: number) {
  const error = `a number from ${min} to ${max}`
  return z.preprocess(fromDigits, z.number({ error }).min(min, { error }).max(max, { error }))
}

/** Text from a flag or the environment that is a number; all else is left for the schema to refuse. */
function fromDigits(value: unknown): unknown {
  return typeof value === 'string' && /^\s*-?\d+(\.\d+)?\s*$/.test(value) ? Number(value) : value
}

/** Bytes: a number, or one with KiB, MiB or GiB (KB, MB, GB mean the same here). */
export const bytes = z.preprocess(
  (value) => {
    const read = typeof value === 'string' ? /^\s*(\d+(?:\.\d+)?)\s*([KMG])i?B?\s*$/i.exec(value) : null
    return read === null
      ? fromDigits(value)
      : Math.round(Number(read[1]) * 1024 ** ('KMG'.indexOf((read[2] ?? '').toUpperCase()) + 1))
  },
  z.int({ error: 'a size, such as 64MiB' }).min(0, { error: 'a size of 0 or more bytes' }),
)

const TRUTH: Readonly<Record<string, boolean>> = {
  true: true,
  1: true,
  yes: true,
  on: true,
  false: false,
  0: false,
  no: false,
  off: false,
}
export const truth = z.preprocess(
  (value) => (typeof value === 'string' ? (TRUTH[value.toLowerCase()] ?? value) : value),
  z.boolean({ error: 'true or false' }),
)
export const names = z.preprocess(
  (value) =>
    typeof value === 'string'
      ? value
          .split(',')
          .map((name) => name.trim())
          .filter(Boolean)
      : value,
  z.array(text, { error: 'a list of names' }),
)
const ORIGIN = 'a list of origins, each as https://app.example or https://app.example:8443, or *'
export const origins = names.pipe(
  z.array(
    z
      .string()
      .toLowerCase()
      .refine((value) => value === '*' || (/^https?:/.test(value) && URL.canParse(value) && new URL(value).origin === value), {
        error: ORIGIN,
      }),
  ),
)
export const httpUrl = text.refine((value) => /^https?:$/.test(URL.canParse(value) ? new URL(value).protocol : ''), {
  error: 'a URL that begins with http:// or https://',
})
/** "http://a:8000*3, http://b" or, in the file, objects; `*3`: three times the conversations. */
export const upstreamServers = z.preprocess(
  (value) =>
    (typeof value === 'string' ? value.split(',').filter((part) => part.trim() !== '') : [value].flat()).map((one) => {
      const read = typeof one === 'string' ? /^\s*(.+?)(?:\*(\d+(?:\.\d+)?))?\s*$/.exec(one) : null
      return read === null ? one : { url: read[1], ...(read[2] === undefined ? {} : { weight: Number(read[2]) }) }
    }),
  z.array(
    z.strictObject(
      {
        url: httpUrl,
        model: text.optional(),
        key: text.optional(),
        weight: z
          .number({ error: 'servers with a weight above 0' })
          .positive({ error: 'servers with a weight above 0' })
          .optional(),
      },
      { error: 'a list of servers, each a URL or {url, model, key, weight}' },
    ),
    { error: 'a list of servers' },
  ),
)
export const oneOf = <const T extends readonly string[]>(values: T) => z.enum(values, { error: `one of ${values.join(', ')}` })
