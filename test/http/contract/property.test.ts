import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { MODEL, type Served, serve } from '../fakes.ts'
import { send, UNSUPPORTED } from '../hostile/malformed.ts'

let served: Served
beforeAll(async () => {
  served = await serve()
})
afterAll(() => served.close())

/** For a machine that does other things too. */
const PATIENCE_MS = 60_000

const POSTS = [
  '/v1/chat/completions',
  '/v1/responses',
  '/v1/completions',
  '/v1/embeddings',
  '/v1/edits',
  '/v1/edits?dry_run=1',
  '/v1/edits/explain',
  '/v1/edits/search',
  '/v1/edits/withdraw',
  '/v1/edits/x/withdraw',
  '/v1/batches/x/withdraw',
]

/** No reply is a fault of the gateway, and every refusal has OpenAI's shape. */
async function fair(request: {
  method: string
  path: string
  headers: [string, string][]
  body: string | Buffer
}): Promise<void> {
  const reply = await send(served.base, request)
  expect(reply.status).toBeLessThan(500)
  if (reply.status < 400) return
  expect(Object.keys(JSON.parse(reply.text).error)).toEqual(expect.arrayContaining(['message', 'type', 'param', 'code']))
}

const JSON_TYPE: [string, string] = ['Content-Type', 'application/json']

/** Values that are nearly right, and any others. */
const value: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    0,
    -1,
    1e21,
    '',
    'on',
    MODEL,
    [],
    {},
    [MODEL],
    '2026-01-01',
    '\ud800',
    '\u0000',
    { role: 'user' },
    [{ role: 'user', content: 'x' }],
  ),
  fc.jsonValue({ maxDepth: 3 }),
)

/** Bodies made of the fields that the routes know, with values of every kind. */
const FIELDS = [
  'model messages temperature top_p seed max_tokens max_completion_tokens stop n stream stream_options user metadata parallel_tool_calls palimpsest tools tool_choice response_format logprobs top_logprobs logit_bias prompt echo best_of suffix',
  'input instructions previous_response_id store include reasoning text max_output_tokens encoding_format dimensions',
  'question edits template tags tenant as_of explain ids q state tag batch subject limit cursor',
  'id aliases prompt target_new target_true relation paraphrases valid_from valid_to source __proto__ constructor',
]
const known = fc.constantFrom(...FIELDS.join(' ').split(' '), ...Object.keys(UNSUPPORTED))
const body = fc.oneof(
  fc.dictionary(known, value),
  fc.dictionary(known, value).map((fields) => ({ model: MODEL, messages: [{ role: 'user', content: 'x' }], ...fields })),
  fc
    .dictionary(known, value)
    .map((fields) => ({ subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada', ...fields })),
  fc.dictionary(known, value).map((palimpsest) => ({ model: MODEL, messages: [{ role: 'user', content: 'x' }], palimpsest })),
  fc.dictionary(known, value).map((fields) => ({ model: MODEL, input: 'x', ...fields })),
  fc
    .array(
      fc
        .record({ type: fc.constantFrom('message', 'function_call', 'function_call_output', 'reasoning', 'item_reference') })
        .chain((item) =>
          fc
            .dictionary(fc.constantFrom('role', 'content', 'call_id', 'name', 'arguments', 'output', 'id'), value)
            .map((more) => ({ ...item, ...more })),
        ),
      { maxLength: 4 },
    )
    .map((input) => ({ model: MODEL, input })),
  fc.array(fc.dictionary(known, value), { maxLength: 3 }),
  value,
)

test(
  'any JSON posted anywhere is answered or refused',
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...POSTS), body, (path, json) =>
        fair({ method: 'POST', path, headers: [JSON_TYPE], body: JSON.stringify(json) ?? '' }),
      ),
      { numRuns: 200 },
    )
  },
  PATIENCE_MS,
)

test(
  'any bytes under any media type are answered or refused',
  async () => {
    const type = fc.constantFrom('application/json', 'application/x-ndjson', 'text/csv', 'application/yaml', 'text/plain', 'x')
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array)),
      fc.string({ unit: fc.constantFrom(...'{}[]":,-&*!|>%@`\'#? \n\t\\aé1'), maxLength: 60 }).map((text) => Buffer.from(text)),
    )
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...POSTS), type, bytes, (path, contentType, body) =>
        fair({ method: 'POST', path, headers: [['Content-Type', contentType]], body }),
      ),
      { numRuns: 150 },
    )
  },
  PATIENCE_MS,
)

test(
  'any path and query is answered or refused',
  async () => {
    const query = fc.dictionary(
      fc.constantFrom('limit', 'cursor', 'state', 'tag', 'q', 'subject', 'tenant', 'batch', 'dry_run', '__proto__', 'x[y]'),
      fc.string({ unit: 'grapheme' }),
    )
    const path = fc.constantFrom('/v1/edits', '/v1/batches', '/v1/models/', '/v1/edits/', '/v1/batches/', '/health', '/')
    const encode = (text: string) => encodeURIComponent(text.replace(/\p{Surrogate}/gu, ''))
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('GET', 'POST', 'DELETE', 'PUT'),
        path,
        fc.string({ unit: 'grapheme' }),
        query,
        (method, start, rest, fields) => {
          const search = Object.entries(fields).map(([name, text]) => `${name}=${encode(text)}`)
          return fair({ method, path: `${start}${encode(rest)}?${search.join('&')}`, headers: [], body: '' })
        },
      ),
      { numRuns: 150 },
    )
  },
  PATIENCE_MS,
)
