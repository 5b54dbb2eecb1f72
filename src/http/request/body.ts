import express, { type Request, type RequestHandler } from 'express'
import { endOfText, hasPrototypeKey, repeatedKey, wholeNumberAt } from '../../edit/json-keys.ts'
import { PalimpsestError } from '../../errors.ts'

/**
 * Reads the whole body, decompressing it, as bytes. One reader for every content type: media type, character set, syntax and depth are
 * then checked by the functions below, so that each fault has its own sentence. Its errors are put into our form by `fromBodyParser`.
 */
export function bytes(limitBytes: number): RequestHandler {
  return express.raw({ type: () => true, limit: limitBytes })
}

/** The media type in lower case, without parameters; '' where none was sent. Throws where there are several, or the text is not UTF-8. */
export function mediaType(req: Request): string {
  const sent = req.rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === 'content-type')
  if (sent.length > 1)
    throw new PalimpsestError('invalid_value', 'The header Content-Type was sent more than once: send it once.')
  const [type = '', ...parameters] = (req.headers['content-type'] ?? '').toLowerCase().split(';')
  for (const parameter of parameters) {
    const charset = /^\s*charset\s*=\s*"?([^"\s]*)"?\s*$/.exec(parameter)?.[1]
    if (charset !== undefined && !['utf-8', 'utf8', 'us-ascii'].includes(charset)) {
      throw new PalimpsestError(
        'unsupported_media_type',
        `The character set '${charset.slice(0, 40)}' is not supported: send UTF-8.`,
      )
    }
  }
  return type.trim()
}

/** The body as text. Throws `invalid_json` where the bytes are not UTF-8. A byte order mark is dropped. */
function utf8(req: Request): string {
  if (!Buffer.isBuffer(req.body)) return ''
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(req.body)
  } catch {
    throw new PalimpsestError('invalid_json', 'The body is not valid UTF-8: encode it as UTF-8.')
  }
}

/** The body as JSON. Throws `unsupported_media_type` or `invalid_json`. */
export function json(req: Request, depthLevels: number): unknown {
  const type = mediaType(req)
  if (type !== 'application/json' && !type.endsWith('+json')) {
    throw new PalimpsestError(
      'unsupported_media_type',
      `Expected the header Content-Type: application/json, got ${type === '' ? 'none' : `'${type.slice(0, 80)}'`}.`,
    )
  }
  return parseJson(utf8(req), depthLevels)
}

/** Like `json`, for routes whose body may be left out: undefined then. */
export function optionalJson(req: Request, depthLevels: number): unknown {
  return Buffer.isBuffer(req.body) && req.body.length > 0 ? json(req, depthLevels) : undefined
}

function parseJson(text: string, depthLevels: number): unknown {
  if (text.trim() === '') throw new PalimpsestError('invalid_json', 'The body is empty: expected a JSON object.')
  if (isDeep(text, depthLevels))
    throw new PalimpsestError('invalid_json', `The body is nested more than ${depthLevels} levels deep.`)
  if (isWide(text, OBJECT_FIELDS))
    throw new PalimpsestError(
      'invalid_json',
      `The body has an object of more than ${OBJECT_FIELDS} fields: no object here needs them.`,
    )
  const parsed = parsedJson(text)
  if (hasPrototypeKey(text, parsed))
    throw new PalimpsestError('unknown_field', 'Unknown field `__proto__`: no object here has one. Remove it.', {
      param: '__proto__',
    })
  const repeated = repeatedKey(text)
  if (repeated === null) return withExactSeed(parsed, text)
  const key = repeated.key.slice(0, KEY_CHARS)
  throw new PalimpsestError('invalid_json', `The body names the field '${key}' twice in one object: send it once.`, {
    param: key,
  })
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new PalimpsestError('invalid_json', `The body is not valid JSON: ${(error as Error).message}.`)
  }
}

const KEY_CHARS = 64
/** An object of hundreds of thousands holds up everybody for a second and more. A bias for every token of a vocabulary is beyond OpenAI's bound. */
const OBJECT_FIELDS = 10_000

/** A seed has up to 64 bits, and a double holds 53 of them: a larger one is a bigint. */
function withExactSeed(body: unknown, text: string): unknown {
  if (typeof body !== 'object' || body === null || !('seed' in body)) return body
  if (!Number.isInteger(body.seed) || Number.isSafeInteger(body.seed)) return body
  const digits = wholeNumberAt(text, 'seed')
  return digits === undefined ? body : { ...body, seed: BigInt(digits) }
}

/** Whether brackets are nested deeper than recursive readers should have to follow. Those in double quotes do not count. */
export function isDeep(text: string, levels: number): boolean {
  let depth = 0
  let inString = false
  for (let at = 0; at < text.length && depth <= levels; at++) {
    const char = text.charCodeAt(at)
    if (inString) {
      if (char === BACKSLASH) at++
      else if (char === QUOTE) inString = false
    } else if (char === QUOTE) inString = true
    else if (char === BRACKET || char === BRACE) depth++
    else if (char === BRACKET + 2 || char === BRACE + 2) depth--
  }
  return depth > levels
}

/** Whether some object has more fields than that. Nothing is built, so that refusing costs one look at the text. */
export function isWide(text: string, fields: number): boolean {
  /** Commas so far in each open object, and in lists, where they do not count. */
  const open: { readonly isObject: boolean; commas: number }[] = []
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at)
    if (char === QUOTE) at = endOfText(text, at)
    else if (char === BRACKET || char === BRACE) open.push({ isObject: char === BRACE, commas: 0 })
    else if (char === BRACKET + 2 || char === BRACE + 2) open.pop()
    else if (char === COMMA) {
      const inner = open.at(-1)
      if (inner !== undefined && ++inner.commas >= fields && inner.isObject) return true
    }
  }
  return false
}

const COMMA = 0x2c
const QUOTE = 0x22
const BACKSLASH = 0x5c
const BRACKET = 0x5b
const BRACE = 0x7b

/** An error of body-parser, raw-body, zlib or Express's router in our form; undefined for others. All of them carry a 4xx `status`. */
export function fromBodyParser(thrown: unknown): PalimpsestError | undefined {
  if (!(thrown instanceof Error) || thrown instanceof PalimpsestError) return undefined
  const { status, type, limit } = thrown as { status?: unknown; type?: unknown; limit?: unknown }
  if (typeof status !== 'number' || status < 400 || status > 499) return undefined
  switch (type) {
    case 'entity.too.large':
      return new PalimpsestError(
        'request_too_large',
        `The body is larger than the ${limit} bytes allowed here. Send less at a time.`,
      )
    case 'encoding.unsupported':
      return new PalimpsestError(
        'unsupported_media_type',
        'The content encoding is not supported: send identity, gzip, deflate or br.',
      )
    case 'request.aborted':
      return new PalimpsestError('cancelled', 'The client closed the connection while sending.')
    case 'request.size.invalid':
      return new PalimpsestError('invalid_value', 'The body is not as long as its Content-Length says.')
    default:
      if (thrown instanceof URIError) return new PalimpsestError('invalid_value', 'The path is not valid percent-encoded UTF-8.')
      return new PalimpsestError('invalid_value', 'The body could not be read: it is not what its Content-Encoding says.')
  }
}
