import { expect, test } from 'vitest'
import { compared, type Measure, tableOf } from '../../../bench/quick/compare.ts'

const one = (name: string, ratio: number, better: Measure['better'] = 'less'): Measure => ({ name, ratio, better })

test.each([
  ['less', 1.25, false],
  ['less', 1.26, true],
  ['less', 0.1, false],
  ['more', 0.8, false],
  ['more', 0.79, true],
  ['more', 9, false],
  ['less', Number.NaN, true],
  ['more', Number.NaN, true],
] as const)('where %s is better, %d after 1 is worse: %s', (better, now, worse) => {
  expect(compared([one('a', now, better)], [one('a', 1, better)])).toEqual([{ name: 'a', now, last: 1, worse }])
})

test('a measure that is new, or was left out, is shown and not judged', () => {
  const rows = compared([one('new', 9), one('kept', 2)], [one('gone', 1), one('kept', 1)])
  expect(rows).toEqual([
    { name: 'new', now: 9, last: null, worse: false },
    { name: 'kept', now: 2, last: 1, worse: true },
    { name: 'gone', now: null, last: 1, worse: false },
  ])
  expect(tableOf(rows).split('\n').slice(2)).toEqual([
    '| new | 9.00 | – | – |',
    '| kept | 2.00 | 1.00 | 2.00 WORSE |',
    '| gone | – | 1.00 | – |',
  ])
})
