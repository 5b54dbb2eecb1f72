import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { INVENTED, NEUTRAL } from '../../../src/prompt/demonstration-facts.ts'
import { demonstrate, kindsOf, type PoolEdit } from '../../../src/prompt/demonstrations.ts'

/** What templates/ike.hbs asks for. */
const IKE_DEMONSTRATIONS = 8
const WISH = { question: 'Who runs it?', edits: [{ prompt: 'It is run by', target: 'Ada' }], pool: [], count: IKE_DEMONSTRATIONS }
const near = (n: number, similarity: number, paraphrases: readonly string[] = [`again ${n}`]): PoolEdit => ({
  prompt: `fact ${n} is`,
  target: `t${n}`,
  paraphrases,
  similarity,
})
const tally = (kinds: readonly string[]) => ['copy', 'update', 'retain'].map((kind) => kinds.filter((k) => k === kind).length)

describe('the mix of demonstrations', () => {
  it('is copy : update : retain = 1 : 3 : 4', () => {
    expect(tally(kindsOf(8))).toEqual([1, 3, 4])
    expect(tally(kindsOf(32))).toEqual([4, 12, 16])
    expect(tally(demonstrate(WISH).map(({ kind }) => kind))).toEqual([1, 3, 4])
  })

  it('stays within one of its share for any count', () => {
    for (let count = 0; count <= 40; count++) {
      const [copy, update, retain] = tally(kindsOf(count)) as [number, number, number]
      expect(copy + update + retain).toBe(count)
      for (const [got, share] of [
        [copy, 1],
        [update, 3],
        [retain, 4],
      ] as const)
        expect(Math.abs(got - (count * share) / 8)).toBeLessThan(1)
    }
  })

  it('is shuffled by the turn: the same turn the same order, other turns other orders', () => {
    const order = (question: string) =>
      demonstrate({ ...WISH, question })
        .map(({ kind }) => kind)
        .join(' ')
    const orders = new Set(Array.from({ length: 20 }, (_, i) => order(`question ${i}`)))
    expect(demonstrate(WISH)).toEqual(demonstrate({ ...WISH }))
    expect(orders.size).toBeGreaterThan(10)
  })
})

describe('the facts of demonstrations', () => {
  it('are never sentences, which have no answer to be asked back', () => {
    const sentence: PoolEdit = { prompt: 'We close at 6.', target: '', paraphrases: [], similarity: 0.9 }
    expect(demonstrate({ ...WISH, pool: [sentence] })).toEqual(demonstrate(WISH))
  })

  it('come nearest last, from the pool as far as it goes, invented ones before it', () => {
    const pool = [near(1, 0.2), near(2, 0.9), near(3, 0.5)]
    const facts = demonstrate({ ...WISH, pool, count: 5 }).map(({ fact }) => fact)
    expect(facts.slice(2)).toEqual(['fact 1 is t1', 'fact 3 is t3', 'fact 2 is t2'])
    const invented = INVENTED.map(({ prompt, target }) => `${prompt} ${target}`)
    for (const fact of facts.slice(0, 2)) expect(invented).toContain(fact)
  })

  it('are the nearest of a large pool, and never the edit itself', () => {
    const pool = [
      ...Array.from({ length: 50 }, (_, i) => near(i, i / 100)),
      { prompt: 'It is run by', target: 'Bob', paraphrases: [], similarity: 1 },
    ]
    const facts = demonstrate({ ...WISH, pool }).map(({ fact }) => fact)
    expect(facts).toEqual([42, 43, 44, 45, 46, 47, 48, 49].map((n) => `fact ${n} is t${n}`))
  })

  it('are asked back, asked in other words, or left alone', () => {
    const shown = demonstrate({ ...WISH, pool: Array.from({ length: 8 }, (_, i) => near(i, i / 10)) })
    for (const { kind, fact, question, answer } of shown) {
      const n = /\d/.exec(fact)?.[0]
      if (kind === 'copy') expect([question, answer]).toEqual([`fact ${n} is`, `t${n}`])
      if (kind === 'update') expect([question, answer]).toEqual([`again ${n}`, `t${n}`])
      if (kind === 'retain') expect(NEUTRAL).toContainEqual({ question, answer })
    }
  })

  it('are rephrased where an edit brings no paraphrase', () => {
    const pool = [near(1, 0.1, []), { ...near(2, 0.2, []), prompt: 'Who leads it?' }]
    const asked = Array.from({ length: 40 }, (_, i) => demonstrate({ ...WISH, question: `${i}`, pool, count: 2 }))
      .flat()
      .filter(({ kind }) => kind === 'update')
      .map(({ question }) => question)
    expect(new Set(asked)).toEqual(new Set(['Please finish this sentence: fact 1 is', 'Please tell me: Who leads it?']))
  })

  it('depend on nothing but the wish, whatever the order of the pool', () => {
    const pool = fc.uniqueArray(
      fc.record({
        prompt: fc.string(),
        target: fc.string(),
        paraphrases: fc.array(fc.string()),
        similarity: fc.double({ min: -1, max: 1, noNaN: true }),
      }),
      { selector: ({ prompt }) => prompt },
    )
    fc.assert(
      fc.property(fc.string(), pool, fc.nat(32), (question, some, count) => {
        const one = demonstrate({ ...WISH, question, pool: some, count })
        expect(one).toHaveLength(count)
        expect(demonstrate({ ...WISH, question, pool: [...some].reverse(), count })).toEqual(one)
      }),
    )
  })

  it('has at least 16 neutral facts, no two alike', () => {
    expect(new Set(NEUTRAL.map(({ question }) => question)).size).toBeGreaterThanOrEqual(16)
  })
})
