import { describe, expect, it } from 'vitest'
import type { Edit } from '../../src/edit/edit.ts'
import { canonicalRelation } from '../../src/edit/relation.ts'
import { contrast } from '../../src/memory/contrasts.ts'
import {
  namesOf,
  opposed,
  outdated,
  relationTextsOf,
  rivalPairs,
  sameFrame,
  sameRelation,
  sameSubject,
  type Vectors,
} from '../../src/memory/sameness.ts'
import { edit } from './memory-data.ts'

const X = { subject: 'X', aliases: [] }
const relation = (text: string) => canonicalRelation(text, X).split(' ')

/** Vectors of which any two have this cosine. */
function alike(cosine: number, ...edits: Edit[]): Vectors {
  const texts = [...new Set(edits.flatMap(relationTextsOf))]
  return new Map(
    texts.map((text, i) => {
      const vector = new Float32Array(texts.length + 1)
      vector[0] = Math.sqrt(cosine)
      vector[i + 1] = Math.sqrt(1 - cosine)
      return [text, vector]
    }),
  )
}

describe('wordings that rule each other out', () => {
  it.each([
    ['The father of X is', 'The mother of X is'],
    ['The father of X is', 'X is the father of'],
    ['X is followed by', 'X follows'],
    ['X is taught by', 'Whom does X teach?'],
    ['How do I enable X?', 'How do I disable X?'],
    ['When was X born?', 'Where was X born?'],
    ['X was born in the city of', 'X died in the city of'],
    ['The winner of the 2016 X is', 'The winner of the 2020 X is'],
    ['The president of X is', 'The vice president of X is'],
    ['X may be taken with', 'X may not be taken with'],
    ['X is paid by', 'X is paid to'],
    ['X was developed by', 'X was developed in'],
    ['X works as', 'X works for'],
    ['The landlord of X is', 'The tenant of X is'],
  ])('%s / %s', (one, other) => {
    expect(opposed(relation(one), relation(other))).toBe(true)
    expect(opposed(relation(other), relation(one))).toBe(true)
  })

  it.each([
    ['X is married to', "X's wife is"],
    ['X works for', 'X is employed by'],
    ['X died in', 'The place of death of X is'],
    ['The headquarters of X is in', 'Where is X headquartered?'],
    ['The twin city of X is', 'X is a twin city of'],
    ['X follows the religion of', 'The religion of X is'],
    ['The 2016 winner of X is', 'Who won X in 2016?'],
  ])('but not %s / %s', (one, other) => {
    expect(opposed(relation(one), relation(other))).toBe(false)
  })

  it('a class of words counts only where both have one of it', () => {
    expect(contrast(['mother', 'of', '_'], ['_', 's', 'family'])).toBe(false)
    expect(contrast(['oldest', 'member'], ['newest', 'member'])).toBe(true)
  })
})

describe('one frame', () => {
  it.each([
    ['The rector of X is', 'The dean of X is', true],
    ['The address of X is', 'The email address of X is', true],
    ['X is situated in', 'X is in', false],
    ['X was known as', 'X is known as', false],
    ['The native language of X is', 'The native tongue of X is', false],
    ['X is made by the firm', 'Which company makes X?', false],
  ])('%s / %s: %s', (one, other, expected) => {
    expect(sameFrame(relation(one), relation(other))).toBe(expected)
  })
})

describe('the same relation', () => {
  const spouse = edit('a', { subject: 'Ada', prompt: 'Ada is married to', targetNew: 'Ben' })
  const husband = edit('b', { subject: 'Ada', prompt: "What is Ada's husband called?", targetNew: 'Cid' })

  it('is told by closeness', () => {
    expect(sameRelation(spouse, husband, alike(0.72, spouse, husband))).toBe(true)
    expect(sameRelation(spouse, husband, alike(0.68, spouse, husband))).toBe(false)
    expect(sameRelation(spouse, husband, new Map())).toBe(false)
  })

  it('needs more where the frame makes any two close', () => {
    const dean = edit('a', { subject: 'Ada', prompt: 'The dean of Ada is' })
    const rector = edit('b', { subject: 'Ada', prompt: 'The rector of Ada is' })
    expect(sameRelation(dean, rector, alike(0.85, dean, rector))).toBe(false)
    expect(sameRelation(dean, rector, alike(0.95, dean, rector))).toBe(true)
  })

  it('is not, however close, when the wordings rule it out', () => {
    const father = edit('a', { subject: 'Ada', prompt: 'The father of Ada is' })
    const child = edit('b', { subject: 'Ada', prompt: 'Ada is the father of' })
    expect(sameRelation(father, child, alike(0.99, father, child))).toBe(false)
  })

  it('follows the labels where both have one, and a paraphrase in the same words', () => {
    const [a, b] = [
      { ...spouse, relation: 'P26' },
      { ...husband, relation: 'P40' },
    ]
    expect(sameRelation(a, b, alike(1, a, b))).toBe(false)
    expect(sameRelation(a, { ...b, relation: 'p26' }, new Map())).toBe(true)
    expect(sameRelation(spouse, { ...husband, paraphrases: ['Ada is married to'] }, new Map())).toBe(true)
  })

  it('is asked of one subject: by name or by an alias that is the other’s name', () => {
    const names = (subject: string, ...aliases: string[]) => namesOf({ subject, aliases })
    expect(sameSubject(names('UN', 'United Nations'), names('United  nations'))).toBe(true)
    expect(sameSubject(names('Paris, Texas', 'Paris'), names('Paris, France', 'Paris'))).toBe(false)
  })
})

describe('edits that a later one makes untrue', () => {
  const dated = (seq: number, prompt: string, targetNew: string, over: Partial<Edit> = {}) => ({
    seq,
    edit: edit(`e${seq}`, { subject: 'Ada', prompt, targetNew, ...over }),
  })
  const decide = (list: { edit: Edit; seq: number }[], cosine = 0.8) =>
    Object.fromEntries(outdated(rivalPairs(list), alike(cosine, ...list.map(({ edit }) => edit))))

  it('are named with the last that follows, in whatever order they come', () => {
    const list = [dated(3, 'Who employs Ada?', 'C'), dated(1, 'Ada works for', 'A'), dated(2, 'The employer of Ada is', 'B')]
    expect(decide(list)).toEqual({ e1: 'e3', e2: 'e3' })
  })

  it('are none where target, subject or relation tells', () => {
    expect(decide([dated(1, 'Ada works for', 'A'), dated(2, 'The employer of Ada is', 'a')])).toEqual({})
    expect(decide([dated(1, 'Ada works for', 'A'), dated(2, 'The employer of Bea is', 'B', { subject: 'Bea' })])).toEqual({})
    expect(decide([dated(1, 'Ada works for', 'A'), dated(2, 'The employer of Ada is', 'B')], 0.4)).toEqual({})
  })

  it('are told without vectors where the words are equal, as for an edit that is for one model only', () => {
    const list = [dated(1, 'Ada works for', 'A'), dated(2, 'Ada works for', 'B', { models: ['m'] })]
    expect(Object.fromEntries(outdated(rivalPairs(list), new Map()))).toEqual({ e1: 'e2' })
  })

  it('need to be less near where one question clearly asks for both', () => {
    const list = [dated(1, 'Ada held the office of', 'A'), dated(2, 'Ada was the', 'B')]
    const given = (cosine: number, asked: string[]) =>
      Object.fromEntries(outdated(rivalPairs(list), alike(cosine, ...list.map(({ edit }) => edit)), new Set(asked)))
    expect(given(0.55, [])).toEqual({})
    expect(given(0.55, ['e1'])).toEqual({})
    expect(given(0.55, ['e1', 'e2'])).toEqual({ e1: 'e2' })
    expect(given(0.4, ['e1', 'e2'])).toEqual({})
  })
})
