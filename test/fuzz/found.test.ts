/** What the fuzzers have found, each with the right answer. */
import { describe, expect, test } from 'vitest'
import { readRecord } from '../../src/edit/formats.ts'
import { JsonGrammar } from '../../src/engine/grammar/json-grammar.ts'
import { chunkOf, refusal } from '../../src/engine/upstream/wire.ts'
import { DEFAULT_LIMITS } from '../../src/gateway.ts'
import { chatReader } from '../../src/wire/openai/chat.ts'
import { responseReader } from '../../src/wire/openai/responses/request.ts'

/** An object of which String() throws, as any client can send one. */
const WORDLESS = JSON.parse('{"toString":1,"valueOf":1}') as object
const CONTEXT = { tenant: 'default', tags: [], tenants: 'one' } as const

describe('an object that has no text', () => {
  test.each([
    ['a sentiment', { ent: 'a', sentiment: WORDLESS }, 'sentiment'],
    ['a topic', { ent: WORDLESS, sentiment: 'positive' }, 'ent'],
    ['a trait', { ent: 'a', target_per: WORDLESS }, 'target_per'],
  ])('is no %s', (_what, record, field) => {
    expect(readRecord(record, 'auto', CONTEXT).problems[0]?.field).toBe(field)
  })

  test('is no reference and no name of a property in a schema', () => {
    const rule = (schema: object) => () => new JsonGrammar().rule(schema, 'schema', true)
    expect(rule({ $ref: WORDLESS })).toThrow(/Expected `schema.\$ref` to be text/)
    expect(rule({ type: 'object', required: [WORDLESS] })).toThrow(/Expected `schema.required` to be text/)
  })

  test('is no choice of a tool', async () => {
    const read = responseReader(DEFAULT_LIMITS, chatReader(DEFAULT_LIMITS))
    const body = { model: 'm', input: 'x', tool_choice: { type: 'auto', ...WORDLESS } }
    const earlier = { conversation: async () => undefined, item: async () => undefined }
    await expect(read(body, undefined, { model: 'm', templates: [] }, earlier)).rejects.toMatchObject({ status: 400 })
  })

  test('is no message of an upstream’s error', () => {
    const error = JSON.stringify({ error: { message: WORDLESS } })
    expect(refusal(500, null, error, 'http://x', 0)).toMatchObject({
      code: 'upstream_failed',
      message: expect.stringContaining('toString'),
    })
    expect(() => chunkOf(error, 'http://x')).toThrow(/failed in the middle of its answer/)
  })
})
