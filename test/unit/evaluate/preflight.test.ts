import { describe, expect, it } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import { draw, holds, type PreflightOptions, preflight, stageCounts, type Trial } from '../../../src/evaluate/preflight.ts'
import { fact } from '../../support/memory-data.ts'

interface Fake extends Trial {
  readonly live: Set<string>
  readonly log: string[]
}

/** A model that knows the live edits by their prompts, and otherwise says the question's length; `over` changes single answers. */
function trial(
  edits: readonly Edit[],
  over: (question: string, live: ReadonlySet<string>) => string | undefined = () => undefined,
): Fake {
  const live = new Set<string>()
  const log: string[] = []
  return {
    live,
    log,
    ask: async (question, arm) => {
      const plain = { text: `${question.length} letters`, edits: [] }
      if (arm === 'base') return plain
      const said = over(question, live)
      if (said !== undefined) return { text: said, edits: ['stray'] }
      const edit = edits.find(({ id, prompt, paraphrases }) => live.has(id) && [prompt, ...paraphrases].includes(question))
      return edit === undefined ? plain : { text: `It is ${edit.targetNew}.`, edits: [edit.id] }
    },
    land: async (batch) => {
      log.push(`land ${batch.length}`)
      for (const { id } of batch) live.add(id)
      return new Set(batch.map(({ id }) => id))
    },
    rollBack: async () => {
      log.push('roll back')
      live.clear()
    },
  }
}

const options: PreflightOptions = {
  thresholds: { reliability: 0.9, generalization: 0.8, locality_memory: 1, locality_unrelated: 1 },
  stages: [10],
  sampleEdits: 100,
  seed: 1,
  heldPrompts: ['The mayor of Lund is'],
  unrelated: ['What is two and two?', 'Name a colour.'],
  passOver: new Set(),
}
const facts = (count: number) => Array.from({ length: count }, (_, n) => fact(n, { paraphrases: [`Who heads Town ${n}?`] }))

describe('a batch that does what it should', () => {
  it('passes, and stays', async () => {
    const edits = facts(10)
    const fake = trial(edits)
    const { ok, stages } = await preflight(edits, fake, options)
    expect(ok).toBe(true)
    expect(stages[0]?.scores.map(({ measure, asked, passed }) => [measure, asked, passed])).toEqual([
      ['reliability', 10, 10],
      ['generalization', 10, 10],
      ['locality_memory', 1, 1],
      ['locality_unrelated', 2, 2],
    ])
    expect(fake.log).toEqual(['land 10'])
  })

  it('lands in stages, and asks of a bounded sample of all that has landed', async () => {
    const edits = facts(10)
    const fake = trial(edits)
    const { stages } = await preflight(edits, fake, { ...options, stages: [2, 5, 10], sampleEdits: 3 })
    expect(fake.log).toEqual(['land 2', 'land 3', 'land 5'])
    expect(stages.map(({ landed, scores }) => [landed, scores[0]?.asked])).toEqual([
      [2, 2],
      [5, 3],
      [10, 3],
    ])
  })

  it('is not asked for edits that are passed over or not live, and passes where nothing is asked', async () => {
    const edits = facts(3)
    const fake = { ...trial(edits), land: async () => new Set(['e0', 'e1']) }
    const { stages, ok } = await preflight(edits, fake, {
      ...options,
      stages: [3],
      passOver: new Set(['e0', 'e1']),
      heldPrompts: [],
    })
    expect(stages[0]?.scores.map(({ asked, ok }) => [asked, ok])).toEqual([
      [0, true],
      [0, true],
      [0, true],
      [2, true],
    ])
    expect(ok).toBe(true)
  })
})

describe('a batch that does not', () => {
  it('stops at the first stage that fails, with the evidence, and is rolled back', async () => {
    const edits = facts(10)
    const fake = trial(edits, (question, live) =>
      question === 'Name a colour.' && live.has('e4') ? 'Town 4 is red.' : undefined,
    )
    const { ok, stages } = await preflight(edits, fake, { ...options, stages: [2, 5, 10] })
    expect([ok, stages.length]).toEqual([false, 2])
    expect(fake.log).toEqual(['land 2', 'land 3', 'roll back'])
    expect(stages[1]?.failures).toEqual([
      {
        measure: 'locality_unrelated',
        question: 'Name a colour.',
        editId: null,
        expected: '14 letters',
        answered: { text: 'Town 4 is red.', edits: ['stray'] },
        base: null,
      },
    ])
  })

  it('counts an edit that newly applies as a failure although the answer is the same', async () => {
    const edits = facts(1)
    const held = 'The mayor of Lund is'
    const fake = trial(edits, (question, live) => (question === held && live.size > 0 ? `${held.length} letters` : undefined))
    const { stages } = await preflight(edits, fake, { ...options, stages: [1] })
    expect(stages[0]?.failures.map(({ measure }) => measure)).toEqual(['locality_memory'])
  })

  it('shows what the model says without edits where a target is missing', async () => {
    const edits = facts(1)
    const prompt = edits[0]?.prompt ?? ''
    const { ok, stages } = await preflight(
      edits,
      trial(edits, (question) => (question === prompt ? 'Nobody.' : undefined)),
      {
        ...options,
        stages: [1],
      },
    )
    expect(ok).toBe(false)
    expect(stages[0]?.failures).toMatchObject([
      {
        measure: 'reliability',
        editId: 'e0',
        expected: 'Mayor 0',
        answered: { text: 'Nobody.' },
        base: `${prompt.length} letters`,
      },
    ])
  })

  it('passes with failures that the thresholds allow', async () => {
    const edits = facts(10)
    const lost = edits[3]?.prompt
    const fake = trial(edits, (question) => (question === lost ? 'Nobody.' : undefined))
    expect((await preflight(edits, fake, options)).ok).toBe(true)
    expect((await preflight(edits, fake, { ...options, thresholds: { ...options.thresholds, reliability: 0.91 } })).ok).toBe(
      false,
    )
  })

  it('is rolled back when the model breaks down', async () => {
    const edits = facts(2)
    const fake = trial(edits, (_, live) => {
      if (live.size > 0) throw new Error('out of memory')
      return undefined
    })
    await expect(preflight(edits, fake, { ...options, stages: [2] })).rejects.toThrow('out of memory')
    expect(fake.log).toEqual(['land 2', 'roll back'])
  })
})

describe('figures', () => {
  it('counts stages: at least so many, ascending, all at last', () => {
    expect(stageCounts(1_000, [1, 10, 50, 100], 5)).toEqual([10, 100, 500, 1_000])
    expect(stageCounts(40, [1, 10, 50, 100], 5)).toEqual([5, 20, 40])
    expect(stageCounts(3, [1, 10], 5)).toEqual([3])
    expect(stageCounts(100, [50], 5)).toEqual([50, 100])
  })

  it('draws the same for the same seed, and keeps what it drew as the list grows', () => {
    const ids = Array.from({ length: 50 }, (_, i) => `id${i}`)
    const drawn = draw(ids, 5, 7, (id) => id)
    expect(draw(ids.toReversed(), 5, 7, (id) => id)).toEqual(drawn)
    expect(draw(ids, 5, 8, (id) => id)).not.toEqual(drawn)
  })

  it('finds a target by its words', () => {
    expect(holds('It’s São Paulo, of course.', 'Sao Paulo')).toBe(true)
    expect(holds('Paulo Sao', 'Sao Paulo')).toBe(false)
    expect(holds('Parisian', 'Paris')).toBe(false)
  })
})
