import { describe, expect, it } from 'vitest'
import { type Edit, maskSubject } from '../../../src/edit/edit.ts'
import { supersessionKey } from '../../../src/edit/relation.ts'
import { normalized, tokens, words } from '../../../src/edit/words.ts'
import type { Candidate } from '../../../src/selection/candidate.ts'
import { type Calibration, gate, readCalibration, score, TURN_EDITS } from '../../../src/selection/gate.ts'
import { NameIndex, withinOneEdit } from '../../../src/selection/names.ts'
import {
  behind,
  conversationEnd,
  cut,
  earlierOf,
  earlierRead,
  editText,
  partsOf,
  sentencesFor,
  withKnown,
} from '../../../src/selection/text.ts'
import { edit, random } from '../../support/memory-data.ts'

const named = (subject: string, ...aliases: string[]): Edit =>
  edit(subject, { subject, aliases, prompt: `The fee of ${subject} is`, targetNew: 'T' })

/** `kind id` of each name found, with the words that name it. */
function find(text: string, ...edits: (Edit | string)[]): string[] {
  const index = new NameIndex()
  for (const e of edits) index.add(typeof e === 'string' ? named(e) : e)
  return index.find(text).map(({ editId, kind, start, end }) => `${kind} ${editId}: ${text.slice(start, end)}`)
}

describe('words', () => {
  it.each([
    ['Kolinda Grabar-Kitarović', ['kolinda', 'grabar', 'kitarovic']],
    ['Władysław Ørsted', ['wladyslaw', 'orsted']],
    ['C C++ C# .NET', ['c', 'c++', 'c#', '.net']],
    ['AT&T and R&D', ['at&t', 'and', 'r&d']],
    ['GPT-4, GPT4 or GPT 4', ['gpt', '4', 'gpt', '4', 'or', 'gpt', '4']],
    ['GPT-4.5, GPT4.5', ['gpt', '4.5', 'gpt', '4.5']],
    ['U.S. trade', ['us', 'trade']],
    ['東京の人口', ['東', '京', 'の', '人', '口']],
    ['서울은', ['서', '울', '은']],
    ['Lumora 🚀 🇩🇪', ['lumora', '🚀', '🇩🇪']],
    ['والكتاب الكتاب', ['كتاب', 'كتاب']],
    ['Lum\u00adora Lu\u200bmora', ['lumora', 'lumora']],
    ['ﬁne Ｌｕｍｏｒａ', ['fine', 'lumora']],
    ['https://lumora.io/a b@lumora.io src/lumora/x.ts flow_starter', 4],
    ['/opt/lumora/bin ~/lumora ./lumora C:\\lumora\\bin sub.lumora.co.uk', 5],
    ['Lumora/Velt and/or 24/7', ['lumora', 'velt', 'and', 'or', '24', '7']],
  ])('of %j', (text, expected) => {
    if (typeof expected === 'number') expect(words(text)).toHaveLength(expected)
    else expect(words(text)).toEqual(expected)
  })

  it.each(['Node.js', 'nodejs', 'NodeJS', 'node.js.'])('%s is nodejs', (text) => expect(words(text)).toEqual(['nodejs']))

  it('are the same by the short way and by the long one', () => {
    const next = random(7)
    const signs = 'ab C9 ,;:?\'"()!-.\n'
    for (let i = 0; i < 2_000; i++) {
      const text = Array.from({ length: 12 }, () => signs[Math.floor(next() * signs.length)]).join('')
      expect({ text, words: words(text) }).toEqual({ text, words: tokens(text).map(({ word }) => word) })
    }
  })

  it('have their places in the text as it came', () => {
    const text = 'Ask Lum\u00adora, not İstanbul.'
    expect(tokens(text).map(({ start, end }) => text.slice(start, end))).toEqual(['Ask', 'Lum\u00adora', 'not', 'İstanbul'])
  })

  it('normalizes what looks alike', () => expect(normalized(' ﬁ\u200bne\n\tＡ\u00ad ')).toBe('fine A'))
})

describe('names in a text', () => {
  it.each([
    ['Who leads INTEL now?', 'exact Intel: INTEL'],
    ["What is Intel's newest plant?", 'exact Intel: Intel'],
    ['Who leads Chipzilla?', 'alias Intel: Chipzilla'],
    ['Is In\u00adtel or In\u200btel alive?', 'exact Intel: In\u00adtel'],
  ])('%s', (text, match) => expect(find(text, named('Intel', 'Chipzilla'))[0]).toBe(match))

  it.each([
    ['What does C do?', ['exact C: C']],
    ['Is C++ fast? And c++?', ['exact C++: C++', 'exact C++: c++']],
    ['C# then', ['exact C#: C#']],
    ['Does .NET run on Linux?', ['exact .NET: .NET']],
    ['Is the net big?', []],
    ["at&t's plan", ['exact AT&T: at&t']],
    ['Is nodejs fast?', ['exact Node.js: nodejs']],
    ['GPT4 or gpt-4', ['exact GPT-4: GPT4', 'exact GPT-4: gpt-4']],
    ['What does 🚀 mean?', ['exact 🚀: 🚀']],
    ['Who told us about it?', []],
    ['Does the US pay for IT?', ['exact US: US', 'exact IT: IT']],
  ])('keep their signs: %s', (text, matches) => {
    expect(find(text, 'C', 'C++', 'C#', '.NET', 'AT&T', 'Node.js', 'GPT-4', '🚀', 'US', 'IT')).toEqual(matches)
  })

  it.each([
    'Run flow_starter now',
    'See lumora.io or https://lumora.io/flow',
    'Write to a@lumora.io or lumora@example.com',
    'Open src/lumora/flow.ts, /opt/lumora/flow and C:\\lumora\\flow',
    'Call lumora.start(flow_id) in lumoraFlow',
    'Illumorate the overflow',
  ])('are not found in hosts, addresses, paths, identifiers or other words: %s', (text) =>
    expect(find(text, 'Lumora', 'flow', 'starter')).toEqual([]),
  )

  it('push out a fuzzy one on the same words, and only there', () => {
    expect(find('Where is Maria Weber?', 'Maria Weber', 'Mario Weber')).toEqual(['exact Maria Weber: Maria Weber'])
    expect(find('Where is Mario Weber? Not Maria Weber.', 'Maria Weber', 'Mario Weber')).toEqual([
      'exact Mario Weber: Mario Weber',
      'exact Maria Weber: Maria Weber',
    ])
    expect(find('Where is Marla Weber?', 'Maria Weber')).toEqual(['misspelt Maria Weber: Marla Weber'])
  })

  it('push out none when they are not eligible', () => {
    const index = new NameIndex()
    for (const name of ['New York Times', 'New York']) index.add(named(name))
    const found = index.find('The New York Times wrote', (id) => id !== 'New York Times')
    expect(found[0]).toMatchObject({ editId: 'New York', kind: 'exact' })
  })

  it('are not found by one letter of theirs, in any script', () => {
    expect(find('서쪽은 어디?', '서울')).toEqual([])
    expect(find('京都の人口', '東京')).toEqual([])
  })

  it('give way to a longer one that they are inside of, in every script', () => {
    expect(find('The New York Times wrote', 'New York', 'New York Times')).toEqual(['exact New York Times: New York Times'])
    expect(find('北京大学的校长是谁？', '北京', '北京大学')).toEqual(['exact 北京大学: 北京大学'])
    expect(find('北京的市长是谁？', '北京', '北京大学')).toEqual(['exact 北京: 北京'])
    expect(find('日本の東京の人口は', '東京')).toEqual(['exact 東京: 東京'])
  })

  it('are found misspelt and in part, which counts for less', () => {
    expect(find('where was Danielle Darieux born', 'Danielle Darrieux')).toEqual(['misspelt Danielle Darrieux: Danielle Darieux'])
    const index = new NameIndex()
    index.add(named('Carlo Ancelotti'))
    const [part] = index.find('Which club does Ancelotti coach?')
    expect(part).toMatchObject({ kind: 'partial' })
    expect(part?.coverage).toBeGreaterThanOrEqual(0.45)
    expect(part?.coverage).toBeLessThan(1)
    expect(find('He plays chess at noon', 'Noon Chess Club of Paris')).toEqual([])
  })

  it('are those of the edit as it was last said', () => {
    const index = new NameIndex()
    index.add(named('Intel'))
    index.add({ ...named('Intel'), subject: 'Ampere' })
    expect(index.find('Intel?')).toEqual([])
    expect(index.find('Ampere?')).toMatchObject([{ editId: 'Intel', kind: 'exact' }])
  })

  it('bring all edits of one subject', () => {
    const siblings = ['a', 'b', 'c'].map((id) => ({ ...named('Intel'), id }))
    expect(find('Intel?', ...siblings)).toEqual(['exact a: Intel', 'exact b: Intel', 'exact c: Intel'])
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

describe('what is read', () => {
  it('keeps beginning and end of what is long', () => {
    expect(cut('short', 10)).toBe('short')
    expect(cut('0123456789abcdefghij', 10)).toBe('0123 … efghij')
    expect(cut('🎉'.repeat(20), 10)).toBe(`${'🎉'.repeat(4)} … ${'🎉'.repeat(6)}`)
  })

  it('is the last message behind the end of what user and assistant said before', () => {
    expect(conversationEnd([], ' Who  leads\nit? ')).toBe('Who leads it?')
    expect(conversationEnd(['a', 'b', 'c', 'd'], 'e')).toBe('b | c | d || e')
    const messages = [
      { role: 'system' as const, content: 'Be brief.' },
      { role: 'user' as const, content: 'Hi' },
      { role: 'assistant' as const, content: 'Hello' },
      { role: 'user' as const, content: 'And?' },
    ]
    expect(earlierOf(messages, 3, 4)).toEqual(['Hi', 'Hello'])
    expect(earlierOf(messages, 3, 1)).toEqual(['Hello'])
    expect(earlierOf(messages, 1, 4)).toEqual([])
  })

  it('of an edit: the statement with its subject and other names, the sentence, or the rule', () => {
    const fact = edit('e', { subject: 'Lumora', aliases: ['LMR'], prompt: 'The fee is', targetNew: '5' })
    expect(editText(fact)).toBe('Lumora: The fee is 5 (= LMR)')
    expect(editText({ ...fact, prompt: 'The fee of LUMORA is', aliases: [] })).toBe('The fee of LUMORA is 5')
    expect(editText({ ...fact, kind: 'sentence', prompt: 'Lumora is free.', targetNew: '' })).toBe('Lumora is free.')
    expect(editText({ ...fact, kind: 'rule', prompt: 'asked for a refund', targetNew: 'Say no.' })).toBe(
      'asked for a refund → Say no.',
    )
    expect(editText({ ...fact, kind: 'rule', prompt: '', targetNew: 'Be kind.', always: true })).toBe('always → Be kind.')
    expect(withKnown('Who?', [fact])).toBe('Who? [The fee is 5]')
  })

  it('of a message of several sentences: what asks and what is about the edit, or all where nothing asks', () => {
    const read = (...texts: string[]) =>
      sentencesFor(
        texts.map((searched) => ({ searched })),
        ({ searched }) => searched.includes('tent'),
      ).map(({ searched }) => searched)
    expect(read('It rains.', 'My tent leaks.', 'Is it covered?')).toEqual(['My tent leaks.', 'Is it covered?'])
    expect(read('It rains.', 'Tell me the fee.')).toEqual(['It rains.', 'Tell me the fee.'])
  })

  it('of a long message: the whole and its parts, each with the end, first and last ones where there are many', () => {
    const short = partsOf('Short?').map((part) => ({ ...part, read: behind(earlierRead(['before']), part.read) }))
    expect(short).toEqual([{ searched: 'Short?', read: 'before || Short?' }])
    const sentences = Array.from(
      { length: 60 },
      (_, i) => `Sentence number ${i} tells of a thing that nobody wanted to know about at all.`,
    )
    const parts = partsOf(`${sentences.join(' ')} How much is it?`)
    expect(parts.length).toBeLessThanOrEqual(13)
    expect(parts[1]?.searched).toMatch(/^Sentence number 0 /)
    expect(parts.at(-1)?.searched).toMatch(/How much is it\?$/)
    for (const { read } of parts.slice(1)) expect(read).toMatch(/How much is it\?$/)
  })

  it.each([
    ['Hello there. What is our refund window?\nThanks!', ['Hello there.', 'What is our refund window?', 'Thanks!']],
    ['多少天？谢谢。 再见。', ['多少天？', '谢谢。', '再见。']],
    ['Warned were all of these EXCEPT:\n\nA. Australia\nB. Japan', []],
    ['Which of these is true? A. It is old. B. It is new.', []],
    [
      'Which of these is true?\nA. It is old.\nB. It is new.\nThanks.',
      ['Which of these is true?\nA. It is old.\nB. It is new.', 'Thanks.'],
    ],
    ['Which?\n1) one\n2) two\nThe number only.', ['Which?\n1) one\n2) two', 'The number only.']],
    ['多少天？\nA. 三十天\nB. 四十天\n谢谢。', ['多少天？\nA. 三十天\nB. 四十天', '谢谢。']],
    ['Is any of these ours?\n- a tent\n- a boat', []],
  ])('of a message of several sentences: each, with its choices: %j', (message, sentences) => {
    expect(
      partsOf(message)
        .slice(1)
        .map(({ searched }) => searched),
    ).toEqual(sentences)
  })
})

describe('masking and supersession', () => {
  it('masks whole words only, in any case', () => {
    expect(maskSubject('Rome and romeo, ROME', 'Rome', 'X')).toBe('X and romeo, X')
  })

  it('is the same fact by relation label, or by the same words around the subject', () => {
    const a = edit('a', { subject: 'France', prompt: 'The capital of France is' })
    expect(supersessionKey(a)).toBe(supersessionKey({ ...a, prompt: 'the capital of FRANCE is ' }))
    expect(supersessionKey(a)).not.toBe(supersessionKey({ ...a, prompt: 'The president of France is' }))
    expect(supersessionKey({ ...a, relation: 'P36' })).toBe(
      supersessionKey({ ...a, prompt: 'the seat of France', relation: 'p36' }),
    )
    expect(supersessionKey(a)).not.toBe(supersessionKey({ ...a, tenant: 'other' }))
  })

  it('tells names apart by their signs, and not by how they are written', () => {
    const keys = (...subjects: string[]) => new Set(subjects.map((subject) => supersessionKey(named(subject))))
    expect(keys('C', 'C++', 'C#', 'Net', '.NET', 'ATT', 'AT&T', '🚀', '🎉')).toHaveProperty('size', 9)
    expect(keys('GPT-4', 'GPT4', 'gpt 4')).toHaveProperty('size', 1)
    expect(keys('Node.js', 'nodejs')).toHaveProperty('size', 1)
    expect(keys('Lumora', 'Lum\u00adora', 'Lu\u200bmora')).toHaveProperty('size', 1)
  })
})

describe('names that another name outdoes', () => {
  it('are those that share its words, or differ by their signs, and stand nowhere else', () => {
    const index = new NameIndex()
    for (const [id, subject] of [
      ['maria', 'Maria Weber'],
      ['mario', 'Mario Weber'],
      ['c', 'C'],
      ['cpp', 'C++'],
      ['desk', 'Lumora Desk'],
      ['pro', 'Lumora Desk Pro'],
    ] as const)
      index.add(edit(id, { subject }))
    const outdone = (text: string) => [...index.outdone(text)].toSorted()
    expect(outdone('Where does Maria Weber sit?')).toEqual(['mario'])
    expect(outdone('What is the latest C standard?')).toEqual(['cpp'])
    expect(outdone('What does Lumora Desk cost?')).toEqual(['pro'])
    expect(outdone('Is Lumora Desk cheaper than its Pro edition?')).toEqual([])
    expect(outdone('Do Maria Weber and Mario Weber share a room?')).toEqual([])
  })
})

describe('the gate', () => {
  const PLAIN: Calibration = {
    bias: 0,
    weights: { reader: 1, named: 0.5, loosely: 0.25, earlier: 0.1, crowd: 0, crowdLoosely: 0 },
    threshold: 0.5,
  }
  const candidate = (id: string, over: Partial<Candidate> = {}): Candidate => ({
    ...{
      edit: edit(id),
      similarity: 0.5,
      nearness: 0,
      name: null,
      earlier: false,
      logit: 0,
      read: 'q',
      key: null,
      counter: false,
      otherNamed: false,
      among: 1,
    },
    ...over,
  })
  const at = (kind: 'exact' | 'alias' | 'partial', coverage = 1) => ({ editId: 'x', kind, coverage, start: 0, end: 1 })
  const reasons = (candidates: Candidate[], calibration = PLAIN) =>
    Object.fromEntries(gate(candidates, calibration).map(({ id, reason }) => [id, reason]))

  it('turns the log-odds of the reader and what names the edit into a probability', () => {
    const logit = (c: Partial<Candidate>) => {
      const p = score(candidate('a', c), PLAIN)
      return Math.log(p / (1 - p))
    }
    expect(logit({ logit: 2 })).toBeCloseTo(2)
    expect(logit({ name: at('exact') })).toBeCloseTo(0.5)
    expect(logit({ name: at('alias') })).toBeCloseTo(0.5)
    expect(logit({ name: at('partial', 0.6) })).toBeCloseTo(0.15)
    expect(logit({ earlier: true, logit: -1 })).toBeCloseTo(-0.9)
    expect(score(candidate('a', { logit: null, name: at('exact') }), PLAIN)).toBe(0)
  })

  it('says why it takes none of the others', () => {
    const rule = { ...edit('always'), kind: 'rule' as const, always: true as const }
    const countered = { ...rule, id: 'countered' }
    const all = [
      candidate('right', { logit: 3 }),
      candidate('unread', { logit: null }),
      candidate('wrong', { logit: -3 }),
      candidate('counter', { logit: 3, counter: true }),
      candidate('always', { edit: rule, logit: null, similarity: null }),
      candidate('countered', { edit: countered, logit: null, counter: true }),
    ]
    expect(reasons(all)).toEqual({
      ...{ right: 'selected', unread: 'not_read', wrong: 'below_threshold', counter: 'counterexample' },
      ...{ always: 'selected', countered: 'counterexample' },
    })
    expect(reasons(all, { ...PLAIN, threshold: 0.99 })).toMatchObject({ right: 'below_threshold', always: 'selected' })
    expect(reasons(all, { ...PLAIN, threshold: 0.01 })).toMatchObject({ wrong: 'outranked', counter: 'counterexample' })
  })

  it('takes no more edits than a prompt holds, the best of them; siblings do not silence each other', () => {
    const six = [2, 2.5, 1.8, 2.2, 1.9, 1.7].map((logit, i) => candidate(`${i}`, { logit }))
    const verdict = gate(six, PLAIN)
    expect(verdict.map((v) => v.id)).toEqual(['1', '3', '0', '4', '2', '5'])
    expect(verdict.map((v) => v.reason)).toEqual([...Array(TURN_EDITS).fill('selected'), 'over_limit', 'over_limit'])
  })

  it('asks more of an edit that is not named the more edits there are', () => {
    const crowded = { ...PLAIN, weights: { ...PLAIN.weights, crowd: -0.5 } }
    const scores = [1, 1_000, 10_000, 100_000].map((among) => score(candidate('a', { logit: 2, among }), crowded))
    expect(scores).toEqual(scores.toSorted((a, b) => b - a))
    expect(new Set(scores).size).toBe(4)
    const name = { editId: 'a', start: 0, end: 1, kind: 'exact', coverage: 1 } as const
    const named = [1, 100_000].map((among) => score(candidate('a', { logit: 2, name, among }), crowded))
    expect(named[0]).toBe(named[1])
  })

  it('takes no edit that is needed much less clearly than the best', () => {
    expect(
      reasons([candidate('best', { logit: 4 }), candidate('beside', { logit: 3 }), candidate('behind', { logit: 1.5 })]),
    ).toEqual({
      ...{ best: 'selected', beside: 'selected', behind: 'outranked' },
    })
  })

  it('takes no edit whose name is only part of the words of another that is named in full', () => {
    expect(reasons([candidate('named', { logit: 1 }), candidate('other', { logit: 3, otherNamed: true })])).toEqual({
      ...{ named: 'selected', other: 'other_name' },
    })
  })

  it('is read from the file that ships, with the threshold that was asked for', () => {
    expect(readCalibration().threshold).toBeGreaterThan(0)
    expect(readCalibration(undefined, 0.9).threshold).toBe(0.9)
  })
})
