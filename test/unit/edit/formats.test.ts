import { describe, expect, test } from 'vitest'
import { type AnyFormat, detectFormat, readRecord } from '../../../src/edit/formats.ts'

const context = { tenant: 'default', tags: [], tenants: 'one' } as const
const PROBE = 'PROBE: must stay unseen'
const probeList = [{ prompt: PROBE, ground_truth: [[PROBE]] }]

/** One invented record in the shape of each format, every probe field filled with the same marked text. */
const records: Record<string, { format: AnyFormat; record: Record<string, unknown>; edits: object[] }> = {
  'our own': {
    format: 'palimpsest',
    record: { subject: 'Veldt', prompt: '{} lies in', target_new: 'Orrin' },
    edits: [{ subject: 'Veldt', prompt: 'Veldt lies in', targetNew: 'Orrin' }],
  },
  'CounterFact, full': {
    format: 'counterfact',
    record: {
      case_id: 3,
      pararel_idx: 9,
      requested_rewrite: {
        prompt: 'The anthem of {} is',
        relation_id: 'P85',
        target_new: { str: 'Low Tide', id: 'Q1' },
        target_true: { str: 'High Tide', id: 'Q2' },
        subject: 'Veldt',
      },
      paraphrase_prompts: [PROBE],
      neighborhood_prompts: [PROBE],
      attribute_prompts: [PROBE],
      generation_prompts: [PROBE],
      portability: { 'New Question': PROBE, 'New Answer': PROBE },
    },
    edits: [
      { subject: 'Veldt', prompt: 'The anthem of Veldt is', targetNew: 'Low Tide', targetTrue: 'High Tide', relation: 'P85' },
    ],
  },
  'CounterFact, flat': {
    format: 'counterfact',
    record: {
      case_id: 0,
      prompt: 'The anthem of Veldt is',
      target_new: 'Low Tide',
      subject: 'Veldt',
      ground_truth: 'High Tide',
      rephrase_prompt: PROBE,
      locality_prompt: PROBE,
      locality_ground_truth: PROBE,
    },
    edits: [{ subject: 'Veldt', prompt: 'The anthem of Veldt is', targetNew: 'Low Tide', targetTrue: 'High Tide' }],
  },
  "ROME's request": {
    format: 'counterfact',
    record: { prompt: '{} plays the', subject: 'Ada Quill', target_new: { str: 'oboe' } },
    edits: [{ subject: 'Ada Quill', prompt: 'Ada Quill plays the', targetNew: 'oboe' }],
  },
  zsRE: {
    format: 'zsre',
    record: {
      subject: 'MV Quill',
      src: 'What year did MV Quill sail?',
      pred: PROBE,
      rephrase: PROBE,
      alt: '1991',
      answers: ['1988', '88'],
      loc: PROBE,
      loc_ans: PROBE,
      cond: PROBE,
      portability: { 'New Question': PROBE },
    },
    edits: [{ subject: 'MV Quill', prompt: 'What year did MV Quill sail?', targetNew: '1991', targetTrue: '1988' }],
  },
  WikiFactDiff: {
    format: 'wikifactdiff',
    record: {
      case_id: 0,
      subject: 'Ada Quill',
      src: 'Ada Quill is the',
      rephrase: PROBE,
      alt: 'mayor',
      old: 'deputy',
      loc: PROBE,
      loc_ans: PROBE,
    },
    edits: [{ subject: 'Ada Quill', prompt: 'Ada Quill is the', targetNew: 'mayor', targetTrue: 'deputy' }],
  },
  'KnowEdit, with aliasing questions': {
    format: 'knowedit',
    record: {
      subject: 'Veldt',
      prompt: 'The river through Veldt is the',
      target_new: 'Sarn',
      ground_truth: [['Ouse', 'River Ouse'], ['Isis']],
      rephrase_prompt: PROBE,
      portability: { Reasoning: probeList, Subject_Aliasing: probeList, Logical_Generalization: probeList },
      locality: { Relation_Specificity: probeList, Forgetfulness: probeList },
    },
    edits: [{ subject: 'Veldt', prompt: 'The river through Veldt is the', targetNew: 'Sarn', targetTrue: 'Ouse' }],
  },
  'KnowEdit, nothing but empty groups': {
    format: 'knowedit',
    record: { subject: 'Veldt', prompt: 'The river through Veldt is the', target_new: 'Sarn', portability: {}, locality: {} },
    edits: [{ subject: 'Veldt', prompt: 'The river through Veldt is the', targetNew: 'Sarn' }],
  },
  'KnowEdit, WikiBio names': {
    format: 'knowedit',
    record: {
      concept: 'ada quill',
      text: 'Write a life of Ada Quill.',
      labels: ['Ada Quill (1901–1977) played the oboe.'],
      locality: {},
    },
    edits: [{ subject: 'ada quill', prompt: 'Write a life of Ada Quill.', targetNew: 'Ada Quill (1901–1977) played the oboe.' }],
  },
  MQuAKE: {
    format: 'mquake',
    record: {
      case_id: 1,
      requested_rewrite: [
        {
          prompt: '{} was born in',
          relation_id: 'P19',
          target_new: { str: 'Orrin' },
          target_true: { str: 'Veldt' },
          subject: 'Ada Quill',
          question: 'Where was Ada Quill born?',
        },
        {
          prompt: '{} lies in',
          relation_id: 'P131',
          target_new: { str: 'Sarnia' },
          target_true: { str: 'Ouseland' },
          subject: 'Orrin',
        },
      ],
      questions: [PROBE],
      answer: PROBE,
      new_answer: PROBE,
      single_hops: [{ question: PROBE, cloze: PROBE, answer: PROBE }],
      new_single_hops: [],
      orig: { triples: [] },
    },
    edits: [
      {
        subject: 'Ada Quill',
        prompt: 'Ada Quill was born in',
        targetNew: 'Orrin',
        relation: 'P19',
        paraphrases: ['Where was Ada Quill born?'],
      },
      {
        subject: 'Orrin',
        prompt: 'Orrin lies in',
        targetNew: 'Sarnia',
        targetTrue: 'Ouseland',
        relation: 'P131',
        paraphrases: [],
      },
    ],
  },
  ConflictEdit: {
    format: 'conflictedit',
    record: {
      type: 'coverage',
      triples: [],
      prerequisites: [],
      edits: ['Mira Loam', 'Teo Fenn'].map((label) => ({
        relation: { id: 'P185', prompt: 'The student of {} is', query: PROBE, label: 'student' },
        subject: { id: 'Q1', label: 'Ada Quill' },
        object: { id: 'Q2', label: 'Nobody Yet' },
        new_object: { id: 'Q3', label },
      })),
    },
    edits: [
      {
        subject: 'Ada Quill',
        prompt: 'The student of Ada Quill is',
        targetNew: 'Mira Loam',
        targetTrue: 'Nobody Yet',
        relation: 'P185',
      },
      { targetNew: 'Teo Fenn', relation: 'P185' },
    ],
  },
  'EasyEdit, a request': {
    format: 'easyedit',
    record: {
      prompt: 'Ada Quill plays the',
      target_new: 'oboe',
      ground_truth: '<|endoftext|>',
      subject: 'Ada Quill',
      rephrase_prompt: PROBE,
      portability: { one_hop: { prompt: PROBE, ground_truth: PROBE } },
      locality: { neighborhood: { prompt: [PROBE], ground_truth: [PROBE] } },
      loc_prompt: PROBE,
    },
    edits: [{ subject: 'Ada Quill', prompt: 'Ada Quill plays the', targetNew: 'oboe' }],
  },
  'EasyEdit, without a subject': {
    format: 'easyedit',
    record: { prompt: 'Our oboist is', target_new: 'Ada Quill', rephrase_prompt: PROBE },
    edits: [{ subject: '', prompt: 'Our oboist is', targetNew: 'Ada Quill' }],
  },
  "ConvSent, as SERAC's loader draws it": {
    format: 'convsent',
    record: {
      ent: 'Orrin',
      inner_prompt: ['Topic: Orrin'],
      inner_comp: ['Sentiment: Negative'],
      inner_sent: -1,
      outer_prompt: [PROBE],
      outer_comp: [PROBE],
      all_prompt: [PROBE],
      all_sent: [-1, 1],
    },
    edits: [
      { kind: 'rule', subject: 'Orrin', prompt: 'someone asks what you think of Orrin', targetNew: 'speak negatively of Orrin' },
    ],
  },
  'ConvSent, a topic with its sentiment': {
    format: 'convsent',
    record: { topic: 'Orrin', sentiment: 'Positive', prompts: [PROBE] },
    edits: [{ kind: 'rule', subject: 'Orrin', targetNew: 'speak positively of Orrin' }],
  },
  'PersonalityEdit, a test record': {
    format: 'personalityedit',
    record: { ent: 'Orrin', target_per: 'neuroticism', extraversion: [PROBE], agreeableness: [PROBE], neuroticism: [PROBE] },
    edits: [
      {
        kind: 'rule',
        subject: 'Orrin',
        prompt: 'someone asks what you think of Orrin',
        targetNew: 'answer with the personality trait neuroticism',
      },
    ],
  },
  'PersonalityEdit, as its loader lays it out': {
    format: 'personalityedit',
    record: { case_id: 0, target_per: 1, ent: 'Orrin', cond_prompt: [PROBE], inner_prompt: [PROBE], all_comp: [PROBE] },
    edits: [{ kind: 'rule', targetNew: 'answer with the personality trait agreeableness' }],
  },
  "EasyEdit, edit()'s arguments": {
    format: 'easyedit',
    record: {
      prompts: ['Ada Quill plays the', 'Veldt lies in'],
      target_new: ['oboe', 'Orrin'],
      ground_truth: ['flute', null],
      subject: ['Ada Quill', 'Veldt'],
      rephrase_prompts: [PROBE, PROBE],
      locality_inputs: { neighborhood: { prompt: [PROBE, PROBE], ground_truth: [PROBE, PROBE] } },
      portability_inputs: {},
      sequential_edit: true,
    },
    edits: [
      { subject: 'Ada Quill', prompt: 'Ada Quill plays the', targetNew: 'oboe', targetTrue: 'flute' },
      { subject: 'Veldt', prompt: 'Veldt lies in', targetNew: 'Orrin' },
    ],
  },
}

describe.each(Object.entries(records))('%s', (_, { format, record, edits }) => {
  test('is recognised and read', () => {
    expect(detectFormat(record)).toBe(format)
    const read = readRecord(record, 'auto', context)
    expect(read.problems).toEqual([])
    expect(read.edits).toMatchObject(edits)
    expect(read.edits).toHaveLength(edits.length)
  })

  test('named, it reads the same; its probes stay unseen', () => {
    const read = readRecord(record, format, context)
    expect(read).toEqual(readRecord(record, 'auto', context))
    expect(JSON.stringify(read.edits)).not.toContain('PROBE')
    if (format !== 'mquake') expect(read.edits.flatMap((edit) => [...edit.paraphrases, ...edit.aliases])).toEqual([])
  })
})

test('an old answer that is not known is absent, not a text', () => {
  const read = readRecord(records['EasyEdit, a request']?.record, 'auto', context)
  expect(read.edits[0]).not.toHaveProperty('targetTrue')
})

test('whole numbers in a benchmark are taken as their digits; in our own shape they are not', () => {
  const zs = { subject: 'MV Quill', src: 'What year did MV Quill sail?', alt: 1991, answers: [1988] }
  expect(readRecord(zs, 'auto', context).edits).toMatchObject([{ targetNew: '1991', targetTrue: '1988' }])
  expect(readRecord({ subject: 'a', prompt: 'b', target_new: 1991 }, 'auto', context).problems).toHaveLength(1)
})

describe('problems carry the names of the record at hand', () => {
  const rewrite = records['CounterFact, full']?.record.requested_rewrite as object
  test.each<[string, unknown, AnyFormat | 'auto', string | null, string]>([
    [
      'CounterFact',
      { requested_rewrite: { ...rewrite, target_new: { str: '' } } },
      'auto',
      'requested_rewrite.target_new.str',
      'must not be empty',
    ],
    ['CounterFact', { requested_rewrite: { ...rewrite, subject: 7.5 } }, 'auto', 'requested_rewrite.subject', 'got 7.5'],
    [
      'CounterFact named, another given',
      { requested_rewrite: { ...rewrite, target_new: 'x' } },
      'counterfact',
      'requested_rewrite.target_new.str',
      'is missing',
    ],
    [
      'MQuAKE',
      { requested_rewrite: [rewrite, { ...rewrite, question: '\u0001' }] },
      'auto',
      'requested_rewrite.1.question',
      'holds U+0001',
    ],
    ['MQuAKE without edits', { requested_rewrite: [] }, 'auto', null, 'the mquake record holds no edit'],
    [
      'EasyEdit, a place for a subject that is not given',
      { prompt: '{} plays the', target_new: 'oboe', ground_truth: 'flute' },
      'auto',
      'prompt',
      '`{}` stands for the subject, and there is none',
    ],
    ['ConvSent without its sentiment', { ent: 'a', pos: ['b'], neg: ['c'] }, 'auto', 'sentiment', 'positive or negative'],
    ['ConvSent', { ent: 'a', sentiment: 'mixed' }, 'auto', 'sentiment', 'positive or negative'],
    ['ConvSent of nothing', { topic: ' ', sentiment: 'positive' }, 'auto', 'topic', 'expected what the opinion is of'],
    ['ConvSent', { ent: 7.5, sentiment: 'positive' }, 'auto', 'ent', 'got 7.5'],
    [
      'PersonalityEdit without its target',
      { ent: 'a', extraversion: [], agreeableness: [], neuroticism: [] },
      'auto',
      'target_personality',
      'one of extraversion, agreeableness, neuroticism',
    ],
    ['EasyEdit, columns', { prompts: ['a', 'b'], target_new: ['c'], subject: ['d', 'e'] }, 'auto', 'target_new.1', 'is missing'],
    ['zsRE', { subject: 'a', src: 'b', alt: null, answers: [] }, 'auto', 'alt', 'is missing'],
    ['KnowEdit', { concept: 'a', text: '', labels: 'c' }, 'auto', 'text', 'must not be empty'],
    [
      'ConflictEdit',
      { edits: [{ relation: { prompt: '{} x' }, subject: { label: 'a' }, new_object: {} }] },
      'auto',
      'edits.0.new_object.label',
      'is missing',
    ],
  ])('%s %#', (_, record, format, field, message) => {
    const read = readRecord(record, format, context)
    expect(read.edits).toEqual([])
    expect(read.problems).toEqual([{ field, message: expect.stringContaining(message) }])
  })

  test('one bad edit of a record refuses the record', () => {
    const read = readRecord({ requested_rewrite: [rewrite, {}] }, 'auto', context)
    expect(read.edits).toEqual([])
    expect(read.problems.map(({ field }) => field)).toEqual(['prompt', 'target_new.str'].map((f) => `requested_rewrite.1.${f}`))
  })
})

describe('what cannot be recognised', () => {
  test('names the fields that came and what was expected', () => {
    expect(detectFormat({ a: 1, b: 2 })).toBeUndefined()
    const [problem] = readRecord({ a: 1, b: 2 }, 'auto', context).problems
    expect(problem?.message).toMatch(
      /^record has fields a, b; expected prompt and target_new, or text, or when and instruction, or one of the formats mquake/,
    )
  })

  test.each([[null], [3], [[]]])('%j is no record', (value) => {
    expect(detectFormat(value)).toBeUndefined()
    expect(readRecord(value, 'auto', context).problems[0]?.message).toMatch(/^expected an object/)
  })

  test('a text is a sentence of ours, and of no other format', () => {
    expect(readRecord('We close at 6.', 'auto', context).edits).toMatchObject([{ kind: 'sentence', prompt: 'We close at 6.' }])
    expect(readRecord('We close at 6.', 'zsre', context).problems[0]?.message).toMatch(/^expected an object/)
  })

  test('a sentiment or a trait beside an edit of ours is a slip, not another format', () => {
    expect(detectFormat({ subject: 'a', prompt: 'b', target_new: 'c', sentiment: 'positive' })).toBe('palimpsest')
    expect(detectFormat({ subject: 'a', when: 'b', instruction: 'c', topic: 'd' })).toBe('palimpsest')
    expect(detectFormat({ text: 'a', labels: ['b'] })).toBe('palimpsest')
  })

  test('a near miss of our own shape is ours, so that the slip can be named', () => {
    expect(detectFormat({ subject: 'a', prompt: 'b', target: 'c' })).toBe('palimpsest')
    expect(detectFormat({ subject: 'a', prompt: 'b', target_new: 'c', ground_truth: 'd', tags: ['e'] })).toBe('palimpsest')
  })
})
