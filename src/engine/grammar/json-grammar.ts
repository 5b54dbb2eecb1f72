import { PalimpsestError } from '../../errors.ts'
import { integers, numbers } from './number-grammar.ts'

/**
 * JSON Schema (2020-12) as a grammar in GBNF, llama.cpp's notation: everything that the grammar admits is valid under the schema. Not
 * everything valid is admitted: properties come in the schema's order, and none that it does not name comes beside those it names.
 * `oneOf` is read as `anyOf`; a `format` other than those below is, as the specification has it, an annotation.
 * A schema that is not strict is held as far as it can be: what can't be enforced in it is left to the model.
 */
export class JsonGrammar {
  readonly #rules = new Map<string, string>()
  /** By the schema referred to. */
  readonly #references = new Map<unknown, string>()
  /** Values that answers may choose from. */
  #values = 0

  /** The name of a rule for values under `schema`, which stands at `param` in the request. Throws for what can't be enforced where it is strict. */
  rule(schema: unknown, param: string, strict: boolean): string {
    return this.#value(schema, { root: schema, param, strict, references: 0 })
  }

  /** A rule that is `body`; returns its name. */
  add(body: string, name = `r${this.#rules.size}`): string {
    if (this.#rules.size >= MOST_RULES) throw unsupported('', `the schemas make a grammar of more than ${MOST_RULES} rules`, '')
    this.#rules.set(name, body)
    return name
  }

  /** A JSON object of any kind. */
  object(): string {
    return this.#shared('object')
  }

  /** The whole grammar, beginning at `root`. */
  text(root: string): string {
    this.add(root, 'root')
    return [...this.#rules].map(([name, body]) => `${name} ::= ${body}`).join('\n')
  }

  #shared(name: keyof typeof SHARED): string {
    if (this.#rules.has(name)) return name
    this.#rules.set(name, SHARED[name])
    for (const part of Object.keys(SHARED) as (keyof typeof SHARED)[])
      if (new RegExp(`\\b${part}\\b`).test(SHARED[name])) this.#shared(part)
    return name
  }

  #value(schema: unknown, at: Place): string {
    try {
      return this.#held(schema, at)
    } catch (error) {
      if (at.strict || !(error instanceof PalimpsestError) || this.#rules.size >= MOST_RULES) throw error
      const { type } = (schema ?? {}) as Fields
      return typeof type === 'string' && PLAIN.has(type) ? this.#typed(type, {}, at) : this.#shared('value')
    }
  }

  #held(schema: unknown, at: Place): string {
    if (schema === true) return this.#shared('value')
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
      throw new PalimpsestError('invalid_value', `Expected \`${at.param}\` to be a JSON Schema object.`, { param: at.param })
    const fields = schema as Fields
    for (const keyword of at.strict ? Object.keys(fields) : []) {
      if (!UNENFORCEABLE.has(keyword) || NEUTRAL[keyword] === fields[keyword]) continue
      throw unsupported(at.param, `the keyword \`${keyword}\` cannot be enforced`, keyword)
    }
    if (fields.$ref !== undefined) return this.#reference(fields, at)
    if (fields.const !== undefined || fields.enum !== undefined) return this.#literals(fields, at)
    const several = (['anyOf', 'oneOf', 'allOf'] as const).find((keyword) => fields[keyword] !== undefined)
    if (several !== undefined) return this.#combined(fields, several, at)
    const types = [...new Set([fields.type ?? typesBy(fields)].flat())]
    return this.add(types.map((type) => this.#typed(type, fields, at)).join(' | '))
  }

  #typed(type: unknown, fields: Fields, at: Place): string {
    switch (type) {
      case 'object':
        return this.#object(fields, at)
      case 'array':
        return this.#array(fields, at)
      case 'string':
        return this.#string(fields, at)
      case 'integer':
        return integers(fields, at.param)
      case 'number':
        return numbers(fields, at.param) ?? this.#shared('number')
      case 'boolean':
        return '("true" | "false")'
      case 'null':
        return '"null"'
      case 'any':
        return this.#shared('value')
      default:
        throw new PalimpsestError('invalid_value', `Expected \`${at.param}.type\` to name JSON types.`, {
          param: `${at.param}.type`,
        })
    }
  }

  #object(fields: Fields, at: Place): string {
    const properties = Object.entries(record(fields.properties, at, 'properties'))
    const required = array(fields.required ?? [], at, 'required')
    const needs = new Set(required.map((name) => textOf(name, at, 'required')))
    const named = new Set(properties.map(([name]) => name))
    for (const name of needs) if (!named.has(name)) properties.push([name, true])
    const ws = this.#shared('ws')
    if (properties.length === 0) return this.#map(fields, at)
    const pairs = properties.map(([name, schema]) => {
      const value = this.#value(schema, { ...at, param: `${at.param}.properties.${name}`, references: 0 })
      return {
        pair: this.add(`${literal(JSON.stringify(name))} ${ws} ":" ${ws} ${value} ${ws}`),
        needed: needs.has(name),
      }
    })
    // From the last property to the first: what may follow others (`more`), and what may stand first.
    let [more, first] = ['""', '""']
    for (const { pair, needed } of pairs.toReversed()) {
      const nextFirst = needed ? `${pair} ${more}` : `(${pair} ${more} | ${first})`
      more = this.add(needed ? `"," ${ws} ${pair} ${more}` : `("," ${ws} ${pair})? ${more}`)
      first = this.add(nextFirst)
    }
    return `"{" ${ws} ${first} "}"`
  }

  /** An object whose keys the schema does not name. */
  #map(fields: Fields, at: Place): string {
    const ws = this.#shared('ws')
    if (fields.additionalProperties === false) return `"{" ${ws} "}"`
    const value = this.#value(fields.additionalProperties ?? true, {
      ...at,
      param: `${at.param}.additionalProperties`,
      references: 0,
    })
    const pair = this.add(`${this.#shared('string')} ${ws} ":" ${ws} ${value} ${ws}`)
    return `"{" ${ws} (${pair} ("," ${ws} ${pair})*)? "}"`
  }

  #array(fields: Fields, at: Place): string {
    const ws = this.#shared('ws')
    const least = count(fields.minItems, at, 'minItems') ?? 0
    const most = count(fields.maxItems, at, 'maxItems')
    const item = this.#value(fields.items ?? true, { ...at, param: `${at.param}.items`, references: 0 })
    if (most === 0) return `"[" ${ws} "]"`
    const further = `("," ${ws} ${item} ${ws}){${Math.max(0, least - 1)},${most === undefined ? '' : most - 1}}`
    const items = `${item} ${ws} ${further}`
    return `"[" ${ws} ${least > 0 ? items : `(${items})?`} "]"`
  }

  #string(fields: Fields, at: Place): string {
    const format = typeof fields.format === 'string' && Object.hasOwn(FORMATS, fields.format) ? FORMATS[fields.format] : undefined
    const least = count(fields.minLength, at, 'minLength')
    const most = count(fields.maxLength, at, 'maxLength')
    if (format !== undefined) return `"\\"" ${format} "\\""`
    if (least === undefined && most === undefined) return this.#shared('string')
    return `"\\"" ${this.#shared('char')}{${least ?? 0},${most ?? ''}} "\\""`
  }

  #literals(fields: Fields, at: Place): string {
    const values = fields.enum === undefined ? [fields.const] : array(fields.enum, at, 'enum')
    const types = fields.type === undefined ? null : [fields.type].flat()
    const fitting = values.filter(
      (value) => types === null || types.includes(typeOf(value)) || (types.includes('number') && typeOf(value) === 'integer'),
    )
    if (fitting.length === 0) throw unsupported(at.param, 'no value would be valid', 'enum')
    this.#values += fitting.length
    if (this.#values > MOST_LITERALS)
      throw unsupported(at.param, `its schemas name more than ${MOST_LITERALS} values to choose from`, 'enum')
    return this.add(alternatives([...new Set(fitting.map((value) => JSON.stringify(value)))].sort()))
  }

  #combined(fields: Fields, keyword: 'anyOf' | 'oneOf' | 'allOf', at: Place): string {
    const beside = Object.keys(fields).find((other) => other !== keyword && ASSERTING.has(other))
    if (beside !== undefined) throw unsupported(at.param, `\`${keyword}\` beside \`${beside}\` cannot be enforced`, keyword)
    const branches = array(fields[keyword], at, keyword)
    if (branches.length === 0 || (keyword === 'allOf' && branches.length > 1))
      throw unsupported(at.param, `\`${keyword}\` of ${branches.length} schemas cannot be enforced`, keyword)
    return this.add(branches.map((one, i) => this.#value(one, { ...at, param: `${at.param}.${keyword}[${i}]` })).join(' | '))
  }

  #reference(fields: Fields, at: Place): string {
    const pointer = textOf(fields.$ref, at, '$ref')
    const target = pointer.startsWith('#') ? resolve(at.root, pointer.slice(1)) : undefined
    const known = this.#references.get(target)
    if (known !== undefined && at.references === 0) return known
    if (target === undefined)
      throw unsupported(at.param, `it refers to '${pointer.slice(0, 64)}', which is not in the schema`, '$ref')
    if (at.references > MOST_REFERENCES) throw unsupported(at.param, 'it refers to itself', '$ref')
    const name = this.add('""')
    if (at.references === 0) this.#references.set(target, name)
    this.#rules.set(name, this.#value(target, { ...at, references: at.references + 1 }))
    return name
  }
}

interface Place {
  readonly root: unknown
  /** Where the schema stands in the request. */
  readonly param: string
  /** What can't be enforced is refused. */
  readonly strict: boolean
  /** References followed since the last property or item. */
  readonly references: number
}

type Fields = Readonly<Record<string, unknown>>

const MOST_RULES = 5_000
const MOST_REFERENCES = 16
/** As many as OpenAI takes in all enums of a schema. */
const MOST_LITERALS = 1_000
/** Longest beginning that texts are told apart by, one group of brackets for each; longer ones are told apart at once. */
const BRANCHES = 32
/** llama.cpp writes a bounded repetition out, once for each time. */
const MOST_REPETITIONS = 2_000

/** Rules that any schema may use. Blanks are bounded: a model that is let may write them for ever. */
const SHARED = {
  ws: '(" " | "\\n" [ \\t]{0,20})?',
  char: '[^"\\\\\\x7F\\x00-\\x1F] | "\\\\" (["\\\\/bfnrt] | "u" ([0-9a-cA-CefEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}))',
  string: '"\\"" char* "\\""',
  number: '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
  object: '"{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"',
  array: '"[" ws (value ws ("," ws value ws)*)? "]"',
  value: 'object | array | string | number | "true" | "false" | "null"',
} as const

const HEX = '[0-9a-f]'
const TIME =
  '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])'
const DATE =
  '[0-9]{4} "-" (("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]))'
/** RFC 3339 and RFC 9562. 29 February is left out rather than computed. */
const FORMATS: Readonly<Record<string, string>> = {
  date: DATE,
  time: TIME,
  'date-time': `${DATE} "T" ${TIME}`,
  uuid: `${HEX}{8} "-" ${HEX}{4} "-" ${HEX}{4} "-" ${HEX}{4} "-" ${HEX}{12}`,
}

/** Keywords of 2020-12 (and older drafts) that a grammar of this kind cannot hold to. */
const UNENFORCEABLE = new Set(
  `$dynamicRef contains dependencies dependentRequired dependentSchemas else if maxContains maxProperties minContains minProperties
  multipleOf not pattern patternProperties prefixItems propertyNames then unevaluatedItems unevaluatedProperties uniqueItems`.split(
    /\s+/,
  ),
)
const NEUTRAL: Fields = { uniqueItems: false, minProperties: 0, unevaluatedProperties: true, unevaluatedItems: true }

/** Types that say enough where nothing else of a schema can be held. */
const PLAIN = new Set(['object', 'array', 'string', 'integer', 'number', 'boolean', 'null'])

/** Keywords that say something of a value, and would be lost beside `anyOf`. */
const ASSERTING = new Set(
  `additionalProperties allOf anyOf const enum exclusiveMaximum exclusiveMinimum items maxItems maxLength maximum minItems minLength minimum
  oneOf properties required type`.split(/\s+/),
)

/** What a schema without `type` must mean by the keywords it has: any value where it has none. */
function typesBy(fields: Fields): string {
  if (fields.properties !== undefined || fields.required !== undefined || fields.additionalProperties !== undefined)
    return 'object'
  if (fields.items !== undefined || fields.minItems !== undefined || fields.maxItems !== undefined) return 'array'
  if (fields.minLength !== undefined || fields.maxLength !== undefined) return 'string'
  const bounds = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum']
  return bounds.some((bound) => fields[bound] !== undefined) ? 'number' : 'any'
}

function typeOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  return Number.isInteger(value) ? 'integer' : typeof value
}

/** A JSON pointer into the schema. */
function resolve(root: unknown, pointer: string): unknown {
  let value = root
  for (const step of pointer.split('/').slice(1)) {
    const key = decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
    value = (value as Fields)[key]
  }
  return value
}

function record(value: unknown, { param }: Place, keyword: string): Fields {
  if (value === undefined) return {}
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields
  throw new PalimpsestError('invalid_value', `Expected \`${param}.${keyword}\` to be an object.`, {
    param: `${param}.${keyword}`,
  })
}

function textOf(value: unknown, { param }: Place, keyword: string): string {
  if (typeof value === 'string') return value
  throw new PalimpsestError('invalid_value', `Expected \`${param}.${keyword}\` to be text.`, { param: `${param}.${keyword}` })
}

function array(value: unknown, { param }: Place, keyword: string): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw new PalimpsestError('invalid_value', `Expected \`${param}.${keyword}\` to be an array.`, { param: `${param}.${keyword}` })
}

function count(value: unknown, { param }: Place, keyword: string): number | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MOST_REPETITIONS) return value
  throw new PalimpsestError('invalid_value', `Expected \`${param}.${keyword}\` to be an integer from 0 to ${MOST_REPETITIONS}.`, {
    param: `${param}.${keyword}`,
  })
}

/**
 * One of some texts, which are sorted, as a tree: those of one beginning have it in common. llama.cpp tries a token against each text that is
 * still possible, and so against few.
 */
function alternatives(texts: readonly string[], depth = 0): string {
  const [first = ''] = texts
  if (texts.length === 1) return literal(first)
  if (depth === BRANCHES) return texts.map(literal).join(' | ')
  const branches: string[] = []
  for (let from = 0; from < texts.length; ) {
    const point = [...(texts[from] ?? '').slice(0, 2)][0] ?? ''
    let to = from + 1
    while (to < texts.length && point !== '' && texts[to]?.startsWith(point)) to++
    const group = texts.slice(from, to)
    const shared = group.length === 1 ? (group[0] ?? '') : commonBeginning(group[0] ?? '', group.at(-1) ?? '')
    const rest = group.map((text) => text.slice(shared.length))
    branches.push(group.length === 1 ? literal(shared) : `${literal(shared)} (${alternatives(rest, depth + 1)})`)
    from = to
  }
  return branches.join(' | ')
}

/** Of sorted texts, the first and the last have in common what all have. Whole characters. */
function commonBeginning(a: string, b: string): string {
  let length = 0
  for (const point of a) {
    if (!b.startsWith(point, length)) break
    length += point.length
  }
  return a.slice(0, length)
}

/** `text` as a GBNF literal. */
export function literal(text: string): string {
  const escaped = text
    .replace(/["\\]/g, (c) => `\\${c}`)
    .replaceAll('\n', '\\n')
    .replaceAll('\r', '\\r')
    .replaceAll('\t', '\\t')
  return `"${escaped}"`
}

export function unsupported(param: string, why: string, keyword: string): PalimpsestError {
  const at = keyword === '' ? param : `${param}.${keyword}`
  return new PalimpsestError('unsupported_field', `The schema at \`${at}\` cannot be honoured: ${why}. Leave it out.`, {
    param: at,
  })
}
