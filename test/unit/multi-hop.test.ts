import { describe, expect, it } from 'vitest'
import type { Edit } from '../../src/edit/edit.ts'
import { CHAIN_HOPS, chains } from '../../src/memory/chain.ts'
import { BRIDGE_STEPS, decompose } from '../../src/memory/decompose.ts'
import { descriptions, likelyNames, sentenceAround } from '../../src/memory/descriptions.ts'
import { EVIDENCE, type Evidence } from '../../src/memory/evidence.ts'
import { type Calibration, gate } from '../../src/memory/gate.ts'
import type { HopSource } from '../../src/memory/reading.ts'
import { bagOfWords, edit, telling } from './memory-data.ts'

const fact = (id: string, subject: string, prompt: string, targetNew: string) => edit(id, { subject, prompt, targetNew })
const BORN = fact('born', 'Ann Lee', 'Ann Lee was born in the country of', 'Arden')
const CAPITAL = fact('capital', 'Arden', 'The capital of Arden is', 'Brill')
const LANGUAGE = fact('language', 'Arden', 'The official language of Arden is', 'Ardish')
const MAYOR = fact('mayor', 'Brill', 'The mayor of Brill is', 'Cy Dorn')
const SPOUSE = fact('spouse', 'Cy Dorn', 'Cy Dorn is married to', 'Eve Falk')
const EMPLOYER = fact('employer', 'Eve Falk', 'The employer of Eve Falk is', 'Gantz')
const BACK = fact('back', 'Brill', 'Brill is the birthplace of', 'Ann Lee')
const ALL = [BORN, CAPITAL, LANGUAGE, MAYOR, SPOUSE, EMPLOYER, BACK]

/** A gate that takes what `whole` says, and nothing else. */
const GATE: Calibration = { bias: -5, weights: { whole: 10 }, products: {}, threshold: 0.5 }
/** Telling words of a text beyond which the gate of these tests loses sight of what is asked. */
const CLEAR_WORDS = 8
const NONE = Object.fromEntries(EVIDENCE.map((n) => [n, 0])) as Evidence

/** Retrieval by plain words: an edit is a candidate where its subject stands, and taken where half of its relation's words do, in a short text. */
function memoryOf(edits: readonly Edit[]): HopSource & { readonly asked: string[] } {
  const asked: string[] = []
  return {
    asked,
    candidates: async (query) => {
      const text = query.messages.at(-1)?.content ?? ''
      asked.push(text)
      const has = new Set(telling(text))
      const candidates = edits
        .filter((e) => text.includes(e.subject))
        .map((e) => {
          const wanted = telling(e.prompt.replace(e.subject, ''))
          const found = wanted.filter((w) => has.has(w)).length
          const whole = found * 2 >= wanted.length && has.size <= CLEAR_WORDS ? 1 : 0
          return { edit: e, similarity: 0.5, evidence: { ...NONE, exact: 1, whole } }
        })
      const others = edits.filter((e) => !text.includes(e.subject)).map((e) => ({ edit: e, similarity: 0.1, evidence: null }))
      return { candidates: [...candidates, ...others] }
    },
    about: (_query, name) => edits.filter((e) => e.subject === name),
    embed: async (texts) => texts.map(bagOfWords),
  }
}

const query = { model: 'm', messages: [], tenant: 'default', edits: { kind: 'on' }, tags: [] } as const

async function follow(question: string, edits: readonly Edit[] = ALL, calibration = GATE) {
  const source = memoryOf(edits)
  const { candidates } = await source.candidates({ ...query, messages: [{ role: 'user', content: question }] }, 0)
  const considered = gate(candidates, calibration)
  const found = await chains(question, candidates, considered, { query, source, calibration })
  return {
    ...found,
    first: considered.filter((c) => c.reason === 'selected').map((c) => c.id),
    searches: source.asked.length - 1,
  }
}

describe('descriptions', () => {
  const found = (text: string, name: string) => {
    const start = text.indexOf(name)
    return descriptions(text, { start, end: start + name.length }).map((d) => text.slice(d.start, d.end))
  }

  it.each([
    ['What is the capital of the country where Ann Lee was born?', 'Ann Lee', 'the country where Ann Lee was born'],
    ["Who leads Ann Lee's home country?", 'Ann Lee', "Ann Lee's home country"],
    ['Where was the author of "Ann Lee" born?', 'Ann Lee', 'the author of "Ann Lee"'],
    ['Which country does the sport that Ann Lee plays come from?', 'Ann Lee', 'the sport that Ann Lee plays'],
  ])('%s', (text, name, description) => expect(found(text, name)).toContain(description))

  it.each([
    ['Where was Ann Lee born?', 'nothing is described'],
    ['What is the birthplace of Ann Lee?', 'nothing is asked of what is described'],
    ['Which city serves as the birthplace of Ann Lee?', 'nor here: serving as it is being it'],
    ['Is Ann Lee in?', 'too little is said'],
  ])('%s: %s', (text) => expect(found(text, 'Ann Lee')).toEqual([]))

  it('stays in its sentence and its line', () => {
    const text = 'Dr. Poe left.\nThe boss of Ann Lee is rich. Who is she?'
    const start = text.indexOf('Ann Lee')
    const { start: from, end } = sentenceAround(text, { start, end: start + 7 })
    expect(text.slice(from, end).trim()).toBe('The boss of Ann Lee is rich.')
  })

  it('finds names it does not know by their capitals or quotes, the first word of a question not among them', () => {
    const text = 'Who sang "the sea" with Ann de Lee in the Royal Hall?'
    expect(likelyNames(text).map((s) => text.slice(s.start, s.end))).toEqual(['the sea', 'Ann', 'Lee', 'Royal Hall'])
  })
})

describe('a chain of edits', () => {
  it('follows the target of a selected edit into the edit that the question asks for, and no other of that subject', async () => {
    const found = await follow('What is the capital of the country where Ann Lee was born?')
    expect(found.first).toEqual(['born'])
    expect(found.links.map((l) => [l.edit.id, l.hop])).toEqual([['capital', 2]])
    expect(found.asked).toBe('What is the capital of Arden?')
    expect(found.considered.map((c) => [c.id, c.hop, c.via, c.reason])).toEqual([
      ['capital', 2, 'born', 'selected'],
      ['language', 2, 'born', 'outranked'],
    ])
  })

  it('reaches over four edits, no further, and never the same edit twice', async () => {
    const country = 'the country where Ann Lee was born'
    const deep = await follow(`Who is married to the mayor of the capital of ${country}?`)
    expect(deep.links.map((l) => [l.edit.id, l.hop])).toEqual([
      ['capital', 2],
      ['mayor', 3],
      ['spouse', 4],
    ])
    const tooDeep = await follow(`What is the employer of the one married to the mayor of the capital of ${country}?`)
    expect(Math.max(...tooDeep.links.map((l) => l.hop))).toBe(CHAIN_HOPS)
    expect(tooDeep.links.map((l) => l.edit.id)).not.toContain('employer')
    const round = await follow(`Which capital is the birthplace of the one born in the capital of ${country}?`)
    expect(new Set(round.links.map((l) => l.edit.id)).size).toBe(round.links.length)
  })

  it.each(['In which country was Ann Lee born?', 'Ann Lee was born in the country of', 'Tell me about the country Arden.'])(
    'leaves a plain question alone: %s',
    async (question) => {
      const found = await follow(question)
      expect([found.links, found.considered, found.asked]).toEqual([[], [], null])
      expect(found.searches).toBe(0)
    },
  )

  it('adds nothing where the memory does not know the next hop, but says what is asked', async () => {
    const found = await follow('What is the climate of the country where Ann Lee was born?')
    expect([found.links, found.asked]).toEqual([[], 'What is the climate of Arden?'])
  })

  it('draws no edit in that the gate would take, but hardly', async () => {
    const question = 'What is the capital of the country where Ann Lee was born?'
    const hardly = await follow(question, ALL, { ...GATE, weights: { whole: 5.2 } })
    expect([hardly.first, hardly.links]).toEqual([['born'], []])
    const surely = await follow(question, ALL, { ...GATE, weights: { whole: 5.6 } })
    expect(surely.links.map((l) => l.edit.id)).toEqual(['capital'])
  })

  it('leads on from the edit that the description asks for, where the gate takes two of one subject', async () => {
    const lives = fact('lives', 'Ann Lee', 'Ann Lee lives in the country of', 'Dale')
    const other = fact('other', 'Dale', 'The capital of Dale is', 'Hull')
    const found = await follow('What is the capital of the country where Ann Lee was born?', [...ALL, lives, other])
    expect(found.first).toEqual(['born', 'lives'])
    expect(found.links.map((l) => l.edit.id)).toEqual(['capital'])
    expect(found.asked).toBe('What is the capital of Arden?')
  })

  it('starts from an edit that a description asks for where the question as a whole is too long to tell', async () => {
    const seat = fact('seat', 'Gantz', 'The head office of Gantz stands in the town of', 'Brill')
    const question = 'Who became the beloved popular reelected longtime mayor of the town where the head office of Gantz stands?'
    const found = await follow(question, [seat, MAYOR, fact('other', 'Gantz', 'The colour of Gantz is', 'red')])
    expect(found.first).toEqual([])
    expect(found.links.map((l) => [l.edit.id, l.hop])).toEqual([
      ['seat', 1],
      ['mayor', 2],
    ])
  })
})

describe('decomposition by the model', () => {
  const apart = async (question: string, answers: Readonly<Record<string, string | null>>, edits: readonly Edit[] = ALL) => {
    const asked: string[] = []
    const ask = async (description: string) => {
      asked.push(description)
      return answers[description] ?? null
    }
    return { found: await decompose(question, ask, { query, source: memoryOf(edits), calibration: GATE }), asked }
  }

  it('asks what the inner part stands for, and looks the rest up', async () => {
    const { found, asked } = await apart('What is the capital of the country where Bo Voss plays?', {
      'the country where Bo Voss plays': 'Arden',
    })
    expect(asked).toEqual(['the country where Bo Voss plays'])
    expect(found?.links.map((l) => [l.edit.id, l.hop])).toEqual([['capital', 2]])
    expect(found?.considered.map((c) => c.via)).toEqual(['model'])
    expect(found?.asked).toBe('What is the capital of Arden?')
  })

  it('goes on from what the model named, along the edits', async () => {
    const { found } = await apart('Who is the mayor of the capital of the country where Bo Voss plays?', {
      'the country where Bo Voss plays': 'Arden',
    })
    expect(found?.links.map((l) => [l.edit.id, l.hop])).toEqual([
      ['capital', 2],
      ['mayor', 3],
    ])
  })

  it.each([
    ['a plain question', 'Where was Bo Voss born?'],
    ['a question that no edit could answer the rest of', 'What is the climate of the island where Bo Voss plays?'],
    ['a question without a name', 'What is the capital of the country where the best one plays?'],
    ['a long text', `What is the capital of the country where Bo Voss plays, ${'and so on, '.repeat(40)}?`],
  ])('does not ask the model about %s', async (_kind, question) =>
    expect(await apart(question, {})).toEqual({ found: null, asked: [] }),
  )

  it('leaves the question as it was when the model names nothing, or something without an edit; in a bounded number of steps', async () => {
    const question = 'What is the capital of the country where Bo Voss plays?'
    expect((await apart(question, {})).found).toBeNull()
    expect((await apart(question, { 'the country where Bo Voss plays': 'Nowhere' })).found).toBeNull()
    const endless = async () => 'the country of the country of X'
    let calls = 0
    const ask = () => {
      calls++
      return endless()
    }
    await decompose(question, ask, { query, source: memoryOf(ALL), calibration: GATE })
    expect(calls).toBeLessThanOrEqual(BRIDGE_STEPS)
  })
})
