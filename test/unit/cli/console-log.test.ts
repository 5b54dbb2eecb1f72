import { expect, test } from 'vitest'
import { sentence } from '../../../src/server/console-log.ts'

test.each([
  [{ level: 40, msg: 'edits not taken' }, 'warn: edits not taken'],
  [
    { level: 50, msg: 'request failed', err: { message: 'no\nfatal: all is lost' } },
    'error: request failed: no ⏎ fatal: all is lost',
  ],
  [{ level: 30, msg: 'a\r\n\n  b\u2028c' }, 'info: a ⏎ b\u2028c'],
  [{ level: 30, msg: '\u001b[2Jgone\u202e' }, 'info:  [2Jgone '],
])('what is said stays on its line: %j', (line, said) => {
  expect(sentence(JSON.stringify(line))).toBe(said)
})
