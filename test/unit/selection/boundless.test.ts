import { expect, test } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import type { TextPair } from '../../../src/engine/engine.ts'
import { boundless } from '../../../src/selection/boundless.ts'
import type { Candidate } from '../../../src/selection/candidate.ts'
import { gate } from '../../../src/selection/gate.ts'
import { edit, READ_CALIBRATION } from '../../support/memory-fixture.ts'

const candidate = (id: string, logit: number | null, over: Partial<Edit> = {}): Candidate => ({
  ...{ edit: edit(id, { prompt: `Prompt of ${id}`, ...over }), similarity: 0.9, nearness: 0, name: null, earlier: false },
  ...{ logit, read: 'message', key: null, counter: false, otherNamed: false, among: 3 },
})

/** A reader that says of `anything` that every message needs it, and of `bread` that one about bread does. */
function reader() {
  const asked: TextPair[] = []
  const read = async (pairs: readonly TextPair[]) => {
    asked.push(...pairs)
    return Float32Array.from(pairs, ([text, of]) =>
      of.includes('anything') || (of.includes('bread') && text.includes('Brot')) ? 3 : -3,
    )
  }
  return { asked, read }
}

test('an edit that applies to messages that have nothing to do with one another is boundless; one that has a topic is not', async () => {
  const { asked, read } = reader()
  const found = await boundless([candidate('anything', 2), candidate('bread', 2), candidate('other', 2)], READ_CALIBRATION, read)
  expect([...found]).toEqual(['anything'])
  // Two messages each, and the other two only of the one that applied to any of them.
  const tried = (id: string) => asked.filter(([, of]) => of.includes(id)).length
  expect(['anything', 'bread', 'other'].map(tried)).toEqual([4, 2, 2])
})

test('only those that apply are tried, and no rule that says it is for every message', async () => {
  const { asked, read } = reader()
  const always = candidate('anything-always', null, { kind: 'rule', always: true })
  const found = await boundless([candidate('anything', -2), candidate('anything-unread', null), always], READ_CALIBRATION, read)
  expect([[...found], asked]).toEqual([[], []])
})

test('it does not apply, says so, and pushes out nothing', () => {
  const verdict = gate([{ ...candidate('anything', 6), boundless: true }, candidate('bread', 1)], READ_CALIBRATION)
  expect(verdict.map(({ id, reason }) => [id, reason])).toEqual([
    ['bread', 'selected'],
    ['anything', 'boundless'],
  ])
})
