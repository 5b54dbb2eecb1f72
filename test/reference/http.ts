import type { JsonSchema } from '../../src/http/openapi/schema.ts'
import { code, kindOf, page, sentence, table } from './markdown.ts'

type Content = Readonly<Record<string, { readonly schema: JsonSchema; readonly 'x-each'?: JsonSchema }>>

interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly required?: boolean
  readonly description?: string
  readonly schema: JsonSchema
}

interface Operation {
  readonly summary: string
  readonly description?: string
  readonly tags: readonly string[]
  readonly security: readonly { readonly key?: readonly string[] }[]
  readonly parameters: readonly (Parameter | { readonly $ref: string })[]
  readonly requestBody?: { readonly content: Content }
  readonly responses: Readonly<Record<string, { readonly content?: Content }>>
}

export interface Document {
  readonly info: { readonly description: string }
  readonly tags: readonly { readonly name: string }[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>
    readonly headers: Readonly<Record<string, { readonly description: string }>>
    readonly parameters: Readonly<Record<string, Parameter>>
  }
}

/** The routes as the OpenAPI document has them. */
export function httpPage(document: Document): string {
  const { info, tags, paths, components } = document
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ title: `${method.toUpperCase()} ${path}`, operation })),
  )
  const groups = tags.flatMap(({ name }) => [
    `## ${name}`,
    ...operations.filter(({ operation }) => operation.tags.includes(name)).map(({ title, operation }) => route(title, operation)),
  ])
  return page(
    'HTTP API',
    'the document at `GET /openapi.json`, which `/docs` shows and tries',
    info.description,
    'Errors have the shape of OpenAI: `{"error": {"message", "type", "param", "code"}}`; [every code](errors.md).',
    '## Headers',
    'Read by every route:',
    table(
      ['header', 'what it says'],
      Object.values(components.parameters).map(({ name, description = '' }) => [code(name), description]),
    ),
    'Written, where they apply:',
    table(
      ['header', 'what it says'],
      Object.entries(components.headers).map(([name, { description }]) => [code(name), description]),
    ),
    ...groups,
    '## Objects',
    ...Object.entries(components.schemas).map(([name, schema]) =>
      [`### ${name}`, ...(schema.description ? [String(schema.description)] : []), fields(schema)].join('\n\n'),
    ),
  )
}

function route(title: string, { summary, description, security, parameters, requestBody, responses }: Operation): string {
  const own = parameters.filter((one): one is Parameter => !('$ref' in one))
  const [key] = security
  const needs = key === undefined ? 'nothing' : key.key?.length ? `a key with the scope ${code(key.key.join(', '))}` : 'any key'
  const successes = Object.entries(responses).filter(([status]) => status < '400')
  const failures = Object.keys(responses).filter((status) => status >= '400')
  const replies = Object.entries(successes[0]?.[1].content ?? {}).map(([type, { schema, 'x-each': each }]) =>
    each === undefined
      ? `${code(type)}: ${kindOf(schema)}`
      : `${code(type)} of ${kindOf(each)} (${String(schema.description).replace(/\.$/, '')})`,
  )
  const bodies = Object.entries(requestBody?.content ?? {})
  const inline = bodies.map(([, { schema }]) => schema).find((schema) => schema.properties !== undefined)
  return [
    // A brace in a plain heading is an attribute to VitePress.
    `### \`${title}\``,
    [summary, description].filter(Boolean).join(' '),
    `Needs ${needs}. Answers ${successes.map(([status]) => status).join(' or ')} with ${replies.join('; ')}. Fails with ${failures.join(', ')}.`,
    ...(own.length > 0
      ? [
          table(
            ['parameter', 'in', 'value', ''],
            own.map((one) => [code(one.name), one.in, kindOf(one.schema), one.description ?? '']),
          ),
        ]
      : []),
    ...bodies.map(([type, { schema }]) =>
      schema === inline ? `Body, ${code(type)}:` : sentence(`Body, ${code(type)}: ${schema.description ?? kindOf(schema)}`),
    ),
    ...(inline === undefined || Object.keys(inline.properties as object).length === 0 ? [] : [fields(inline)]),
  ].join('\n\n')
}

function fields({ properties = {}, required = [] }: JsonSchema): string {
  const rows = Object.entries(properties as Record<string, JsonSchema>).map(([name, schema]) => [
    code(name),
    (required as readonly string[]).includes(name) ? 'yes' : '',
    kindOf(schema),
    typeof schema.description === 'string' ? schema.description : '',
  ])
  return table(['field', 'required', 'value', ''], rows)
}
