import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { PalimpsestError } from '../../../src/errors.ts'
import { readDataset } from '../../../src/evaluate/data/dataset.ts'
import type { Probe } from '../../../src/evaluate/data/probe.ts'
import { readTrafficFile } from '../../../src/evaluate/data/traffic.ts'

const read = (...records: unknown[]) => readDataset(JSON.stringify(records), 'made-up.json')
/** "kind/sub text -> answers (rival)", with `*` where an edit is wanted. */
const short = ({ kind, sub, turns, answers, wants, rival }: Probe) =>
  `${kind}/${sub}${'*'.repeat(wants.length)} ${turns.join(' // ')} -> ${answers.join('|')}${rival === undefined ? '' : ` (${rival})`}`
const probesOf = (record: unknown) => read(record).records.flatMap(({ probes }) => probes.map(short))
const problemsOf = (work: () => unknown) => {
  try {
    work()
  } catch (error) {
    if (error instanceof PalimpsestError)
      return error.problems.map(({ index, line, field, message }) => ({ index, line, field, message }))
  }
  return []
}

const rewrite = {
  prompt: '{} was born in',
  relation_id: 'P19',
  subject: 'Ada Quill',
  target_new: { str: 'Orrin', id: 'Q1' },
  target_true: { str: 'Velm', id: 'Q2' },
}
const counterfact = {
  case_id: 7,
  requested_rewrite: rewrite,
  paraphrase_prompts: ['It rained. Ada Quill comes from'],
  neighborhood_prompts: ['Bo Tarn was born in'],
  attribute_prompts: ['Cy Umber was born in'],
  generation_prompts: ['Ada Quill lives in', 'Ada Quill lives in'],
  portability: {
    'Recalled Relation': '(Orrin, river, Sull)',
    'New Question': "Which river runs through Ada Quill's home?",
    'New Answer': 'Sull',
  },
}

describe('probes of each published format', () => {
  it('CounterFact, with portability', () => {
    expect(probesOf(counterfact)).toEqual([
      'reliability/prompt* Ada Quill was born in -> Orrin (Velm)',
      'generalization/paraphrase* It rained. Ada Quill comes from -> Orrin (Velm)',
      'locality/neighbourhood Bo Tarn was born in -> Velm (Orrin)',
      'locality/attribute Cy Umber was born in -> Orrin (Velm)',
      "portability/one_hop* Which river runs through Ada Quill's home? -> Sull",
      'fluency/generation Write a short paragraph that begins with these words: Ada Quill lives in -> ',
    ])
  })

  it("ROME's original file has no portability, and its request alone no probes but itself", () => {
    const { portability: _, attribute_prompts: __, generation_prompts: ___, ...original } = counterfact
    expect(probesOf(original).map((line) => line.split(/[* ]/)[0])).toEqual([
      'reliability/prompt',
      'generalization/paraphrase',
      'locality/neighbourhood',
    ])
    expect(probesOf(rewrite)).toEqual(['reliability/prompt* Ada Quill was born in -> Orrin (Velm)'])
  })

  it('CounterFact, flat', () => {
    const flat = {
      subject: 'Ada Quill',
      prompt: 'Ada Quill was born in',
      target_new: 'Orrin',
      ground_truth: 'Velm',
      rephrase_prompt: 'Ada Quill hails from',
      locality_prompt: 'Bo Tarn was born in',
      locality_ground_truth: 'Velm',
    }
    expect(probesOf(flat)).toEqual([
      'reliability/prompt* Ada Quill was born in -> Orrin (Velm)',
      'generalization/rephrase* Ada Quill hails from -> Orrin (Velm)',
      'locality/neighbourhood Bo Tarn was born in -> Velm (Orrin)',
    ])
  })

  it('zsRE: the mark before out-of-scope questions is scored as published, and not asked', () => {
    const record = {
      subject: 'Ada Quill',
      src: 'Where was Ada Quill born?',
      pred: 'x',
      rephrase: 'Which town is Ada Quill from?',
      alt: 'Orrin',
      answers: ['Velm'],
      loc: 'nq question: who rang the bell',
      loc_ans: 'Bo',
      cond: '',
      portability: { 'New Question': 'Which river is there?', 'New Answer': 'Sull' },
    }
    expect(probesOf(record)).toEqual([
      'reliability/prompt* Where was Ada Quill born? -> Orrin (Velm)',
      'generalization/rephrase* Which town is Ada Quill from? -> Orrin (Velm)',
      'locality/natural_questions who rang the bell -> Bo',
      'portability/one_hop* Which river is there? -> Sull',
    ])
    expect(read(record).records[0]?.probes[2]?.forcedText).toBe('nq question: who rang the bell')
  })

  it('KnowEdit: answers as text, list or list of lists; empty ones ask nothing', () => {
    const record = {
      subject: 'Ada Quill',
      prompt: 'The home of Ada Quill is',
      target_new: 'Orrin',
      portability: {
        Reasoning: [{ prompt: 'The river of the home of Ada Quill is', ground_truth: [['Sull', 'River Sull']] }],
        Subject_Aliasing: [{ prompt: 'The home of A. Quill is', ground_truth: 'Orrin' }],
        Logical_Generalization: [{ prompt: 'Ada Quill lives on', ground_truth: [[], []] }],
      },
      locality: {
        Relation_Specificity: [{ prompt: 'The trade of Ada Quill is', ground_truth: [['cooper'], ['smith', 'blacksmith']] }],
        Forgetfulness: [{ prompt: 'The home of Ada Quill, which is not Orrin, is', ground_truth: [[]] }],
      },
    }
    expect(probesOf(record)).toEqual([
      'reliability/prompt* The home of Ada Quill is -> Orrin',
      'portability/reasoning* The river of the home of Ada Quill is -> Sull|River Sull',
      'portability/subject_aliasing* The home of A. Quill is -> Orrin',
      'locality/relation_specificity The trade of Ada Quill is -> cooper|smith|blacksmith',
      'locality/forgetfulness The home of Ada Quill, which is not Orrin, is -> ',
    ])
  })

  it("EasyEdit's own requests hold one question where KnowEdit holds lists", () => {
    const record = {
      prompt: 'The home of Ada Quill is',
      target_new: 'Orrin',
      ground_truth: 'Velm',
      subject: 'Ada Quill',
      rephrase_prompt: 'Ada Quill lives in',
      locality: { other: { prompt: 'Bo lives in', ground_truth: 'Velm' } },
      portability: { hop: { prompt: ['One?', 'Two?'], ground_truth: ['1', '2'] } },
    }
    expect(probesOf(record)).toEqual([
      'reliability/prompt* The home of Ada Quill is -> Orrin (Velm)',
      'generalization/rephrase* Ada Quill lives in -> Orrin (Velm)',
      'portability/hop* One? -> 1',
      'portability/hop* Two? -> 2',
      'locality/other Bo lives in -> Velm',
    ])
  })

  it('MQuAKE: several wordings want the edits of all hops; a hop that no edit states is out of scope', () => {
    const record = {
      case_id: 1,
      requested_rewrite: [{ ...rewrite, question: 'Where was Ada Quill born?' }],
      questions: ['Which river is at the birthplace of Ada Quill?', 'Ada Quill was born on which river?'],
      answer: 'Old',
      answer_alias: [],
      new_answer: 'Sull',
      new_answer_alias: ['River Sull'],
      new_single_hops: [
        { question: 'Where was Ada Quill born?', cloze: 'Ada Quill was born in', answer: 'Orrin', answer_alias: ['Orrin Town'] },
        { question: 'Which river is in Orrin?', cloze: 'The river in Orrin is', answer: 'Sull', answer_alias: [] },
      ],
    }
    expect(probesOf(record)).toEqual([
      'reliability/prompt* Ada Quill was born in -> Orrin|Orrin Town (Velm)',
      'reliability/question* Where was Ada Quill born? -> Orrin|Orrin Town (Velm)',
      'multi_hop/2_hops* Which river is at the birthplace of Ada Quill? -> Sull|River Sull',
      'multi_hop/2_hops* Ada Quill was born on which river? -> Sull|River Sull',
      'locality/single_hop Which river is in Orrin? -> Sull',
    ])
  })

  it('WikiFactDiff', () => {
    const record = {
      case_id: 1,
      subject: 'Orrin',
      src: 'The mayor of Orrin is',
      rephrase: 'Orrin is led by',
      alt: 'Bo',
      old: 'Cy',
      loc: 'The mayor of Velm is',
      loc_ans: 'Dee',
    }
    expect(probesOf(record)).toEqual([
      'reliability/prompt* The mayor of Orrin is -> Bo (Cy)',
      'generalization/rephrase* Orrin is led by -> Bo (Cy)',
      'locality/neighbourhood The mayor of Velm is -> Dee (Bo)',
    ])
    expect(probesOf({ ...record, loc: '', loc_ans: '' })).toHaveLength(2)
  })

  it('ConflictEdit: the later of two edits of one fact is wanted', () => {
    const edit = (from: string, to: string) => ({
      relation: { id: 'P6', prompt: 'The mayor of {} is', query: 'Who leads {}?' },
      subject: { label: 'Orrin' },
      object: { label: from },
      new_object: { label: to },
    })
    const { records } = read({ type: 'coverage', triples: [], edits: [edit('Cy', 'Bo'), edit('Bo', 'Dee')] })
    expect(records[0]?.probes.map(short)).toEqual([
      'reliability/prompt* The mayor of Orrin is -> Dee (Bo)',
      'generalization/query* Who leads Orrin? -> Dee (Bo)',
    ])
    expect(records[0]?.probes[0]?.wants).toEqual([records[0]?.edits[1]?.id])
  })

  it('names every fault by record and field, and takes nothing', () => {
    const broken = [
      counterfact,
      { ...counterfact, paraphrase_prompts: 'one' },
      { ...counterfact, neighborhood_prompts: ['fine', 3], portability: { 'New Question': 'q?' } },
    ]
    expect(problemsOf(() => read(...broken))).toEqual([
      { index: 1, field: 'paraphrase_prompts', message: 'expected a list of texts, got "one"' },
      { index: 2, field: 'neighborhood_prompts.1', message: 'expected a text, got 3' },
      { index: 2, field: 'portability.New Answer', message: 'is missing; expected a text' },
    ])
    expect(() => read(...broken)).toThrow(
      /^made-up\.json has 3 problems in 3 records, .* record 2, paraphrase_prompts: expected a list of texts/,
    )
  })

  it('says where a truncated file stops', () => {
    const cut = JSON.stringify([counterfact, counterfact], null, 1).slice(0, -20)
    const [problem] = problemsOf(() => readDataset(cut, 'cut.json'))
    expect(problem?.line).toBeGreaterThan(30)
    expect(problem?.message).toMatch(/^record 2 is cut off or broken; not JSON: /)
  })
})

describe('traffic', () => {
  const file = (...lines: unknown[]) => {
    const folder = mkdtempSync(join(tmpdir(), 'palimpsest-traffic-'))
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
    const path = join(folder, 'some.jsonl')
    writeFileSync(path, lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'))
    return path
  }

  it('reads questions, conversations and multiple choice', () => {
    const { probes, notes } = readTrafficFile(
      file(
        { question: 'who?', answer: ['Bo'] },
        { turns: ['one', 'two'] },
        { question: 'pick', choices: ['x', 'y'], answer: 'B' },
      ),
    )
    expect(probes.map(short)).toEqual([
      'traffic/some who? -> Bo',
      'traffic/some one -> ',
      'traffic/some one // two -> ',
      'choice/some pick\nA. x\nB. y\nAnswer with one letter only. -> B',
    ])
    expect(notes).toEqual([])
  })

  it('leaves out one stray broken line and says which; refuses wrong fields', () => {
    const { probes, notes } = readTrafficFile(file({ question: 'a' }, '{"question": "b', { question: 'c' }))
    expect(probes).toHaveLength(2)
    expect(notes).toEqual(['some.jsonl: line 2 is no JSON and is left out'])
    expect(problemsOf(() => readTrafficFile(file({ question: 'a' }, { text: 'b' })))).toMatchObject([
      { line: 2, field: 'question' },
    ])
    expect(problemsOf(() => readTrafficFile(file({ question: 'a', choices: ['x', 'y'], answer: 'Q' })))).toMatchObject([
      { line: 1, field: 'answer' },
    ])
    expect(problemsOf(() => readTrafficFile(file('{', '{', '{"question": "a"}')))).toHaveLength(2)
  })
})
