import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DEFAULT_LIMITS } from '../../../src/gateway.ts'
import { chatBody } from '../../../src/wire/openai/chat.ts'
import { check, checkSent } from '../../../src/wire/openai/refusal.ts'

/** What came out, or what was thrown, to be compared. */
function outcome(work: () => unknown): unknown {
  try {
    return { value: work() }
  } catch (error) {
    const { code, message, param } = error as { code?: string; message: string; param?: unknown }
    return { code, message, param }
  }
}

describe('a check of the fields that were sent', () => {
  const schema = chatBody(DEFAULT_LIMITS)
  const checked = checkSent(schema)
  const message = fc.oneof(
    fc.constant({ role: 'user', content: 'Hello' }),
    fc.constant({ role: 'user' }),
    fc.record({ role: fc.constantFrom('system', 'user', 'nobody'), content: fc.oneof(fc.string(), fc.constant(7)) }),
  )
  const value = fc.oneof(fc.constantFrom(0, 1, -1, 0.5, true, 'on', 'x', '', null, undefined), fc.constant([]), fc.constant({}))
  const field = fc.constantFrom(...Object.keys(schema.shape), 'surprise', '__proto__', 'toString', 'model\nmessages')
  const body = fc.oneof(
    fc
      .tuple(fc.dictionary(field, value), fc.array(message, { maxLength: 3 }), fc.boolean())
      .map(([more, messages, isWhole]) => (isWhole ? { model: 'm', ...more, messages } : more)),
    value,
  )

  it('says the same as the whole check', () => {
    fc.assert(
      fc.property(body, (one) => {
        expect(outcome(() => checked(one))).toEqual(outcome(() => check(schema, one)))
      }),
      { numRuns: 500 },
    )
  })

  it('finds nothing wrong with what is right, in any order', () => {
    const good = {
      model: 'm',
      messages: [{ role: 'user', content: 'Hello' }],
      temperature: 0.5,
      stream: true,
      palimpsest: { edits: 'off' },
    }
    for (const entries of [Object.entries(good), Object.entries(good).reverse()])
      expect(checked(Object.fromEntries(entries))).toEqual(check(schema, good))
  })
})
