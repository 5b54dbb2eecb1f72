import { describe, expect, it } from 'vitest'
import { latestFirst, listEdits } from '../../../src/memory/log/query.ts'
import { LiveView } from '../../../src/memory/log/timeline.ts'
import type { HeldEdit, LogRecord } from '../../../src/memory/memory.ts'
import { edit } from '../../support/memory-data.ts'

const chance = (seed: number) => () => {
  seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
  return seed / 2_147_483_648
}

describe('what a list keeps from one time to the next', () => {
  it.each([1, 2, 3, 4, 5, 6])('is what the records say, whatever comes (%i)', (seed) => {
    const draw = chance(seed)
    const pick = (many: number) => Math.floor(draw() * many)
    const view = new LiveView()
    let seq = 0
    for (let at = 100; at < 400; at++) {
      const id = `e_${pick(12)}`
      const bounds = pick(3) === 0 ? { validFrom: at + pick(20) - 10, validTo: at + 10 + pick(30) } : {}
      const said = { ...edit(id, { subject: `S${pick(4)}`, prompt: 'It is', targetNew: `t${pick(9)}` }), ...bounds }
      const kind = view.newest(id) === undefined ? 'add' : ((['add', 'withdraw', 'restore'] as const)[pick(3)] ?? 'add')
      const record: LogRecord = { seq: ++seq, at, kind, editId: id, batchId: `b${seq}`, ...(kind === 'add' && { edit: said }) }
      view.apply(record)
      if (pick(2) === 0) continue
      const plain = [...view.ids()].map((one) => view.held(one, at)).filter((held): held is HeldEdit => held !== undefined)
      expect(latestFirst(view, at)).toEqual(plain.sort((a, b) => b.seq - a.seq))
    }
  })
})

describe('a search', () => {
  const view = new LiveView()
  const texts = ['The mayor of Łódź', 'The mayoress', "O'Brien's mayor", '東京の市長', 'May']
  for (const [i, subject] of texts.entries())
    view.apply({
      seq: i + 1,
      at: 1,
      kind: 'add',
      editId: `e_${i}`,
      batchId: 'b',
      edit: edit(`e_${i}`, { subject, prompt: 'x', targetNew: 'y' }),
    })
  const found = (text: string) =>
    listEdits(view, { tenant: 'default', limit: 9, text }, 9)
      .edits.map(({ edit }) => texts.indexOf(edit.subject))
      .sort()
  it.each([
    ['mayor', [0, 2]],
    ['MAYOR lodz', [0]],
    ['may', [4]],
    ['may*', [0, 1, 2, 4]],
    ['brien', [2]],
    ['rien', []],
    ['市長', [3]],
    ['mayo* the', [0, 1]],
  ])('for "%s" finds whole words, and beginnings where a star stands', (text, wanted) => expect(found(text)).toEqual(wanted))
})
