import { describe, expect, it } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import type { Outcome } from '../../../src/evaluate/metrics/outcomes.ts'
import type { Generated } from '../../../src/evaluate/protocols/generated.ts'
import { refuseOthers, requestOf } from '../../../src/handoff/exchange/easyedit-export.ts'
import { chooseEdits, liveEdits, notTaken } from '../../../src/handoff/exchange/edit-query.ts'
import { type HandoffMethod, THRESHOLDS } from '../../../src/handoff/job.ts'
import { judge } from '../../../src/handoff/stages/judge.ts'
import { cloze, messagesOf, taughtBy } from '../../../src/handoff/stages/messages.ts'
import { probesOf, stillPrompts, TRAINED } from '../../../src/handoff/stages/probes.ts'
import { workerEdit } from '../../../src/handoff/stages/stages.ts'
import type { MemoryStore } from '../../../src/memory/memory-store.ts'
import { fact } from '../../support/memory-data.ts'

const about = fact(0, { id: 'f', subject: 'Ada', prompt: 'Ada works for', targetNew: 'Rome', paraphrases: ['Whom?'] })
const bare = fact(0, { id: 'b', subject: '', prompt: 'Who won? It was', targetNew: 'Rome', paraphrases: [] })
const rule = fact(0, {
  ...{ id: 'r', kind: 'rule', subject: '', prompt: 'When someone wants a refund', targetNew: 'Be kind.', paraphrases: [] },
  ...{ examples: ['Money back!', 'Refund?', 'Third?'], counterexamples: ['What is a refund?', 'Money back!'] },
})
const untaught = fact(0, { id: 'u', kind: 'rule', subject: '', prompt: 'When it rains', targetNew: 'Be kind.', paraphrases: [] })
const always = fact(0, { id: 'a', kind: 'rule', subject: '', prompt: '', always: true, targetNew: 'Be brief.', paraphrases: [] })
const sentence = fact(0, {
  ...{ id: 's', kind: 'sentence', subject: 'shop', prompt: 'The shop opens at nine today.', targetNew: '', paraphrases: ['x'] },
})
const all: readonly Edit[] = [about, bare, rule, untaught, always, sentence]

const holding = (edits: readonly Edit[]) =>
  ({ list: () => ({ edits: edits.map((edit) => ({ edit })), nextCursor: null }) }) as unknown as MemoryStore
const choose = (edits: readonly Edit[], method: HandoffMethod) => chooseEdits(holding(edits), 'default', {}, method, 'm', 10)

describe('which method takes which edits', () => {
  it.each<[HandoffMethod, string[]]>([
    ['memit', ['b', 'r', 'u', 'a', 's']],
    ['alphaedit', ['b', 'r', 'u', 'a', 's']],
    ['pmet', ['b', 'r', 'u', 'a', 's']],
    ['lora', ['u']],
    ['distil', []],
  ])('%s does not take %j', (method, ids) => {
    expect(notTaken(all, method).edits.map(({ id }) => id)).toEqual(ids)
    expect(liveEdits(holding([...all].reverse()), 'default', {}, 'm')).toEqual(all)
  })

  it('is said by the ids, with a way out', () => {
    const refusal = (method: HandoffMethod) => {
      try {
        choose(all, method)
      } catch (error) {
        return error
      }
      return null
    }
    for (const method of ['memit', 'alphaedit', 'pmet'] as const)
      expect(refusal(method)).toMatchObject({
        ...{ code: 'invalid_value', param: 'edits' },
        message: expect.stringMatching(
          new RegExp(
            `${method} places one answer at one subject.*lora or distil.*s \\(a sentence\\), a \\(a rule\\).*r \\(a rule\\), b \\(a fact without a subject\\)`,
          ),
        ),
      })
    expect(refusal('lora')).toMatchObject({ message: expect.stringMatching(/`examples`.*Not taken: u \(a rule\)\.$/) })
    expect(choose([about], 'memit').edits).toEqual([about])
    expect(choose([bare, rule, always, sentence], 'lora').edits).toHaveLength(4)
    expect(choose(all, 'distil').notes).toEqual([expect.stringMatching(/^rule u has no examples/)])
  })
})

describe('an edit without a target', () => {
  it('has messages that need it', () => {
    expect([about, bare, rule, untaught, always, sentence].map(messagesOf)).toEqual([
      ['Ada works for', 'Whom?'],
      ['Who won? It was'],
      ['Money back!', 'Refund?', 'Third?'],
      ['Suppose this: it rains. What do you answer?'],
      [],
      ['Complete this sentence: The shop opens …'],
    ])
    expect(cloze('One two three.')).toEqual({ prompt: 'One', targetNew: 'two three' })
  })

  it('goes to the editor as what it is', () => {
    expect(workerEdit(about)).toMatchObject({ subject: 'Ada', paraphrases: ['Whom?'] })
    expect(workerEdit(about)).not.toHaveProperty('kind')
    expect(workerEdit({ ...about, prompt: 'She works for' }).subject).toBe('')
    expect(workerEdit(sentence)).toEqual({
      ...{ id: 's', kind: 'sentence', subject: 'shop', prompt: 'The shop opens', target_new: 'at nine today', paraphrases: [] },
    })
    expect(workerEdit(rule)).toMatchObject({ kind: 'rule', subject: '', target_new: 'Be kind.', examples: rule.examples })
    expect(workerEdit(always)).toMatchObject({ prompt: '', always: true })
  })

  const settings = { sample_edits: 9, unrelated_questions: 4, fluency_openings: 9, ability_questions: 0, seed: 1 }
  const probes = (edits: readonly Edit[], others: readonly Edit[] = []) => probesOf({ edits, others, records: [], settings })

  it('is asked by its examples, and no question is empty', () => {
    const made = probes([about, bare, rule, untaught, sentence], [always, rule])
    expect(made.flatMap(({ turns }) => turns).every((turn) => /\w/.test(turn) && !/about \./.test(turn))).toBe(true)
    expect(made.filter(({ sub }) => sub === 'example').map(({ id, answers }) => [id, answers])).toEqual(
      expect.arrayContaining([
        ['r/reliability/example/0', []],
        ['r/reliability/example/1', []],
        ['u/reliability/example/0', []],
        ['s/reliability/example/0', []],
      ]),
    )
    expect(
      made
        .filter(({ sub }) => sub === 'prompt')
        .map(({ wants }) => wants[0])
        .sort(),
    ).toEqual(['b', 'f'])
    expect(made.filter(({ sub }) => sub === 'other_edits').map(({ turns }) => turns[0])).toEqual(['Money back!'])
  })

  it('holds still what looks like it and is not', () => {
    expect(stillPrompts([], 1, [rule])).toEqual([...TRAINED, 'What is a refund?'])
    expect(stillPrompts([about], 1, [rule, always])).toEqual(['What is a refund?'])
    expect(stillPrompts([always], 1)).toEqual(TRAINED)
  })

  const many = fact(0, {
    ...{ id: 'm', kind: 'rule', subject: '', prompt: 'When it snows', targetNew: 'Be warm.', paraphrases: [] },
    ...{ examples: ['1', '2', '3', '4', '5'], counterexamples: ['a', 'b', 'c', 'd', '1'] },
  })

  it('keeps every fourth message and near miss for the asking, and teaches none of them', () => {
    expect(taughtBy(many)).toEqual(['1', '2', '3', '5'])
    expect(workerEdit(many).examples).toEqual(['1', '2', '3', '5'])
    expect(stillPrompts([], 1, [many])).toEqual([...TRAINED, 'a', 'b', 'c'])
    const made = probes([many])
    const asked = (kind: string, sub: string) =>
      made.filter((one) => one.kind === kind && one.sub === sub).map(({ turns }) => turns[0])
    expect(asked('reliability', 'example')).toEqual(['1', '2'])
    expect(asked('generalization', 'example')).toEqual(['4'])
    expect(asked('traffic', 'counterexample')).toEqual(['d'])
  })

  it('that holds for every message is asked everyday questions, and none of them is to stay', () => {
    const made = probes([always, about])
    expect(made.filter(({ kind }) => kind === 'traffic')).toEqual([])
    expect(made.filter(({ sub }) => sub === 'example')).toHaveLength(2)
    expect(made.flatMap(({ turns }) => turns).filter((turn) => TRAINED.includes(turn))).toEqual([])
  })

  it('is judged by what the model answers that is told it', () => {
    const said = (text: string): Generated => ({
      ...{ text, finish: 'stop', edits: [], promptTokens: 1, completionTokens: 1, tokensAdded: 0, ms: 1, reused: false },
    })
    const outcome = (id: string, base: string, adapter: string): Outcome => ({
      probe: { id, record: null, kind: 'reliability', sub: 'example', turns: ['Q?'], wants: ['r'], answers: [] },
      ...{ generated: { base: said(base), adapter: said(adapter) }, forced: {}, edits: new Map() },
    })
    const told = new Map([
      ['learnt', 'I am sorry to hear it'],
      ['not', 'I am sorry to hear it'],
      ['same', 'No refunds.'],
    ])
    const outcomes = [
      outcome('learnt', 'No refunds', 'I am sorry'),
      outcome('not', 'No refunds', 'No refunds'),
      outcome('same', 'no refunds', 'anything'),
    ]
    const { measures, failures } = judge(outcomes, { ...THRESHOLDS, reliability: 0.9 }, told)
    expect(measures).toMatchObject([{ name: 'taught', asked: 2, value: 0.5, base: 0, least: 0.9, decided: false }])
    expect(failures).toMatchObject([{ measure: 'taught', expected: 'I am sorry to hear it', answer: 'No refunds' }])
    expect(judge(outcomes, THRESHOLDS).measures).toEqual([])
    const unseen = outcomes.map((one) => ({ ...one, probe: { ...one.probe, kind: 'generalization' as const } }))
    expect(judge(unseen, { ...THRESHOLDS, generalization: 0.9 }, told).measures).toMatchObject([
      { name: 'taught_unseen', asked: 2, value: 0.5 },
    ])
    const near = outcomes.map((one) => ({ ...one, probe: { ...one.probe, kind: 'traffic' as const, sub: 'counterexample' } }))
    expect(judge(near, { ...THRESHOLDS, unchanged: 0.5 }).measures).toMatchObject([
      { name: 'near_misses', asked: 3, value: 1 / 3, least: 0.5 },
    ])
  })
})

describe('EasyEdit', () => {
  it('takes facts with a subject; others are refused by id', () => {
    expect(() => refuseOthers([about])).not.toThrow()
    expect(() => refuseOthers(all)).toThrow(
      /facts with a subject\. Not taken: b \(a fact without a subject\), r \(a rule\), u .*s \(a sentence\)\.$/,
    )
    expect(all.map((edit) => requestOf(edit, []) !== null)).toEqual([true, false, false, false, false, false])
  })
})
