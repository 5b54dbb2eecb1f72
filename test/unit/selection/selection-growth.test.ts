/** Long texts cost in proportion to their length, whatever they consist of. */
import { describe, expect, it } from 'vitest'
import { normalized, tokens, words } from '../../../src/edit/words.ts'
import { NameIndex } from '../../../src/selection/names.ts'
import { partsOf } from '../../../src/selection/text.ts'
import { edit } from '../../support/memory-data.ts'

const index = new NameIndex()
for (const subject of ['Maria Weber', 'C++', '.NET', 'a', '北京', 'Lumora', 'a a a a a a a a', 'The Next Day'])
  index.add(edit(subject, { subject }))

const WORK: Readonly<Record<string, (text: string) => unknown>> = {
  words,
  normalized,
  find: (text) => index.find(text),
  partsOf: (text) => partsOf([text], text),
}
const SHAPES = [
  ...['The mayor of Lumora said on Monday that 3.5 million people, among them Maria Weber, left. ', 'Lumorb Mario ', 'a ', 'A\n'],
  ...['a', 'ä', '1', '京', 'ا', '🎉', '\u00ad', '\u0301', '.', '@', '/', '-', '_', '\\'],
  ...['a.', 'a-', 'a_', 'a@', 'a+', 'a%', 'a&', 'a#', 'a/', '/a', '1.', 'a1', 'a1.', '..a', '. ', 'あ.'],
  ...['a.b-', 'a-b.', 'a-b_', 'a.a@', 'a@a-', '~/', 'a:\\', 'http://', 'https://a', 'a-1.', 'a_b/'],
]
const CHARS = 5_000
/** Times of the machine itself differ by as much; a quadratic one would be 64 times as long. */
const MOST = 32
/** Below this, in milliseconds, times say nothing. */
const LEAST_MS = 8

/** Processor time, in milliseconds: a busy neighbour does not count. */
function time(work: () => unknown): number {
  let best = Number.POSITIVE_INFINITY
  for (let run = 0; run < 3; run++) {
    const start = process.cpuUsage()
    work()
    const { user, system } = process.cpuUsage(start)
    best = Math.min(best, (user + system) / 1_000)
    // What is quick is measured well enough, and what is slow as well.
    if (best < LEAST_MS || best > 500) break
  }
  return best
}

const filled = (shape: string, chars: number) => shape.repeat(Math.ceil(chars / shape.length)).slice(0, chars)

describe.each(Object.entries(WORK))('%s', (_name, work) => {
  it.each(SHAPES)('of a text of %j grows with its length', { timeout: 60_000 }, (shape) => {
    const [one, eight] = [CHARS, 8 * CHARS].map((chars) => time(() => work(filled(shape, chars)))) as [number, number]
    expect(eight).toBeLessThan(MOST * Math.max(one, LEAST_MS))
  })
})

it('looks a word of 15,000 letters and 90 kB of one letter up at once', () => {
  index.add(edit('long', { subject: 'x'.repeat(15_000) }))
  expect(time(() => index.find(`Is ${'x'.repeat(15_000)} there?`))).toBeLessThan(1_000)
  expect(index.find(`Is ${'x'.repeat(15_000)} there?`)).toMatchObject([{ editId: 'long', kind: 'exact' }])
  expect(time(() => words('x'.repeat(90_000)))).toBeLessThan(1_000)
  expect(tokens('x'.repeat(90_000))).toHaveLength(1)
})
