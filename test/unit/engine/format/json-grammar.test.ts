import fc from 'fast-check'
import { getLlama, type Llama } from 'node-llama-cpp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { answerGrammar } from '../../../../src/engine/grammar/answer-grammar.ts'
import { JsonGrammar } from '../../../../src/engine/grammar/json-grammar.ts'

let llama: Llama
beforeAll(async () => {
  llama = await getLlama({ gpu: false, build: 'never', maxThreads: 1, progressLogs: false })
}, 60_000)
afterAll(() => llama.dispose())

const gbnf = (schema: unknown, strict = true) => {
  const grammar = new JsonGrammar()
  return grammar.text(grammar.rule(schema, 'schema', strict))
}
/** llama.cpp's own opinion. */
const admits = async (grammar: string, text: string): Promise<boolean> => {
  const compiled = await llama.createGrammar({ grammar })
  return (compiled as unknown as { _testText(text: string): boolean })._testText(text)
}
const refusal = (schema: unknown) => {
  try {
    gbnf(schema)
  } catch (error) {
    return error as { code: string; param: string }
  }
  return null
}

const PERSON = {
  type: 'object',
  properties: {
    name: { type: 'string' },
    age: { type: 'integer', minimum: 18, maximum: 120 },
    nick: { type: ['string', 'null'] },
  },
  required: ['name'],
  additionalProperties: false,
}
const TREE = {
  $ref: '#/$defs/node',
  $defs: {
    node: { type: 'object', properties: { next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] } }, required: ['next'] },
  },
}

describe('a JSON Schema as a grammar', { timeout: 60_000 }, () => {
  it.each<[string, unknown, readonly string[], readonly string[]]>([
    [
      'properties, in order, optional ones left out',
      PERSON,
      [
        '{"name": "A"}',
        '{"name":"A","age":18}',
        '{ "name": "A", "nick": null }',
        '{"name": "A\\n\\u00e9", "age": 99, "nick": "x"}',
      ],
      ['{}', '{"age": 18}', '{"name": "A", "age": 17}', '{"name": "A", "age": 121}', '{"name": "A", "x": 1}', '{"name": 1}'],
    ],
    [
      'only optional ones',
      { properties: { a: {}, b: {} } },
      ['{}', '{"a": 1}', '{"b": [1]}', '{"a": {}, "b": 2}'],
      ['{"b":1,"a":2}', '{"c":1}'],
    ],
    ['maps', { type: 'object', additionalProperties: { type: 'boolean' } }, ['{}', '{"x": true, "y": false}'], ['{"x": 1}']],
    ['no properties at all', { type: 'object', additionalProperties: false }, ['{}'], ['{"a": 1}']],
    [
      'arrays',
      { type: 'array', items: { enum: ['a', 2, null] }, minItems: 1, maxItems: 2 },
      ['["a"]', '[2, null]'],
      ['[]', '["a","a","a"]', '["b"]'],
    ],
    ['lengths', { type: 'string', minLength: 2, maxLength: 3 }, ['"ab"', '"äöü"', '"a\\n"'], ['"a"', '"abcd"']],
    ['constants', { const: { a: ['"'] } }, ['{"a":["\\""]}'], ['{"a":[]}']],
    ['alternatives', { anyOf: [{ type: 'integer' }, { type: 'string' }] }, ['1', '"1"'], ['1.5', 'null']],
    ['recursion', TREE, ['{"next": null}', '{"next": {"next": null}}'], ['{}', '{"next": 1}']],
    ['dates', { type: 'string', format: 'date' }, ['"2026-02-28"', '"1999-12-31"'], ['"2026-02-30"', '"2026-13-01"', '"today"']],
    [
      'times',
      { type: 'string', format: 'date-time' },
      ['"2026-02-28T23:59:59Z"', '"2026-02-28T00:00:00.5+01:00"'],
      ['"2026-02-28"'],
    ],
    ['other formats, which are annotations', { type: 'string', format: 'email' }, ['"x"'], ['1']],
    ['numbers', { type: 'number' }, ['0', '-1.5', '2e10', '0.25'], ['01', '.5', '+1', 'NaN']],
    ['shares', { type: 'number', minimum: 0, maximum: 1 }, ['0', '0.5', '1', '1.0'], ['1.1', '-0.1', '2']],
    ['amounts', { type: 'number', minimum: 5 }, ['5', '5.5', '12.25', '100'], ['4.9', '0', '-5']],
    ['what is said of nothing', {}, ['{"a": [1, "x", null]}', 'true'], ['{', 'x']],
    [
      'references within one',
      { properties: { a: { $ref: '#/definitions/x' } }, definitions: { x: { type: 'integer' } } },
      ['{"a": 1}'],
      ['{"a": "1"}'],
    ],
    ['an enum of one type', { type: 'string', enum: ['a', null] }, ['"a"'], ['null']],
    [
      'values that begin alike',
      { enum: ['a', 'ab', 'abc', 'abd', 'b', '🎉a', '🎉b', 'é', 1, 12, 123, 12.5, { a: [1] }, 'ab'] },
      ['"a"', '"ab"', '"abc"', '"abd"', '"b"', '"🎉a"', '"🎉b"', '"é"', '1', '12', '123', '12.5', '{"a":[1]}'],
      ['""', '"abcd"', '"abe"', '"🎉"', '13', '124', '"c"', '12.'],
    ],
    [
      'values that begin alike for long',
      { enum: Array.from({ length: 60 }, (_, i) => 'a'.repeat(i)) },
      ['""', '"a"', `"${'a'.repeat(40)}"`, `"${'a'.repeat(59)}"`],
      [`"${'a'.repeat(60)}"`, '"b"'],
    ],
  ])('admits %s', async (_, schema, good, bad) => {
    const grammar = gbnf(schema)
    for (const text of good) expect([text, await admits(grammar, text)]).toEqual([text, true])
    for (const text of bad) expect([text, await admits(grammar, text)]).toEqual([text, false])
    for (const text of good) if (text.startsWith('{')) expect(() => JSON.parse(text)).not.toThrow()
  })

  it.each<[string, unknown, string]>([
    ['a pattern', { properties: { a: { type: 'string', pattern: '^x$' } } }, 'schema.properties.a.pattern'],
    ['not', { not: {} }, 'schema.not'],
    ['multiples', { items: { type: 'integer', multipleOf: 5 } }, 'schema.items.multipleOf'],
    ['unique items', { type: 'array', uniqueItems: true }, 'schema.uniqueItems'],
    ['several schemas at once', { allOf: [{}, {}] }, 'schema.allOf'],
    ['alternatives beside properties', { properties: {}, anyOf: [{}] }, 'schema.anyOf'],
    ['a reference out of it', { $ref: 'https://example.org/x' }, 'schema.$ref'],
    ['a reference to nothing', { $ref: '#/$defs/x' }, 'schema.$ref'],
    ['a reference to itself', { $ref: '#' }, 'schema.$ref'],
    ['exclusive bounds of numbers', { type: 'number', exclusiveMinimum: 0 }, 'schema.exclusiveMinimum'],
    ['an unknown type', { type: 'decimal' }, 'schema.type'],
    ['a boolean for properties', { properties: true }, 'schema.properties'],
    ['false', { properties: { a: false } }, 'schema.properties.a'],
    ['a very long string', { type: 'string', maxLength: 1e6 }, 'schema.maxLength'],
    [
      'an enum of 10,000',
      { properties: { a: { enum: Array.from({ length: 10_000 }, (_, i) => `value ${i}`) } } },
      'schema.properties.a.enum',
    ],
    [
      'more than 1,000 values in several enums',
      {
        properties: {
          a: { enum: Array.from({ length: 600 }, (_, i) => i) },
          b: { enum: Array.from({ length: 600 }, (_, i) => i) },
        },
      },
      'schema.properties.b.enum',
    ],
    ['bounds that cross', { type: 'integer', minimum: 2, maximum: 1 }, 'schema'],
  ])('refuses %s, naming it', (_, schema, param) => {
    expect(refusal(schema)).toMatchObject({ param })
  })

  it.each<[string, unknown, readonly string[], readonly string[]]>([
    [
      'a pattern',
      { properties: { a: { type: 'string', pattern: '^x$', maxLength: 2 } } },
      ['{"a":"yy"}'],
      ['{"a":1}', '{"a":"yyy"}'],
    ],
    ['a very long string', { type: 'string', maxLength: 1e6 }, ['"x"'], ['1']],
    ['negative bounds of numbers', { type: 'number', minimum: -90, maximum: 90 }, ['-12.5'], ['"x"']],
    ['several schemas at once', { allOf: [{}, {}] }, ['{"a":1}', '2'], ['x']],
    ['an unknown type', { items: { type: 'decimal' } }, ['[1]'], ['{}']],
    ['a reference to itself', { $ref: '#' }, ['{"a":1}'], ['x']],
    ['false', { properties: { a: false, b: { type: 'integer' } } }, ['{"a":1,"b":2}'], ['{"b":"2"}']],
  ])('holds a schema that is not strict as far as it can: %s', async (_, schema, good, bad) => {
    const grammar = gbnf(schema, false)
    for (const text of good) expect([text, await admits(grammar, text)]).toEqual([text, true])
    for (const text of bad) expect([text, await admits(grammar, text)]).toEqual([text, false])
  })

  it('compiles an enum of 1,000 at once', async () => {
    const values = Array.from({ length: 1_000 }, (_, i) => `The value number ${(i * 7_919) % 10_000}`)
    const start = process.cpuUsage()
    const grammar = gbnf({ enum: values })
    for (const value of values.slice(0, 5)) expect(await admits(grammar, JSON.stringify(value))).toBe(true)
    expect(await admits(grammar, '"The value number x"')).toBe(false)
    const { user, system } = process.cpuUsage(start)
    expect((user + system) / 1_000).toBeLessThan(2_000)
  })

  it('bounds integers exactly', async () => {
    const bound = fc.integer({ min: -1500, max: 1500 })
    await fc.assert(
      fc.asyncProperty(bound, bound, fc.array(bound, { minLength: 5, maxLength: 5 }), async (a, b, values) => {
        const [minimum, maximum] = [Math.min(a, b), Math.max(a, b)]
        const grammar = gbnf({ type: 'integer', minimum, maximum })
        for (const value of [...values, minimum, maximum, minimum - 1, maximum + 1, 0])
          expect([minimum, maximum, value, await admits(grammar, String(value))]).toEqual([
            ...[minimum, maximum, value],
            value >= minimum && value <= maximum,
          ])
      }),
      { numRuns: 60 },
    )
  })

  it('admits any JSON where any is asked for', async () => {
    const grammar = gbnf(true)
    await fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 3 }), async (value) => {
        fc.pre(!/\d{17}|e[+-]\d{3}|\\ud[89a-f]/i.test(JSON.stringify(value)))
        expect([value, await admits(grammar, JSON.stringify(value))]).toEqual([value, true])
      }),
      { numRuns: 100 },
    )
  })
})

describe('what an answer with tools is held to', () => {
  const tool = (name: string) => ({ name, param: 'tools[0]', parameters: PERSON })
  const use = { tools: [tool('f'), tool('g')], allowed: ['f'], required: false, parallel: false }
  const body = (name: string) => `\n{"name": "${name}", "arguments": {"name": "A"}}\n</tool_call>`

  it('after a tag: one call of an allowed function, or several', async () => {
    const one = answerGrammar(undefined, use).afterTag ?? ''
    expect(await admits(one, body('f'))).toBe(true)
    expect(await admits(one, body('g'))).toBe(false)
    expect(await admits(one, `${body('f')}\n<tool_call>${body('f')}`)).toBe(false)
    const several = answerGrammar(undefined, { ...use, parallel: true }).afterTag ?? ''
    expect(await admits(several, `${body('f')}\n<tool_call>${body('f')}`)).toBe(true)
    const bare = answerGrammar(undefined, use).afterHead('f') ?? ''
    expect(await admits(bare, ' {"name": "A"}}')).toBe(true)
    expect(await admits(bare, '{"name": "A"}\n}\n```')).toBe(true)
  })

  it('a call where one is required, a call or the format where both are asked for', async () => {
    const required = answerGrammar({ kind: 'json' }, { ...use, required: true }).whole ?? ''
    expect(await admits(required, `<tool_call>${body('f')}`)).toBe(true)
    expect(await admits(required, '{}')).toBe(false)
    const either = answerGrammar({ kind: 'json' }, use).whole ?? ''
    expect(await admits(either, `<tool_call>${body('f')}`)).toBe(true)
    expect(await admits(either, '{"a": 1}')).toBe(true)
    expect(await admits(either, 'words')).toBe(false)
  })

  it('a tool that is not strict takes any schema, and its arguments are an object', async () => {
    const tools = [{ ...tool('f'), parameters: { allOf: [{}, {}] } }]
    const held = answerGrammar(undefined, { ...use, tools }).afterTag ?? ''
    expect(await admits(held, body('f'))).toBe(true)
    expect(await admits(held, body('f').replace('{"name": "A"}', '3'))).toBe(false)
  })

  it('names the tool whose schema it refuses', () => {
    const tools = [{ ...tool('f'), strict: true, parameters: { type: 'object', properties: { a: { pattern: 'x' } } } }]
    expect(() => answerGrammar(undefined, { ...use, tools })).toThrow(/tools\[0\]\.function\.parameters\.properties\.a\.pattern/)
  })
})
