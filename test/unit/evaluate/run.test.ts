import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { METHODS, type Method, misfit } from '../../../src/evaluate/methods/methods.ts'
import { isIdentical, isRight } from '../../../src/evaluate/metrics/outcomes.ts'
import { forcedRows, generatedRows, type Row } from '../../../src/evaluate/metrics/scores.ts'
import { type AnswerFile, openAnswers } from '../../../src/evaluate/protocols/answers.ts'
import { chooseProbes, type RunOptions, run } from '../../../src/evaluate/run.ts'
import type { Trial } from '../../../src/evaluate/trial.ts'
import { copyingScorer, type TrialWish, town, towns, trialOn } from '../../support/evaluate-fixture.ts'

const data = towns(town('Orrin', 'Bo Tarn', 'Cy Umber'), town('Velm', 'Dee Ost', 'Ef Lund'))
/** Says what it is told in a fact or a demonstration, else that it does not know. */
const reply: TrialWish['reply'] = ({ messages }) => {
  const text = messages.map(({ content }) => content).join('\n')
  const told = [...text.matchAll(/The mayor of (\w+) is ((?:Bo|Dee) \w+)/g)].at(-1)
  return told === null || told === undefined ? 'I do not know.' : `It is ${told[2]}.`
}

function answersAt(resume = false, folder = mkdtempSync(join(tmpdir(), 'palimpsest-answers-'))): AnswerFile & { folder: string } {
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return { ...openAnswers(join(folder, 'answers.jsonl'), resume), folder }
}

const options = (trial: Trial, answers: AnswerFile, more: Partial<RunOptions> = {}): RunOptions => ({
  ...{
    trial,
    answers,
    methods: ['base', 'ice', 'cosine', 'palimpsest'],
    protocols: ['generated'],
    circumstances: () => ({ model: 'x' }),
  },
  ...{ tick: () => undefined, signal: new AbortController().signal, ...more },
})
const value = (rows: readonly Row[], id: string, method: Method) => rows.find((row) => row.id === id)?.values[method]?.value

describe('a run', () => {
  it('asks base once, and takes its answer where a method renders the base prompt', async () => {
    const trial = await trialOn(data, { reply })
    const { outcomes } = await run(options(trial, answersAt()))
    const [first] = outcomes
    expect(first?.generated.base?.text).toBe('I do not know.')
    expect(first?.generated.palimpsest).toMatchObject({ text: 'I do not know.', reused: true, edits: [], tokensAdded: 0 })
    expect(first?.generated.ice).toMatchObject({ text: 'It is Bo Tarn.', reused: false })
    expect(first?.generated.ice?.tokensAdded).toBeGreaterThan(0)
    const asked = trial.asked.filter((text) => text === 'The mayor of Orrin is')
    expect(asked).toHaveLength(1)
  })

  it('asks again when told not to reuse', async () => {
    const trial = await trialOn(data, { reply, reuse: false })
    const { outcomes } = await run(options(trial, answersAt(), { methods: ['base', 'palimpsest'] }))
    expect(trial.asked.filter((text) => text === 'The mayor of Orrin is')).toHaveLength(2)
    expect(outcomes.every((outcome) => isIdentical(outcome, 'palimpsest') === true)).toBe(true)
  })

  it('shows ICE its own edit on locality probes, too, which costs it locality', async () => {
    const trial = await trialOn(data, { reply })
    const { outcomes } = await run(options(trial, answersAt()))
    const rows = generatedRows({ outcomes, methods: ['base', 'ice', 'palimpsest'], seed: 0 })
    expect(value(rows, 'reliability', 'ice')).toBe(1)
    expect(value(rows, 'reliability', 'base')).toBe(0)
    expect(value(rows, 'locality/identical', 'ice')).toBe(0)
    expect(value(rows, 'locality/identical', 'palimpsest')).toBe(1)
    expect(value(rows, 'harmonic/identical', 'ice')).toBe(0)
    expect(value(rows, 'fired/locality', 'ice')).toBe(1)
    expect(value(rows, 'fired/locality', 'palimpsest')).toBe(0)
  })

  it('shows IKE demonstrations of other records in turns, its own edit last, as many as fit', async () => {
    const many = towns(
      ...Array.from({ length: 20 }, (_, i) => town(`Town${i}`, 'Dee Ost', 'Ef Lund')),
      town('Orrin', 'Bo Tarn', 'Cy Umber'),
    )
    const trial = await trialOn(many, { reply })
    const probes = trial.probes.filter(({ record }) => record === 20)
    const { outcomes } = await run(options({ ...trial, probes }, answersAt(), { methods: ['base', 'ike'] }))
    const ike = outcomes[0]?.generated.ike
    expect(ike).toMatchObject({ demonstrations: 20, text: 'It is Bo Tarn.' })
    const prompt = trial.asked.find((text) => text.includes('New Fact')) ?? ''
    expect(prompt.split('New Fact: ').slice(1)).toHaveLength(22)
    expect(
      prompt.endsWith(
        'New Fact: The mayor of Orrin is Bo Tarn\nPrompt: The mayor of Orrin is\nBo Tarn\nNew Fact: The mayor of Orrin is Bo Tarn\nPrompt: The mayor of Orrin is',
      ),
    ).toBe(true)
    const small = await trialOn(many, { reply, contextTokens: 400 })
    const cut = await run(
      options({ ...small, probes: small.probes.filter(({ record }) => record === 20) }, answersAt(), {
        methods: ['base', 'ike'],
      }),
    )
    const shown = cut.outcomes[0]?.generated.ike?.demonstrations ?? 0
    expect(shown).toBeGreaterThan(3)
    expect(shown).toBeLessThan(20)
  })

  it('MeLLo: subquestion, nearest edit, final answer, within its steps', async () => {
    const record = {
      requested_rewrite: [
        {
          prompt: 'The mayor of {} is',
          relation_id: 'P6',
          subject: 'Orrin',
          target_new: { str: 'Bo Tarn' },
          target_true: { str: 'Cy' },
          question: 'Who is the mayor of Orrin?',
        },
      ],
      questions: ['Where was the mayor of Orrin born?', 'In which town was the mayor of Orrin born?'],
      new_answer: 'Velm',
      new_answer_alias: [],
    }
    const dataset = towns(record)
    const steps = ['Subquestion: Who is the mayor of Orrin?\nGuess: Cy', 'So far: Bo Tarn\nFinal answer: Velm\nmore']
    let step = 0
    const trial = await trialOn(dataset, {
      reply: ({ messages }) => (messages.length > 3 ? (steps[step++ % 2] ?? '') : 'no idea'),
    })
    const { outcomes } = await run(options(trial, answersAt(), { methods: ['base', 'mello'] }))
    const asked = outcomes.filter(({ probe }) => probe.kind === 'multi_hop')
    expect(asked[0]?.generated.mello).toMatchObject({ text: 'Velm', steps: 1, edits: [dataset.records[0]?.edits[0]?.id] })
    expect(trial.asked.some((text) => text.endsWith('Retrieved fact: The mayor of Orrin is Bo Tarn.'))).toBe(true)
    expect(
      outcomes.filter(({ probe }) => probe.kind !== 'multi_hop').every(({ generated }) => generated.mello === undefined),
    ).toBe(true)
    const rows = generatedRows({ outcomes, methods: ['base', 'mello'], seed: 0 })
    expect(value(rows, 'multi_hop', 'mello')).toBe(1)
    expect(value(rows, 'multi_hop', 'base')).toBe(0)
    const endless = await trialOn(dataset, { reply: ({ messages }) => (messages.length > 3 ? 'Subquestion: again?' : 'no idea') })
    const { outcomes: bounded } = await run(options(endless, answersAt(), { methods: ['base', 'mello'] }))
    expect(bounded.find(({ probe }) => probe.kind === 'multi_hop')?.generated.mello?.steps).toBe(endless.limits.melloSteps)
  })

  it('samples the texts whose fluency is measured from the five likeliest tokens, and answers greedily', async () => {
    const seen: unknown[] = []
    const trial = await trialOn(data, {
      reply: (prompt, { temperature, topK = null, seed }) => {
        seen.push([temperature, topK, typeof seed])
        return reply(prompt, { temperature, topP: 1, stop: [] })
      },
    })
    const [first, second] = trial.probes
    if (first === undefined || second === undefined) throw new Error('expected two probes')
    const probes = [{ ...first, kind: 'fluency' as const, wants: [], answers: [] }, second]
    await run(options({ ...trial, probes }, answersAt(), { methods: ['base'] }))
    expect(seen).toEqual([
      [1, 5, 'number'],
      [0, null, 'number'],
    ])
  })

  it('a resumed run asks nothing that has been answered, and goes on after a torn line', async () => {
    const answers = answersAt()
    const stop = new AbortController()
    const first = await trialOn(data, {
      reply: (prompt, sampling) => {
        if (first.asked.length > 3) stop.abort(new Error('stop'))
        return reply(prompt, sampling)
      },
    })
    await expect(run(options(first, answers, { signal: stop.signal }))).rejects.toThrow('stop')
    const kept = readFileSync(answers.path, 'utf8').trim().split('\n').length
    expect(kept).toBeGreaterThan(2)
    appendFileSync(answers.path, '{"key":"torn')
    const second = await trialOn(data, { reply })
    const resumed = await run(options(second, answersAt(true, answers.folder)))
    expect(resumed.resumed).toBe(kept)
    const again = await trialOn(data, { reply })
    const third = await run(options(again, answersAt(true, answers.folder)))
    expect(again.asked).toEqual([])
    expect(third.outcomes.map(({ generated }) => generated)).toEqual(resumed.outcomes.map(({ generated }) => generated))
    const lines = () => readFileSync(answers.path, 'utf8').trim().split('\n').length
    const before = lines()
    const other = await trialOn(data, { reply })
    await run(options(other, answersAt(true, answers.folder), { circumstances: () => ({ model: 'y' }) }))
    expect(lines()).toBe(2 * before)
    const ofOne = await trialOn(data, { reply })
    const circumstances = (method: Method) => ({ model: method === 'palimpsest' ? 'z' : 'x' })
    const { outcomes, resumed: untouched } = await run(options(ofOne, answersAt(true, answers.folder), { circumstances }))
    expect(untouched).toBe(before - outcomes.filter(({ generated }) => generated.palimpsest !== undefined).length)
  })
})

describe('teacher forcing', () => {
  it('puts edits in front as sentences, and compares with the rival', async () => {
    const scorer = copyingScorer()
    const trial = await trialOn(data, { reply, scorer })
    const { outcomes } = await run(options(trial, answersAt(), { protocols: ['forced'], methods: ['base', 'ice', 'palimpsest'] }))
    expect(scorer.scored).toContain('The mayor of Orrin is Bo Tarn.\nThe mayor of Orrin is')
    const rows = forcedRows({ outcomes, methods: ['base', 'ice', 'palimpsest'], seed: 0 })
    // Base: neither answer is in the prompt, so both have 1/8; ICE: 1/2 against 1/8.
    expect(value(rows, 'reliability/prompt/success', 'base')).toBe(0)
    expect(value(rows, 'reliability/prompt/success', 'ice')).toBe(1)
    expect(value(rows, 'reliability/prompt/magnitude', 'ice')).toBeCloseTo(0.5 - 0.125)
    expect(value(rows, 'reliability/prompt/accuracy', 'ice')).toBe(1)
    // Neighbours: the true answer has 1/8, the edit's target 1/2 where ICE shows it.
    expect(value(rows, 'locality/neighbourhood/success', 'ice')).toBe(0)
    expect(value(rows, 'locality/neighbourhood/magnitude', 'ice')).toBeCloseTo(0.125 - 0.5)
    expect(value(rows, 'locality/neighbourhood/agreement', 'palimpsest')).toBe(1)
    expect(outcomes[0]?.forced.palimpsest?.reused).toBe(true)
  })
})

describe('what is asked', () => {
  it('is drawn by the seed; records whose edit is superseded are passed over', () => {
    const many = towns(...Array.from({ length: 30 }, (_, i) => town(`Town${i}`, 'Bo', 'Cy')))
    const live = new Map(many.records.slice(1).flatMap(({ edits }) => edits.map((edit) => [edit.id, edit])))
    const choice = { limit: 5, perKind: 1, trafficLimit: 0, seed: 1 }
    const chosen = chooseProbes(many.records, [], live, choice)
    expect(chosen).toEqual(chooseProbes(many.records, [], live, choice))
    expect(chosen.passedOver).toBe(1)
    const asked = new Set(chosen.probes.map(({ record }) => record))
    expect(asked.size).toBe(5)
    expect(asked.has(0)).toBe(false)
    expect(chooseProbes(many.records, [], live, { ...choice, seed: 2 }).probes).not.toEqual(chosen.probes)
  })

  it('a method that does not fit the data says why', () => {
    expect(METHODS.filter((method) => misfit(method, data) !== null)).toEqual(['mello'])
    expect(misfit('mello', data)).toBe('mello answers multi-hop questions, and towns.json has none (MQuAKE has)')
    const bare = towns(
      { subject: 'Orrin', prompt: 'The mayor of Orrin is', target_new: 'Bo' },
      { subject: 'Velm', prompt: 'The mayor of Velm is', target_new: 'Bo' },
    )
    expect(misfit('ike', bare)).toMatch(/restate an edit .* and that stay as they are/)
  })

  it('an answer is judged against what the model was told', async () => {
    const trial = await trialOn(towns(town('Orrin', 'Orrin Tarn', 'Cy')), { reply: () => 'Orrin is a town.' })
    const { outcomes } = await run(options(trial, answersAt(), { methods: ['base', 'ice'] }))
    expect(isRight(outcomes[0] as never, 'ice')).toBe(false)
  })
})
