// Compares our OpenAPI document with OpenAI's, for the paths that both have: fields of requests, and fields that a reply must have.

const PATHS = [
  '/chat/completions',
  '/completions',
  '/embeddings',
  '/responses',
  '/responses/{response_id}',
  '/models',
  '/models/{model}',
]
const OURS = { '/responses/{response_id}': '/responses/{id}', '/models/{model}': '/models/{name}' }
const MOST_LEVELS = 3

/** One line a path and side: fields of OpenAI's that our document does not name. */
export function compared(theirs, ours) {
  return PATHS.flatMap((path) =>
    ['get', 'post', 'delete'].flatMap((method) => {
      const [their, our] = [theirs.paths[path]?.[method], ours.paths[`/v1${OURS[path] ?? path}`]?.[method]]
      if (their === undefined) return []
      const name = `${method.toUpperCase()} /v1${path}`
      if (our === undefined) return [{ test: name, outcome: 'failed', why: 'not served' }]
      return [
        ...line(`${name}, request`, fields(theirs, body(their), 1), fields(ours, body(our), 1)),
        ...line(`${name}, reply`, required(theirs, reply(their)), fields(ours, reply(our), MOST_LEVELS)),
      ]
    }),
  )
}

function line(test, wanted, named) {
  if (wanted.size === 0) return []
  const missing = [...wanted].filter((field) => !named.has(field))
  const why = missing.length === 0 ? `${wanted.size} fields` : `of ${wanted.size} fields not named: ${missing.join(', ')}`
  return [{ test, outcome: missing.length === 0 ? 'passed' : 'failed', why }]
}

const body = ({ requestBody }) => requestBody?.content?.['application/json']?.schema
const reply = ({ responses = {} }) => (responses['200'] ?? responses['201'])?.content?.['application/json']?.schema

function resolved(document, schema) {
  if (schema?.$ref === undefined) return schema
  const found = schema.$ref
    .slice(2)
    .split('/')
    .reduce((at, step) => at?.[step], document)
  return resolved(document, found)
}

/** A schema with what it is made of. */
function parts(document, schema) {
  const one = resolved(document, schema)
  if (one === undefined) return []
  return [one, ...['allOf', 'anyOf', 'oneOf'].flatMap((how) => (one[how] ?? []).flatMap((part) => parts(document, part)))]
}

/** Names of fields, those of objects within as `outer.inner`. */
function fields(document, schema, levels, before = '') {
  const names = new Set()
  for (const { properties = {}, items } of parts(document, schema)) {
    if (items !== undefined && levels > 0) for (const name of fields(document, items, levels - 1, before)) names.add(name)
    for (const [name, value] of Object.entries(properties)) {
      names.add(`${before}${name}`)
      if (levels > 1) for (const inner of fields(document, value, levels - 1, `${before}${name}.`)) names.add(inner)
    }
  }
  return names
}

/** Names of fields that must be there, in the object itself and in what it is made of. */
function required(document, schema) {
  const one = parts(document, schema).filter(({ properties }) => properties !== undefined)
  return new Set(one.flatMap(({ required: names = [] }) => names))
}
