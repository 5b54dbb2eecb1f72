import { describe, expect, it } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import type { TextPair } from '../../../src/engine/engine.ts'
import { type LandingReport, landingReport, REPORT_LIMITS } from '../../../src/selection/landing-check.ts'
import { edit, memory, POST, READ_CALIBRATION } from '../../support/memory-fixture.ts'

const TOPICS = [/work|pay|employ/i, /live|home/i, /refund|money back/i, /bread/i]
const topicOf = (text: string) => TOPICS.findIndex((topic) => topic.test(text))
/** An edit is needed where the text is of its topic; one that says "anything" is, everywhere. */
const byTopic = async (pairs: readonly TextPair[]) =>
  Float32Array.from(pairs, ([text, stated]) => (/anything/.test(stated) || topicOf(text) === topicOf(stated) ? 5 : -5))
/** Any two texts are as close as can be. */
const close = async (texts: readonly string[]) => texts.map(() => Float32Array.of(1))

async function report(batch: readonly Edit[], held: readonly Edit[] = [], read = byTopic, embed = close): Promise<LandingReport> {
  const store = await memory()
  if (held.length > 0) await store.land(held, POST)
  const { results } = await store.land(batch, { ...POST, dryRun: true })
  const live = held.map(({ id }) => ({ editId: id, similarity: 1 }))
  const search = () => live.filter(({ editId }) => store.heldAt('default', editId, 1_000))
  return landingReport({
    edits: batch,
    results,
    calibration: READ_CALIBRATION,
    read,
    embed,
    search,
    held: (id) => store.get('default', id),
  })
}

/** `kind edit / other` of each finding. */
const told = ({ findings }: LandingReport) =>
  findings.map(
    ({ kind, edit, other }) =>
      `${kind} ${edit.id}${other === null ? '' : ` / ${other.id}${other.index === null ? ' held' : ''}`}`,
  )

const ada = (id: string, prompt: string, targetNew = id, over: Partial<Edit> = {}) =>
  edit(id, { subject: 'Ada Quist', prompt, targetNew, ...over })

describe('an edit in its own words', () => {
  it('that applies is not worth a word', async () => {
    expect(told(await report([ada('a', 'Ada Quist works for', 'a', { paraphrases: ['Who pays Ada Quist?'] })]))).toEqual([])
  })

  it('is missed by its prompt, a paraphrase or an example', async () => {
    const never = async (pairs: readonly TextPair[]) => new Float32Array(pairs.length).fill(-5)
    expect(told(await report([ada('a', 'Ada Quist works for')], [], never))).toEqual(['misses_own_prompt a'])
    const odd = ada('a', 'Ada Quist works for', 'a', {
      paraphrases: ['Where is her home?'],
      examples: ['Her boss?', 'Who pays her?'],
    })
    const found = await report([odd])
    expect(told(found)).toEqual(['misses_paraphrase a', 'misses_paraphrase a'])
    expect(found.findings[0]?.message).toContain('Where is her home?')
  })

  it('names its subject, or an alias, in the prompt', async () => {
    expect(told(await report([ada('a', 'The employer is')]))).toEqual(['subject_not_in_prompt a'])
    expect(told(await report([ada('a', 'AQ works for', 'a', { aliases: ['AQ'] })]))).toEqual([])
    const sentence = ada('a', 'The employer is Firm A.', '', { kind: 'sentence' })
    expect(told(await report([sentence, edit('b', { subject: '', prompt: 'The refund takes', targetNew: '5 days' })]))).toEqual(
      [],
    )
  })

  it('does not apply to what has nothing to do with it', async () => {
    expect(told(await report([ada('a', 'Ada Quist bakes anything', 'bread')]))).toContain('fires_on_everyday a')
    const bread = ada('b', 'Ada Quist bakes bread in')
    expect(told(await report([bread, ada('a', 'Ada Quist lives in')]))).toEqual([])
    expect(told(await report([bread, ada('a', 'Ada Quist lives for anything')]))).toContain('fires_on_other a / b')
  })

  it('is not asked of a rule for every message', async () => {
    const never = async (pairs: readonly TextPair[]) => new Float32Array(pairs.length).fill(-5)
    const always = edit('r', { kind: 'rule', always: true, subject: '', prompt: '', targetNew: 'Be brief.' })
    expect(told(await report([always], [], never))).toEqual([])
  })
})

describe('a batch against itself', () => {
  it('names contradictions in equal and in other words, and duplicates', async () => {
    const batch = [
      ada('a', 'The employer of Ada Quist is'),
      ada('b', "What is Ada Quist's employer?"),
      ada('c', 'Ada Quist works for'),
      { ...ada('c', 'Ada Quist works for') },
    ]
    expect(told(await report(batch)).toSorted()).toEqual([
      'conflict b / a',
      'conflict_in_other_words c / a',
      'conflict_in_other_words c / b',
      'duplicate c / c',
    ])
  })

  it('lets be what says the same, holds at another time, or is of another subject or model', async () => {
    const batch = [
      ada('a', 'Ada Quist works for', 'Kolt', { validTo: 5 }),
      ada('b', 'Who pays Ada Quist?', 'Brun', { validFrom: 5 }),
      ada('c', 'Ada Quist is employed at', 'brun', { validFrom: 9 }),
      ada('d', 'Ada Quist works for', 'Sten', { models: ['other'] }),
      ada('e', 'Who employs Ada Quist?', 'Lom', { models: ['another'] }),
      edit('f', { subject: 'Bea Quist', prompt: 'Who pays Bea Quist?' }),
    ]
    expect(told(await report(batch))).toEqual([])
  })

  it('knows the subject by an alias that is the other’s name', async () => {
    const batch = [ada('a', 'Ada Quist works for'), edit('b', { subject: 'AQ', aliases: ['ada quist'], prompt: 'Who pays AQ?' })]
    expect(told(await report(batch))).toContain('conflict_in_other_words b / a')
  })

  it('does not take C, C++ and C# for one another', async () => {
    const about = (id: string, subject: string) => edit(id, { subject, prompt: `The home of ${subject} is`, targetNew: id })
    expect(told(await report([about('c', 'C'), about('cpp', 'C++'), about('sharp', 'C#')]))).toEqual([])
  })
})

describe('a batch against memory', () => {
  it('tells what gives way now from what is left out when asked', async () => {
    const held = [ada('old', 'Ada Quist works for'), ada('other', 'Who pays Ada Quist?'), ada('sibling', 'Ada Quist lives in')]
    const found = await report([ada('new', 'Ada Quist works for')], held)
    expect(told(found).toSorted()).toEqual(['outdates new / other held', 'supersedes new / old held'])
    expect(found.counts).toMatchObject({ supersedes: 1, outdates: 1, conflict: 0 })
    expect(found.pairs).toEqual({ compared: 1, left: 0 })
  })

  it('stands without a reader, and says that wordings were not read', async () => {
    const held = [ada('old', 'Ada Quist works for')]
    const found = await report([ada('new', 'Ada Quist works for')], held, () => Promise.reject(new Error('no reader')))
    expect(told(found)).toEqual(['supersedes new / old held'])
    expect(found).toMatchObject({ fault: 'no reader', pairs: { compared: 0, left: 1 } })
  })

  it('reads a bounded number of edits, and says how many it left', async () => {
    const count = REPORT_LIMITS.readEdits + 30
    const many = Array.from({ length: count }, (_, i) => edit(`e${i}`, { subject: `T${i}`, prompt: `The home of T${i} is` }))
    const found = await report(many)
    expect(found.pairs).toEqual({ compared: REPORT_LIMITS.readEdits, left: 30 })
  })
})
