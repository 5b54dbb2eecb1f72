import { describe, expect, it } from 'vitest'
import { merged } from '../../../src/evaluate/firing/case.ts'
import { readCases } from '../../../src/evaluate/firing/read.ts'

const user = (content: string) => [{ role: 'user', content }]
const item = (type: string, content: string, more: object = {}) => ({ type, messages: user(content), ...more })
const lines = (...records: object[]) => records.map((record) => JSON.stringify(record)).join('\n')
const price = { prompt: 'The Fern plan costs', target_new: '9 marks', subject: 'Fern plan', aliases: ['Fern'] }
const shown = (cases: ReturnType<typeof readCases>) =>
  cases.cases.map(({ group, type, wants }) => `${group} | ${type} | ${wants.length}`)

describe("the trial's lines", () => {
  it('puts the edits of one kind and language into one memory, and reads each shape of edit', () => {
    const read = readCases(
      lines(
        {
          kind: 'A',
          language: 'en',
          edit: price,
          in_scope: [item('p', 'What is Fern?')],
          near_miss: [item('o', 'Price of Moss?')],
        },
        { kind: 'A', language: 'en', edit: { text: 'Fern closes on Sundays.' }, in_scope: [], near_miss: [] },
        {
          kind: 'A',
          language: 'en',
          edit: { when: 'a refund is asked for', instruction: 'ask for the order' },
          in_scope: [],
          near_miss: [],
        },
        { kind: 'C', language: 'de', edit: { always: true, instruction: 'be brief' }, in_scope: [], near_miss: [] },
        {
          kind: 'B',
          language: 'en',
          scope: 'global',
          edit: { prompt: 'Answer in', target_new: 'rhymes' },
          in_scope: [],
          near_miss: [],
        },
      ),
      'trial.jsonl',
    )
    expect(shown(read)).toEqual(['A en | p | 1', 'A en | o | 0'])
    const [a, c, b] = [...read.memories.values()]
    expect(a?.edits).toMatchObject([
      { subject: 'Fern plan', aliases: ['Fern'], prompt: 'The Fern plan costs', targetNew: '9 marks' },
      { kind: 'sentence', prompt: 'Fern closes on Sundays.', targetNew: '' },
      { kind: 'rule', prompt: 'a refund is asked for', targetNew: 'ask for the order' },
    ])
    expect(a?.always).toEqual([])
    expect(c).toMatchObject({ edits: [{ kind: 'rule', always: true }], always: [c?.edits[0]?.id] })
    expect(b).toMatchObject({ edits: [{ targetNew: 'rhymes' }], always: [b?.edits[0]?.id] })
    expect(b?.edits[0]).not.toHaveProperty('kind')
  })

  it('reports kind X by the type, which is a language, and asks unrelated questions of the memories of their language', () => {
    const read = readCases(
      lines(
        {
          kind: 'X',
          language: 'en',
          edit: price,
          in_scope: [item('de', 'Was kostet Fern?')],
          near_miss: [item('fr', 'Où est Fern ?')],
        },
        { kind: 'C', language: 'de', edit: { text: 'Es regnet.' }, in_scope: [], near_miss: [] },
        { kind: 'U', language: 'de', edit: null, in_scope: [], near_miss: [item('u', 'Erzähl einen Witz.')] },
      ),
      'trial.jsonl',
    )
    expect(shown(read)).toEqual(['X de | de | 1', 'X fr | fr | 0', 'U de | u | 0'])
    expect(read.cases.at(-1)?.memory).toBe('trial.jsonl C de')
  })

  it('names line and field of what is wrong', () => {
    const text = lines(
      { kind: 'A', edit: price, in_scope: [item('p', 'Fern?')] },
      { kind: 'A', edit: { prompt: 'Half a fact' }, in_scope: [{ type: 'p', messages: [{ role: 'assistant', content: 'Hi' }] }] },
    )
    expect(() => readCases(text, 'trial.jsonl')).toThrow(
      /trial\.jsonl has 2 problems in 2 records.*line 2, edit: expected a fact/,
    )
  })
})

describe('the corpus', () => {
  const records = [
    { id: 'a-1', team: 'Fern', kind: 'fact', language: 'en', edit: price },
    { id: 'a-2', team: 'Fern', kind: 'rule', language: 'en', always: true, edit: { text: 'Say thanks.' } },
  ]
  it('has one memory a team, lets edits of `also` fire, and takes a near miss with `is` as in scope of that edit', () => {
    const [first, second] = records
    const read = readCases(
      lines(
        {
          ...first,
          in_scope: [item('p', 'Fern?', { also: ['a-2'] }), item('p', 'Und Fern?', { language: 'de' })],
          near_miss: [],
        },
        { ...second, in_scope: [], near_miss: [item('x', 'What does Fern cost?', { is: ['a-1'] })] },
      ),
      'own.jsonl',
    )
    expect(shown(read)).toEqual(['fact en | p | 1', 'fact en→de | p | 1', 'fact en | x, is | 1'])
    expect(read.cases[0]).toMatchObject({ memory: 'Fern', wants: ['a-1'], also: ['a-2'] })
    expect(read.cases[2]?.wants).toEqual(['a-1'])
    expect(read.memories.get('Fern')?.always).toEqual(['a-2'])
  })

  it('refuses an id that the team does not have', () => {
    const text = lines({ ...records[0], in_scope: [item('p', 'Fern?', { also: ['a-9'] })], near_miss: [] })
    expect(() => readCases(text, 'own.jsonl')).toThrow(/line 1, in_scope\.0\.also: names the edit a-9/)
  })
})

describe('HalluEditBench', () => {
  const head =
    'topic,subject,relation,object,question,output_m,multiple_choice_with_letters,paraphrased_question,yes_question,locality_question,question_2hop,answer_2hop'
  it('reads the published columns, and one memory from several files', () => {
    const one = readCases(
      `${head}\nart,The Gate,maker,Bo Tarn,Who made The Gate?,x,"A. Bo  B. Cy","By whom is The Gate?",,Where is The Gate?,Who taught its maker?,y\n`,
      'a.csv',
    )
    const two = readCases(`${head}\nart,The Wall,maker,Cy Umber,Who made The Wall?,x,,,,,,\n`, 'b.csv')
    expect(shown(one)).toEqual([
      'H en | question | 1',
      'H en | para | 1',
      'H en | 2 hops | 1',
      'H en | choice | 1',
      'H en | locality | 0',
    ])
    expect(one.cases[3]?.messages).toEqual(user('Who made The Gate? A. Bo  B. Cy'))
    const both = merged([one, two])
    expect([...both.memories.values()]).toMatchObject([{ edits: [{ targetNew: 'Bo Tarn' }, { targetNew: 'Cy Umber' }] }])
  })

  it('names line and column of an empty cell it needs', () => {
    expect(() => readCases(`${head}\nart,,maker,Bo,Who?,x,,,,,,\n`, 'a.csv')).toThrow(/line 2, subject: must not be empty/)
  })
})

describe('multilingual records', () => {
  const one = (subject: string, src: string, loc: string) => ({
    subject,
    src,
    rephrase: `${src}?`,
    alt: 'Bo',
    loc,
    loc_ans: 'Cy',
  })
  const text = JSON.stringify([
    { en: one('Orrin', 'The mayor of Orrin is', 'The mayor of Velm is'), 'zh-cn': one('奥林', '奥林的市长是', '韦尔姆的市长是') },
    { en: { ...one('Tosk', 'The mayor of Tosk is', ''), alt: '' }, 'zh-cn': one('托斯克', '托斯克的市长是', '') },
  ])

  it('asks in each language of edits in each language', () => {
    const read = readCases(text, 'm.json')
    expect([...new Set(read.cases.map(({ group }) => group))]).toEqual(['en→en', 'en→zh-cn', 'zh-cn→en', 'zh-cn→zh-cn'])
    expect([...read.memories].map(([key, { edits }]) => [key, edits.length])).toEqual([
      ['m.json en', 1],
      ['m.json zh-cn', 2],
    ])
    expect(read.notes).toEqual(['m.json: 1 edits are left out, for a blank `src` or `alt`.'])
  })

  it('takes one combination when told', () => {
    const read = readCases(text, 'm.json', { edit: 'en', ask: 'zh' })
    expect(shown(read)).toEqual(['en→zh-cn | question | 1', 'en→zh-cn | rephrase | 1', 'en→zh-cn | loc | 0'])
    expect(read.cases[0]?.messages).toEqual(user('奥林的市长是'))
    expect(() => readCases(text, 'm.json', { edit: 'ko' })).toThrow(
      /line 1: has no object for --edit-language ko, only for en and zh-cn/,
    )
  })
})

describe('CounterFact-Hard', () => {
  it("reads EREN's records: the statement without its end is the edit", () => {
    const record = (edit_statement: string) => ({
      ...{ id: 0, edit_statement, subject_name: 'Orrin', edit_scope: [['Who leads Orrin?', 'Bo Tarn']] },
      unrelated: { neighbor_subj: ['Who leads Velm?'], same_subj: ['Where is Orrin?', 'Where is Orrin?'] },
    })
    const read = readCases(
      JSON.stringify([record('The mayor of Orrin is Bo Tarn.'), { ...record('x'), edit_scope: [] }]),
      'cfh.json',
    )
    expect(read.notes).toEqual(['cfh.json: 1 records that ask nothing are left out.'])
    expect(shown(read)).toEqual(['question | 1', 'same subject | 0', 'neighbour | 0'].map((one) => `CounterFact-Hard | ${one}`))
    expect([...read.memories.values()][0]?.edits).toMatchObject([{ prompt: 'The mayor of Orrin is', targetNew: 'Bo Tarn' }])
    const other = readCases(JSON.stringify([record('Bo Tarn is mayor.')]), 'cfh.json')
    expect([...other.memories.values()][0]?.edits).toMatchObject([{ prompt: 'Who leads Orrin?' }])
  })

  it('derives the like from CounterFact: what others are asked, asked of the same subject', () => {
    const record = (subject: string, prompt: string, relation_id: string) => ({
      requested_rewrite: { prompt, subject, relation_id, target_new: { str: 'X' } },
      ...{ paraphrase_prompts: [], neighborhood_prompts: ['The mayor of Velm is'] },
    })
    const records = [record('Orrin', 'The mayor of {} is', 'P6'), record('Bo', '{} was born in', 'P19')]
    const read = readCases(JSON.stringify(records), 'cf.json')
    const same = read.cases.filter(({ type }) => type === 'same subject')
    expect(same.map(({ messages }) => messages[0]?.content)).toEqual(['Orrin was born in', 'The mayor of Bo is'])
  })
})

it('says which shapes it reads', () => {
  expect(() => readCases('[{"subject":"x","prompt":"y"}]', 'x.json')).toThrow(
    /x\.json has a shape that is not known here: line 1 has subject, prompt/,
  )
})
