import { describe, expect, it } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import type { TextPair } from '../../../src/engine/engine.ts'
import type { Candidate } from '../../../src/selection/candidate.ts'
import { asksSame, latest, namesOf, rivals, samenessPairs, sameSubject, sameTarget } from '../../../src/selection/sameness.ts'
import { edit } from '../../support/memory-data.ts'

const ada = (id: string, prompt: string, over: Partial<Edit> = {}) =>
  edit(id, { subject: 'Ada Quist', prompt, targetNew: `Firm ${id}`, ...over })

describe('edits that may contradict each other', () => {
  const pays = ada('a', 'Ada Quist is paid by')
  const employs = ada('b', 'Who employs Ada Quist?')

  it('are about one subject, by name or by an alias that is the other’s name', () => {
    const names = (subject: string, ...aliases: string[]) => namesOf({ subject, aliases })
    expect(sameSubject(names('UN', 'United Nations'), names('United  nations'))).toBe(true)
    expect(sameSubject(names('Paris, Texas', 'Paris'), names('Paris, France', 'Paris'))).toBe(false)
    expect(sameSubject(names('C'), names('C++'))).toBe(false)
    expect(sameSubject([], names('UN'))).toBe(true)
    expect(rivals(pays, employs)).toBe(true)
    expect(rivals(pays, { ...employs, subject: 'Bea Quist' })).toBe(false)
  })

  it('say different things', () => {
    expect(sameTarget(pays, { ...employs, targetNew: 'FIRM A' })).toBe(true)
    expect(rivals(pays, { ...employs, targetNew: 'FIRM A' })).toBe(false)
    expect(rivals(pays, pays)).toBe(false)
  })

  it('are of one kind and of one label where both have one; rules for every message contradict nothing', () => {
    expect(rivals({ ...pays, relation: 'P1' }, { ...employs, relation: 'P2' })).toBe(false)
    expect(rivals({ ...pays, relation: 'P1' }, employs)).toBe(true)
    const rule = (id: string) => ada(id, 'asked about Ada Quist', { kind: 'rule' })
    expect(rivals(pays, rule('r'))).toBe(false)
    expect(rivals(rule('q'), rule('r'))).toBe(true)
    expect(rivals(rule('q'), { ...rule('r'), always: true })).toBe(false)
  })

  it('ask the same where the reader is sure in both directions', () => {
    expect(samenessPairs(pays, employs)).toEqual([
      ['Ada Quist is paid by', 'Who employs Ada Quist? Firm b'],
      ['Who employs Ada Quist?', 'Ada Quist is paid by Firm a'],
    ])
    expect(asksSame([3, 2])).toBe(true)
    expect(asksSame([3, 1])).toBe(false)
    expect(asksSame([-3, 3])).toBe(false)
  })
})

describe('of edits that say the same in other words', () => {
  const [first, second, third] = [
    ada('1', 'Ada Quist is paid by'),
    ada('2', 'Who employs Ada Quist?'),
    ada('3', 'Ada Quist works at'),
  ]
  const calibration = {
    bias: 0,
    weights: { reader: 1, named: 0, loosely: 0, earlier: 0, crowd: 0, crowdLoosely: 0 },
    threshold: 0.5,
  }
  const candidate = (of: Edit, logit: number | null, over: Partial<Candidate> = {}): Candidate => ({
    ...{
      edit: of,
      similarity: 0.5,
      nearness: 0,
      name: null,
      earlier: false,
      logit,
      read: 'q',
      key: null,
      counter: false,
      otherNamed: false,
      among: 1,
    },
    ...over,
  })
  const query = { model: 'm', messages: [], tenant: 'default', edits: { kind: 'on' }, tags: [] } as const

  async function decide(candidates: Candidate[], same: (pair: TextPair) => boolean = () => true) {
    let reads = 0
    const read = async (pairs: readonly TextPair[]) => {
      reads += pairs.length
      return Float32Array.from(pairs, (pair) => (same(pair) ? 4 : -4))
    }
    const { current, outdated } = await latest(query, candidates, calibration, { read, landed: (_, id) => Number(id) })
    return { current: current.map((c) => [c.edit.id, c.logit]), outdated: outdated.map((c) => [c.id, c.outdatedBy]), reads }
  }

  it('the last stays, with what speaks for the others, in whatever order they come', async () => {
    const all = [candidate(first, 3), candidate(second, -2), candidate(third, -3)]
    for (const order of [all, all.toReversed(), [all[2], all[0], all[1]] as Candidate[]]) {
      const { current, outdated } = await decide(order)
      expect(outdated).toEqual([['1', '3']])
      expect(current).toContainEqual(['3', 3])
    }
  })

  it('the one at the end of a row stays, though it is not compared with the first', async () => {
    const texts = (pair: TextPair) => pair.join(' ')
    const neighbours = (pair: TextPair) => !(/paid by/.test(texts(pair)) && /works at/.test(texts(pair)))
    const { current, outdated } = await decide([candidate(first, 3), candidate(second, 2), candidate(third, -3)], neighbours)
    expect(current).toEqual([['3', 3]])
    expect(outdated).toEqual([
      ['1', '3'],
      ['2', '3'],
    ])
  })

  it('siblings that ask other things stay, all of them', async () => {
    const { current, outdated } = await decide([candidate(first, 3), candidate(second, 2)], () => false)
    expect(current.map(([id]) => id)).toEqual(['1', '2'])
    expect(outdated).toEqual([])
  })

  it('what nobody asks for or what was not read costs nothing and gives way to nothing', async () => {
    expect(await decide([candidate(first, -3), candidate(second, -2)])).toMatchObject({ outdated: [], reads: 0 })
    expect(await decide([candidate(first, 3), candidate(second, null)])).toMatchObject({ outdated: [], reads: 0 })
  })

  it('a counterexample of the last one holds, and one of an earlier one lends nothing', async () => {
    const held = await latest(query, [candidate(first, 3), candidate(second, 2, { counter: true })], calibration, {
      ...{ read: async (pairs) => new Float32Array(pairs.length).fill(4), landed: (_, id) => Number(id) },
    })
    expect(held.current).toMatchObject([{ edit: { id: '2' }, counter: true }])
    const { current } = await decide([candidate(first, 3, { counter: true }), candidate(second, -2)])
    expect(current).toEqual([['2', -2]])
  })
})
