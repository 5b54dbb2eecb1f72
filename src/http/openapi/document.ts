import { z } from 'zod'
import { ERRORS, type ErrorCode } from '../../errors.ts'
import { needOf } from '../request/auth.ts'
import { type About, type Method, type Routes, route } from '../routes.ts'
import { type JsonSchema, jsonSchema } from './schema.ts'

type Named = Readonly<Record<string, unknown>>

const VERSION = '3.1.1'

const TAGS: readonly (readonly [name: string, paths: RegExp])[] = [
  ['Inference', /^\/(v1\/(chat|completions|responses|embeddings|models|compare)|tokenize|detokenize|tokenizer_info)/],
  ['Edits', /^\/v1\/(edits|batches)/],
  ['Experiments', /^\/v1\/(experiments|rollouts|feedback)/],
  ['Adapters and hand-offs', /^\/v1\/(adapters|handoffs)/],
  ['Observation', /^\/(health|metrics|v1\/(requests|evaluations))/],
  ['Pages', /./],
]

/** `GET /openapi.json`. It holds no secret and says nothing of what is stored, so it is for everybody, as `/readyz` is. */
export function documentRoutes(groups: () => readonly Routes[], version: string): Routes {
  let text: string | undefined
  return {
    '/openapi.json': {
      get: route({ summary: 'This document.', reply: z.object({ openapi: z.literal(VERSION) }) }, (_req, res) => {
        text ??= JSON.stringify(openApi(groups(), version))
        res.type('json').send(text)
      }),
    },
  }
}

/** The OpenAPI 3.1 document of the routes that are mounted: none is described twice, and none is left out. */
export function openApi(groups: readonly Routes[], version: string): Named {
  const shared: Record<string, unknown> = {}
  const paths: Record<string, unknown> = {}
  for (const [pattern, methods] of groups.flatMap(Object.entries<Routes[string]>))
    paths[pathOf(pattern)] = Object.fromEntries(
      Object.entries(methods).map(([method, { about }]) => [method, operation(pattern, method as Method, about, shared)]),
    )
  return {
    openapi: VERSION,
    info: {
      title: 'Palimpsest',
      version,
      summary: 'An OpenAI-compatible gateway that changes what a language model knows, now, without training.',
      description: [
        'Every field is honoured, read as a label, or refused by name: none is ignored. `null` counts as absent.',
        'Routes whose feature is off are not served, and are not in this document.',
        'A key is asked for where others than this machine can reach the gateway, or as soon as there is one.',
      ].join('\n\n'),
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    tags: TAGS.map(([name]) => ({ name })),
    paths,
    components: {
      securitySchemes: {
        key: { type: 'http', scheme: 'bearer', description: 'An API key, `pk_…`; its scopes say what it may be used for.' },
      },
      parameters: PARAMETERS,
      headers: HEADERS,
      responses: errorResponses(),
      schemas: { Error: ERROR, ...shared },
    },
  }
}

/** `/v1/edits/:id` as OpenAPI writes it; it has no parameter over several segments, so the reader encodes slashes. */
export function pathOf(pattern: string): string {
  return pattern.replace(/[:*](\w+)/g, '{$1}')
}

function operation(pattern: string, method: Method, about: About, shared: Record<string, unknown>): Named {
  const { summary, description, query, body, status = 200, answers, writes, headers = {} } = about
  const need = needOf(pattern)
  const inPath = [...pattern.matchAll(/[:*](\w+)/g)].map(([, name]) => name as string)
  const schema = (of: Parameters<typeof jsonSchema>[0]) => named(of, shared)
  const written = [
    'x-request-id',
    'Server-Timing',
    ...(answers ? ANSWER_HEADERS : []),
    ...(writes ? ['Palimpsest-Memory-Version'] : []),
    ...(need === 'nothing' ? [] : RATE_HEADERS),
  ]
  const success = {
    description: summary,
    headers: Object.fromEntries(written.map((name) => [name, { $ref: `#/components/headers/${name}` }])),
    content: content(about, schema),
  }
  return {
    operationId: `${method}${pattern.replace(/[^A-Za-z0-9]+(.)?/g, (_, letter: string = '') => letter.toUpperCase())}`,
    summary,
    ...(description !== undefined && { description }),
    tags: [TAGS.find(([, paths]) => paths.test(pattern))?.[0]],
    security: need === 'nothing' ? [] : [{ key: need === 'key' ? [] : [need] }],
    parameters: [
      ...inPath.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string', maxLength: 256 } })),
      ...(query === undefined ? [] : queryParameters(schema(query))),
      ...Object.entries(headers).map(([name, says]) => ({ name, in: 'header', description: says, schema: { type: 'string' } })),
      ...Object.keys(PARAMETERS)
        .filter((name) => name === 'x-request-id' || need !== 'nothing')
        .map((name) => ({ $ref: `#/components/parameters/${name}` })),
    ],
    ...(body !== undefined && {
      requestBody: {
        required: !(isSchema(body) && body.isOptional()),
        content: mapped(isSchema(body) ? { 'application/json': body } : body, (one) => ({ schema: schema(one) })),
      },
    }),
    responses: {
      ...Object.fromEntries([status].flat().map((one) => [one, success])),
      ...Object.fromEntries(statuses(about, need !== 'nothing', inPath.length > 0).map((code) => [code, errorRef(code)])),
    },
  }
}

const isSchema = (body: NonNullable<About['body']>): body is z.ZodType => '_zod' in body

function content({ reply, stream }: About, schema: (of: Parameters<typeof jsonSchema>[0]) => JsonSchema): Named {
  return {
    ...(typeof reply === 'string'
      ? { [reply]: { schema: { type: 'string' } } }
      : { 'application/json': { schema: schema(reply) } }),
    ...(stream && { [stream.type]: { schema: { type: 'string', description: stream.when }, 'x-each': schema(stream.each) } }),
  }
}

/** The schema, with those in it that have names of their own referred to by them. */
function named(of: Parameters<typeof jsonSchema>[0], shared: Record<string, unknown>): JsonSchema {
  const text = JSON.stringify(jsonSchema(of)).replaceAll('"#/$defs/', '"#/components/schemas/')
  const { $defs = {}, ...schema } = JSON.parse(text) as Record<string, JsonSchema>
  Object.assign(shared, $defs)
  return schema
}

function queryParameters({ properties = {}, required = [] }: JsonSchema): Named[] {
  return Object.entries(properties as Record<string, JsonSchema>).map(([name, { description, ...schema }]) => ({
    name,
    in: 'query',
    required: (required as string[]).includes(name),
    ...(description !== undefined && { description }),
    schema,
  }))
}

/** Statuses of the errors that a route can end in. */
function statuses({ query, body, answers, errors = [] }: About, keyed: boolean, inPath: boolean): string[] {
  const codes: readonly ErrorCode[] = [
    ...(['origin_refused', 'internal'] as const),
    ...(keyed ? (['invalid_api_key', 'insufficient_permissions', 'rate_limit_exceeded', 'storage_unavailable'] as const) : []),
    ...(keyed || query || body || inPath ? (['invalid_value'] as const) : []),
    ...(body ? (['request_too_large', 'unsupported_media_type', 'shutting_down'] as const) : []),
    ...(inPath ? (['route_not_found'] as const) : []),
    ...(answers ? (['model_not_found', 'queue_full', 'upstream_failed', 'engine_unavailable'] as const) : []),
    ...errors,
  ]
  return [...new Set(codes.map((code) => String(ERRORS[code].status)))].sort()
}

const errorRef = (status: string) => ({ $ref: `#/components/responses/Error${status}` })

const ERROR: JsonSchema = {
  type: 'object',
  description: "OpenAI's error body. All four keys are always there; `problems` lists the faults of a batch.",
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['message', 'type', 'param', 'code'],
      properties: {
        message: { type: 'string', description: 'What was expected, what came, and what to do.' },
        type: { enum: ['invalid_request_error', 'rate_limit_error', 'server_error'] },
        param: { type: ['string', 'null'], description: 'The field at fault, as the request spells it.' },
        code: { enum: Object.keys(ERRORS) },
        problems: {
          type: 'array',
          items: {
            type: 'object',
            required: ['field', 'message'],
            properties: {
              file: { type: 'string' },
              line: { type: 'integer', description: 'From 1.' },
              index: { type: 'integer', description: 'Position of the record in the batch, from 0.' },
              field: { type: ['string', 'null'] },
              message: { type: 'string' },
            },
          },
        },
      },
    },
  },
}

function errorResponses(): Named {
  const entries = Object.entries(ERRORS)
  const all = [...new Set(entries.map(([, { status }]) => status))].sort()
  return Object.fromEntries(
    all.map((status) => {
      const codes = entries.filter(([, error]) => error.status === status).map(([code]) => `\`${code}\``)
      const headers = ['x-request-id', ...(EXTRA_HEADERS[status] ?? [])]
      return [
        `Error${status}`,
        {
          description: codes.join(', '),
          headers: Object.fromEntries(headers.map((name) => [name, { $ref: `#/components/headers/${name}` }])),
          content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
        },
      ]
    }),
  )
}

const EXTRA_HEADERS: Readonly<Record<number, readonly string[]>> = {
  401: ['WWW-Authenticate'],
  403: ['WWW-Authenticate'],
  405: ['Allow'],
  429: ['Retry-After', 'x-should-retry'],
  503: ['Retry-After'],
}

const ANSWER_HEADERS = [
  'Palimpsest-Arm',
  'Palimpsest-Edits',
  'Palimpsest-Template',
  'Palimpsest-Adapter',
  'Palimpsest-Experiment',
  'Palimpsest-Warning',
]
const RATE_HEADERS = ['limit', 'remaining', 'reset'].flatMap((what) =>
  ['requests', 'tokens'].map((of) => `x-ratelimit-${what}-${of}`),
)

const header = (description: string) => ({ description, schema: { type: 'string' } })

const HEADERS: Named = {
  'x-request-id': header("Names the request in the log: the client's own where it sent a sane one."),
  'Server-Timing': header('Milliseconds of each stage so far (W3C); of a stream, the whole is in a trailer of the same name.'),
  'Palimpsest-Arm': header('`base`, `edited` or `adapter`.'),
  'Palimpsest-Edits': header('Edits in the prompt, the first of them: `ID;score=0.8160, …`, ids percent-encoded.'),
  'Palimpsest-Template': header('Template that rendered the edits, percent-encoded.'),
  'Palimpsest-Adapter': header('Adapter that answered.'),
  'Palimpsest-Experiment': header('`ID;arm=NAME` of the experiment that dealt the arm.'),
  'Palimpsest-Warning': header('What was asked for and left out.'),
  'Palimpsest-Memory-Version': header('Of the tenant, after a write of edits; `palimpsest.memory_version` in the body.'),
  ...Object.fromEntries(RATE_HEADERS.map((name) => [name, header("OpenAI's header, for keys with a limit.")])),
  'Retry-After': header('Seconds to wait.'),
  'x-should-retry': header("`false` where asking again is in vain; OpenAI's clients follow it."),
  'WWW-Authenticate': header('RFC 6750: what the key lacks.'),
  Allow: header('Methods of the path.'),
}

const PARAMETERS: Named = {
  'x-request-id': {
    name: 'x-request-id',
    in: 'header',
    ...header('Letters, digits, `.`, `_`, `:` and `-`; any other is replaced.'),
  },
  'Palimpsest-Tenant': {
    name: 'Palimpsest-Tenant',
    in: 'header',
    description: "The tenant, where neither body nor query names one; the key's own by default.",
    schema: { type: 'string', pattern: '^[A-Za-z0-9._-]{1,64}$' },
  },
  'Palimpsest-At-Least': {
    name: 'Palimpsest-At-Least',
    in: 'header',
    description:
      'A `memory_version`: the request waits until this node has applied it, or is answered 503. A node has applied its own writes.',
    schema: { type: 'string', pattern: '^[0-9]{1,15}$' },
  },
  traceparent: { name: 'traceparent', in: 'header', ...header("The caller's trace (W3C), where spans are exported.") },
}

function mapped<T>(from: Readonly<Record<string, T>>, to: (value: T) => unknown): Named {
  return Object.fromEntries(Object.entries(from).map(([name, value]) => [name, to(value)]))
}
