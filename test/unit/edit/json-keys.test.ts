import fc from 'fast-check'
import { expect, test } from 'vitest'
import { repeatedKey, wholeNumberAt } from '../../../src/edit/json-keys.ts'

test('what JSON.stringify writes names no field twice, however deep and whatever its texts', () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 6 }), (text) => {
      expect(repeatedKey(text)).toBeNull()
    }),
  )
})

test('a field named twice in any object of a text is found, however it is spelt', () => {
  fc.assert(
    fc.property(fc.string(), fc.jsonValue(), fc.jsonValue(), fc.boolean(), (key, one, two, escaped) => {
      const plain = JSON.stringify(key)
      const again = escaped
        ? `"${[...key].map((c) => [...Array(c.length).keys()].map((i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, '0')}`).join('')).join('')}"`
        : plain
      const text = `[{"a":[{${plain}:${JSON.stringify(one)} , ${again}:${JSON.stringify(two)}}]}]`
      expect(repeatedKey(text)?.key).toBe(key)
    }),
  )
})

test.each([
  ['{"a":1,"b":{"a":1}}', null],
  ['[{"a":1},{"a":1}]', null],
  ['{"a":"a","b":"a"}', null],
  ['{"a":["a","a"],"b":1}', null],
  ['{"a":"\\"a\\":","b":1}', null],
  ['{"a":{},"a":[]}', 'a'],
  ['{"__proto__":1,"__proto__":2}', '__proto__'],
])('%s', (text, key) => {
  expect(repeatedKey(text)?.key ?? null).toBe(key)
})

test.each([
  ['{"seed":18446744073709551615}', '18446744073709551615'],
  ['{"a":{"seed":1},"b":["seed"],"c":"\\"seed\\":2", "s\\u0065ed" : -9223372036854775808 }', '-9223372036854775808'],
  ['{"seed":1e19}', undefined],
  ['{"seed":1.5}', undefined],
  ['{"seed":"7"}', undefined],
  ['{"a":[{"seed":7}]}', undefined],
])('the digits of a seed in %s', (text, digits) => {
  expect(wholeNumberAt(text, 'seed')).toBe(digits)
})
