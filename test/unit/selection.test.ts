import { describe, expect, it } from 'vitest'
import type { Edit } from '../../src/edit/edit.ts'
import { MASK, maskSubject } from '../../src/edit/edit.ts'
import { supersessionKey } from '../../src/edit/relation.ts'
import { words } from '../../src/edit/words.ts'
import { readCalibration } from '../../src/memory/calibration.ts'
import {
  answerAsked,
  EVIDENCE,
  type Evidence,
  head,
  nameEvidence,
  opposed,
  reversed,
  spelledOut,
  surroundings,
  wordEvidence,
} from '../../src/memory/evidence.ts'
import { gate, score } from '../../src/memory/gate.ts'
import { agrees, likeness, mentions } from '../../src/memory/likeness.ts'
import { SubjectIndex, withinOneEdit } from '../../src/memory/subject-index.ts'
import { sentences, tokens } from '../../src/memory/tokens.ts'

const edit = (id: string, subject: string, prompt: string, aliases: string[] = []): Edit => ({
  id,
  subject,
  prompt,
  aliases,
  targetNew: 'T',
  paraphrases: [],
  tags: [],
  tenant: 'default',
})

function find(text: string, ...edits: Edit[]) {
  const index = new SubjectIndex()
  for (const e of edits) index.add(e)
  return index.find(tokens(text))
}

describe('subjects in text', () => {
  it('compares words without case or accents, and counts a script without spaces by character', () => {
    expect(words('Kolinda Grabar-Kitarović')).toEqual(['kolinda', 'grabar', 'kitarovic'])
    expect(words('東京の人口')).toEqual(['東', '京', 'の', '人', '口'])
  })

  it.each([
    ['Who leads INTEL now?', 'exact'],
    ["What is Intel's newest plant?", 'exact'],
    ['Who leads Chipzilla?', 'alias'],
  ])('finds %s', (text, kind) => {
    const [match] = find(text, edit('e', 'Intel', 'Intel is led by', ['Chipzilla']))
    expect(match).toMatchObject({ editId: 'e', kind, coverage: 1 })
  })

  it('finds a misspelt name and a part of one, and says which', () => {
    expect(find('where was Danielle Darieux born', edit('e', 'Danielle Darrieux', 'p'))[0]).toMatchObject({ kind: 'misspelt' })
    const [part] = find('Which club does Ancelotti coach?', edit('e', 'Carlo Ancelotti', 'p'))
    expect(part).toMatchObject({ kind: 'partial', matchedWords: 1 })
    expect(part?.coverage).toBeLessThan(1)
  })

  it('finds nothing inside other words, and nothing removed', () => {
    expect(find('Intelligence is rare', edit('e', 'Intel', 'p')).filter((m) => m.kind === 'exact')).toEqual([])
    const index = new SubjectIndex()
    index.add(edit('e', 'Intel', 'p'))
    index.remove('e')
    expect(index.find(tokens('Intel'))).toEqual([])
  })

  it('finds a name written in a script without spaces', () => {
    expect(find('日本の東京の人口は', edit('e', '東京', 'p'))[0]).toMatchObject({ kind: 'exact', start: 3, end: 5 })
  })

  it.each([
    ['abcde', 'abcde', true],
    ['abcde', 'abde', true],
    ['abcde', 'abcdef', true],
    ['abcde', 'abdce', true],
    ['abcde', 'abxye', false],
    ['abcde', 'xbcdy', false],
  ])('%s and %s are within one edit: %s', (a, b, near) => expect(withinOneEdit(a, b)).toBe(near))
})

describe('evidence', () => {
  const around = (text: string, e: Edit) => {
    const t = tokens(text)
    const all = find(text, e)
    const match = all[0]
    if (match === undefined) throw new Error('not found')
    return { name: nameEvidence(text, t, match, e.subject, all), near: surroundings(text, t, match) }
  }

  it('keeps to the sentence that names the subject, whatever stands around it', () => {
    const { near } = around(
      'Amateur Athletic Union (AAU). J. R. Smith was born in Rome. Then he left.',
      edit('e', 'J. R. Smith', 'p'),
    )
    expect(near.sentence).toBe('J. R. Smith was born in Rome.')
    expect(near.masked).toBe('someone or something was born in Rome.')
  })

  it.each([
    ['The Duchy of Warsaw was founded in', 'Warsaw', 'extended_left', 0],
    ['The Duchy of Warsaw was founded in', 'Warsaw', 'realm', 1],
    ['The mayor of Warsaw is', 'Warsaw', 'realm', 0],
    ['Tuas Warsaw is in', 'Warsaw', 'extended_left', 1],
    ['Did Warsaw fall?', 'Warsaw', 'extended_left', 0],
    ['eTab 7 is made by', 'eTab', 'extended_right', 1],
    ['Warsaw national team', 'Warsaw', 'extended_right', 1],
    ['Sweet 16: Part 2 was shown on', 'Sweet 16', 'extended_right', 1],
    ['Warsaw (city) is in', 'Warsaw', 'extended_right', 0],
    ['The Grand Warsaw Hotel opened in', 'Warsaw', 'extended_right', 1],
    ['The Grand Warsaw hotel opened in', 'Warsaw', 'extended_left', 1],
    ['Where is Warsaw?', 'Warsaw', 'extended_left', 0],
    ['He read books in Paris', 'Books', 'case_mismatch', 1],
    ['who wrote books', 'Books', 'case_mismatch', 0],
  ] as const)('%s: %s has %s = %d', (text, subject, name, value) =>
    expect(around(text, edit('e', subject, 'p')).name[name]).toBe(value),
  )

  it.each([
    ['The father of X is', 'father'],
    ["Who is X's oldest brother?", 'oldest brother'],
    ['The name of the alma mater of X is', 'alma mater'],
    ['The gender of the mother of X is', 'mother'],
    ['Which league does X play in?', 'league'],
    ['The date of birth of X is', 'date birth'],
    ['X was born in', ''],
  ])('in %j the name belongs to %j', (text, noun) => expect(head(text.replace('X', MASK))).toBe(noun))

  it.each([
    ['How do I disable X?', 'To enable X, open', true],
    ['How can I turn off X?', 'To enable X, open', true],
    ['Where can I turn X on?', 'To enable X, open', false],
    ['X is followed by', 'X follows', true],
    ['When does X not open?', 'X opens at', true],
    ['Where was X born?', 'X was born in', false],
    ['How do I uninstall X?', 'To install X, run', true],
  ])('%j against %j is opposed: %s', (asked, prompt, is) => {
    expect(opposed(asked.replace('X', MASK), prompt.replace('X', MASK))).toBe(is)
  })

  it.each([
    ['Whose father is X?', 'The father of X is', true],
    ['Who is X the father of?', 'The father of X is', true],
    ["Who is X's father?", 'The father of X is', false],
    ['The capital of X is', 'X is the capital of', true],
    ['The twin city of X is', 'X is a twin city of', false],
  ])('%j against %j is reversed: %s', (asked, prompt, is) => {
    expect(reversed(asked.replace('X', MASK), prompt.replace('X', MASK))).toBe(is)
  })

  it.each([
    ['X, in', 'X is located in'],
    ['X is from', 'X comes from'],
    ['X was born in', 'X was born in'],
  ])('%j says %j', (text, said) => expect(spelledOut(text.replace('X', MASK))).toBe(said.replace('X', MASK)))

  it.each([
    ['who stole it', ['person', 'organisation']],
    ['In what country is it?', ['place']],
    ['how many are there', ['number']],
    ['Why is it so?', ['other']],
    ['What is it?', null],
  ])('%j asks for %j', (text, kinds) => expect(answerAsked(text)).toEqual(kinds))

  it.each([
    ['Who was the first X?', 'The current X is', 1],
    ["Who was X's former coach?", "X's coach is", 1],
    ['Who was the first X?', 'The first X was', 0],
    ['In its first season the club was good. Who coaches X?', "X's coach is", 0],
  ])('%j is narrower than %j: %d', (asked, prompt, is) => {
    const { near } = around(asked.replace('X', 'Zed'), edit('e', 'Zed', 'p'))
    expect(wordEvidence(near, prompt.replace('X', MASK), 'target').qualified).toBe(is)
  })

  it('tells nouns that exclude each other from nouns that do not', () => {
    const said = (asked: string, prompt: string) => {
      const near = around(asked.replace('X', 'Zed'), edit('e', 'Zed', 'p')).near
      return wordEvidence(near, prompt.replace('X', MASK), 'target')
    }
    expect(said('The place of birth of X is', 'The date of birth of X is')).toMatchObject({ head_contrast: 1, head_same: 0 })
    expect(said('The birth date of X is', 'The date of birth of X is')).toMatchObject({ head_contrast: 0, head_same: 1 })
    expect(said("X's mother is", 'The father of X is')).toMatchObject({ head_contrast: 1, contrast: 1 })
  })

  it('breaks no sentence at an initial or an abbreviation', () => {
    const text = 'Dr. A. Weir met Mr. Poe. He left.'
    expect(sentences(text).map((s) => text.slice(s.start, s.end).trim())).toEqual(['Dr. A. Weir met Mr. Poe.', 'He left.'])
  })
})

describe('names alike', () => {
  it('finds what is written like a name', () => {
    const text = 'The gender of Frederick of the Rhine was told to Ann B. Lee-Smith'
    expect(mentions(text, tokens(text)).map((m) => text.slice(m.start, m.end))).toEqual([
      'The',
      'Frederick of the Rhine',
      'Ann B. Lee-Smith',
    ])
  })

  it.each([
    ['C. A. Bushnell', 'Corry A. Bushnell', 0.8, 1],
    ['Mike Pitts', 'Michael Pitts', 0.9, 1],
    ['Qinying Yao', 'Qin-Ying Yao', 1, 1],
    ['Thomas Lamb', 'Thomas Phillipps Lamb', 0.7, 0.9],
    ['Nokia N80', 'Nokia N85', 0, 0],
    ['Ida Berg', 'Corry A. Bushnell', 0, 0.2],
  ])('%s and %s', (a, b, least, most) => {
    expect(likeness(words(a), b)).toBeGreaterThanOrEqual(least)
    expect(likeness(words(a), b)).toBeLessThanOrEqual(most)
  })
})

describe('forms of one name', () => {
  it.each([
    ['T. S. Lodge', 'Thomas Soutter Lodge', 1],
    ['Charles Frederick Joy', 'Charles Joy', 1],
    ["Ja'vonte Smart", 'Javonte Smart', 1],
    ['Robinson J', 'Julia Robinson', 0.5],
    ['Harbour Lights Ltd.', 'Harbour Lights Limited', 1],
    ['François Archer', 'Joseph Archer', 0],
    ['Pius II', 'Pius III', 0],
  ])('%s and %s: %d', (a, b, is) => {
    const [mention] = mentions(a, tokens(a))
    expect(agrees(mention?.words ?? [], b)).toBe(is)
  })

  it('folds letters that no normal form takes apart', () => expect(words('Władysław Ørsted')).toEqual(['wladyslaw', 'orsted']))
})

describe('masking and supersession', () => {
  it('masks whole words only, in any case', () => {
    expect(maskSubject('Rome and romeo, ROME', 'Rome', 'X')).toBe('X and romeo, X')
  })

  it('is the same fact by relation label, or by the same words around the subject', () => {
    const a = edit('a', 'France', 'The capital of France is')
    expect(supersessionKey(a)).toBe(supersessionKey({ ...a, prompt: 'the capital of FRANCE is ' }))
    expect(supersessionKey(a)).not.toBe(supersessionKey({ ...a, prompt: 'The president of France is' }))
    expect(supersessionKey({ ...a, relation: 'P36' })).toBe(
      supersessionKey({ ...a, prompt: 'the seat of France', relation: 'p36' }),
    )
    expect(supersessionKey(a)).not.toBe(supersessionKey({ ...a, tenant: 'other' }))
  })
})

describe('the gate', () => {
  const calibration = readCalibration()
  const none = Object.fromEntries(EVIDENCE.map((n) => [n, 0])) as Record<keyof Evidence, number>
  const clear = {
    ...none,
    ...{
      exact: 1,
      relation: 0.9,
      statement: 0.7,
      relation_words: 1,
      whole: 0.9,
      whole_statement: 0.8,
      specific: 1,
      profile: 0.9,
    },
  }
  const candidate = (id: string, evidence: Evidence | null) => ({ edit: edit(id, `S${id}`, 'p'), similarity: 0.5, evidence })

  it('takes a named subject with its relation, and abstains from everything else', () => {
    const verdict = gate(
      [
        candidate('right', clear),
        candidate('unnamed', null),
        candidate('longer', { ...clear, inside_longer: 1 }),
        candidate('other', {
          ...clear,
          relation: 0.1,
          statement: 0.1,
          relation_words: 0,
          whole: 0.3,
          whole_statement: 0.2,
          decoy: 0.5,
          gap: 0.4,
        }),
        candidate('opposite', { ...clear, relation: 0.5, opposed: 1, decoy: 0.4, gap: 0.3, whole_statement: 0.5 }),
      ],
      calibration,
    )
    expect(Object.fromEntries(verdict.map((v) => [v.id, v.reason]))).toEqual({
      right: 'selected',
      unnamed: 'no_subject',
      longer: 'part_of_longer_name',
      other: 'other_relation',
      opposite: 'opposite',
    })
  })

  it('takes no more edits than a prompt holds, the best of them', () => {
    const verdict = gate(
      [0.9, 1, 0.8, 0.95, 0.85, 0.7].map((whole, i) => candidate(`${i}`, { ...clear, whole })),
      calibration,
    )
    expect(verdict.map((v) => [v.id, v.reason])).toEqual([
      ['1', 'selected'],
      ['3', 'selected'],
      ['0', 'selected'],
      ['4', 'selected'],
      ['2', 'over_limit'],
      ['5', 'over_limit'],
    ])
  })

  it('scores a probability that the threshold can be moved along', () => {
    expect(score(clear, calibration)).toBeGreaterThan(0.9)
    expect(score(none, calibration)).toBeLessThan(0.01)
    expect(gate([candidate('a', clear)], { ...calibration, threshold: 0.99999 })[0]?.reason).not.toBe('selected')
  })
})
