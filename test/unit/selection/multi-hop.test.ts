import { describe, expect, it } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import type { TextPair } from '../../../src/engine/engine.ts'
import { bridge, CHAIN_HOPS, follow } from '../../../src/selection/chain.ts'
import type { Calibration } from '../../../src/selection/gate.ts'
import { edit } from '../../support/memory-data.ts'

const fact = (id: string, subject: string, prompt: string, targetNew: string) => edit(id, { subject, prompt, targetNew })
const BORN = fact('born', 'Ann Lee', 'Ann Lee was born in the country of', 'Arden')
const CAPITAL = fact('capital', 'Arden', 'The capital of Arden is', 'Brill')
const LANGUAGE = fact('language', 'Arden', 'The official language of Arden is', 'Ardish')
const MAYOR = fact('mayor', 'Brill', 'The mayor of Brill is', 'Cy Dorn')
const SPOUSE = fact('spouse', 'Cy Dorn', 'The spouse of Cy Dorn is', 'Eve Falk')
const EMPLOYER = fact('employer', 'Eve Falk', 'The employer of Eve Falk is', 'Gantz')
const ALL = [BORN, CAPITAL, LANGUAGE, MAYOR, SPOUSE, EMPLOYER]

const GATE: Calibration = {
  bias: 0,
  weights: { reader: 1, named: 0, loosely: 0, earlier: 0, crowd: 0, crowdLoosely: 0 },
  threshold: 0.5,
}
const query = { model: 'm', messages: [], tenant: 'default', edits: { kind: 'on' }, tags: [] } as const

/** Needs an edit where the question has the noun that the edit states; `logit` says how surely. */
function source(edits: readonly Edit[], logit = 4) {
  const read: TextPair[] = []
  return {
    pairs: read,
    about: (_: unknown, text: string) => edits.filter(({ subject }) => text.includes(subject)),
    landed: (_: unknown, id: string) => edits.findIndex((e) => e.id === id),
    read: async (pairs: readonly TextPair[]) => {
      read.push(...pairs)
      return Float32Array.from(pairs, ([text, stated]) => {
        const noun = /(capital|seat|language|mayor|spouse|employer)/.exec(stated)?.[1] ?? '?'
        return text.replace(/\[.*\]/, '').includes(noun) ? logit : -4
      })
    },
  }
}

async function hops(question: string, { edits = ALL, calibration = GATE, refused = [] as string[], logit = 4 } = {}) {
  const from = source(edits, logit)
  const work = { query, source: from, calibration, refused: new Set(refused) }
  const { links, considered } = await follow(question, [{ edit: BORN, score: 0.9, hop: 1 }], work)
  return { ids: links.map((l) => `${l.edit.id} ${l.hop}`), links, considered, pairs: from.pairs }
}

describe('a chain of edits', () => {
  it('leads from an edit to the one that the question asks for about what it names, and to no other', async () => {
    const { links, considered, pairs } = await hops('What is the capital of the country where Ann Lee was born?')
    expect(links).toMatchObject([{ edit: { id: 'capital' }, hop: 2 }])
    expect(links[0]?.score).toBeLessThan(0.9)
    expect(considered).toMatchObject([
      { id: 'capital', hop: 2, via: 'born', reason: 'selected' },
      { id: 'language', hop: 2, via: 'born', reason: 'below_threshold' },
      { id: 'mayor', hop: 3, via: 'capital', reason: 'below_threshold' },
    ])
    expect(pairs[0]?.[0]).toBe(
      'What is the capital of the country where Ann Lee was born? [Ann Lee was born in the country of Arden]',
    )
  })

  it('reaches over four edits and no further', async () => {
    const { ids } = await hops('Who is the employer of the spouse of the mayor of the capital of where Ann Lee was born?')
    expect(ids).toEqual(['capital 2', 'mayor 3', 'spouse 4'])
    expect(ids).toHaveLength(CHAIN_HOPS - 1)
  })

  it('takes no edit twice, round and round', async () => {
    const round = [BORN, CAPITAL, fact('back', 'Brill', 'The mayor of Brill is', 'Arden')]
    const { ids } = await hops('Who is the mayor of the capital?', { edits: round })
    expect(ids).toEqual(['capital 2', 'back 3'])
  })

  it('takes the best alone where two edits about one subject would do', async () => {
    const { ids, considered } = await hops('Which capital and which language has her country?')
    expect(ids).toEqual(['capital 2'])
    expect(considered.find(({ id }) => id === 'language')?.reason).toBe('over_limit')
  })

  it('adds nothing to a plain question', async () => {
    const { links } = await hops('Where was Ann Lee born?')
    expect(links).toEqual([])
  })

  it('has to be surer than the gate, and as sure as the request wants', async () => {
    const question = 'What is the capital of the country where Ann Lee was born?'
    const hardly = { logit: Math.log(0.55 / 0.45) }
    expect((await hops(question, hardly)).ids).toEqual([])
    expect((await hops(question, { ...hardly, calibration: { ...GATE, threshold: 0.2 } })).ids).toEqual([])
    const surely = { logit: Math.log(0.8 / 0.2) }
    expect((await hops(question, surely)).ids).toEqual(['capital 2'])
    expect((await hops(question, { ...surely, calibration: { ...GATE, threshold: 0.9 } })).ids).toEqual([])
  })

  it('does not revive what the gate refused, and leads to the later of two that contradict each other', async () => {
    const question = 'What is the capital of the country where Ann Lee was born?'
    expect((await hops(question, { refused: ['capital'] })).ids).toEqual([])
    const moved = fact('moved', 'Arden', 'The capital city of Arden is called', 'Fenn')
    const { ids, considered } = await hops(question, { edits: [BORN, CAPITAL, moved] })
    expect(ids).toEqual(['moved 2'])
    expect(considered).toContainEqual(expect.objectContaining({ id: 'capital', reason: 'outdated', outdatedBy: 'moved' }))
  })

  it('leads neither from a rule nor to one', async () => {
    const rule: Edit = { ...fact('rule', 'Arden', 'asked for the capital of Arden', 'Say nothing.'), kind: 'rule' }
    expect((await hops('What is the capital of her country?', { edits: [BORN, rule] })).ids).toEqual([])
    const work = { query, source: source(ALL), calibration: GATE, refused: new Set<string>() }
    const { links } = await follow('What is the capital?', [{ edit: { ...BORN, kind: 'rule' }, score: 1, hop: 1 }], work)
    expect(links).toEqual([])
  })

  it('leads on from what a sentence names', async () => {
    const sentence: Edit = { ...BORN, kind: 'sentence', prompt: 'Ann Lee was born in Arden.', targetNew: '' }
    const work = { query, source: source(ALL), calibration: GATE, refused: new Set<string>() }
    const { links } = await follow('What is the capital of her country?', [{ edit: sentence, score: 1, hop: 1 }], work)
    expect(links.map((l) => l.edit.id)).toEqual(['capital'])
  })
})

describe('where no edit states the first hop', () => {
  const ask = async (question: string, name: string | null, refused: string[] = []) => {
    const work = { query, source: source(ALL), calibration: GATE, refused: new Set(refused), ask: async () => name }
    return (await bridge(question, question, work)).links.map((l) => `${l.edit.id} ${l.hop}`)
  }

  it('goes on from what the model names, along the edits', async () => {
    expect(await ask('Who is the mayor of the capital of the country where Bo Voss plays?', 'Arden')).toEqual([
      'capital 2',
      'mayor 3',
    ])
  })

  it('adds nothing where the model names nothing, or something without an edit, or an edit that was refused', async () => {
    const question = 'What is the capital of the country where Bo Voss plays?'
    expect(await ask(question, null)).toEqual([])
    expect(await ask(question, 'Nowhere')).toEqual([])
    expect(await ask(question, 'Arden', ['capital'])).toEqual([])
  })
})
