import { describe, expect, it } from 'vitest'
import type { Edit } from '../../src/edit/edit.ts'
import { easyName } from '../../src/memory/easy-names.ts'
import { type LandingReport, landingReport, REPORT_LIMITS } from '../../src/memory/landing-report.ts'
import { mirrorOf } from '../../src/memory/mirror.ts'
import { edit, memory, POST } from './memory-fixture.ts'

/** Any two texts are as close as can be, so that only their words tell them apart. */
const close = async (texts: readonly string[]) => new Map(texts.map((text) => [text, Float32Array.of(1)]))

async function report(batch: readonly Edit[], held: readonly Edit[] = [], embed = close): Promise<LandingReport> {
  const store = await memory()
  if (held.length > 0) store.land(held, POST)
  const { results } = store.land(batch, { ...POST, dryRun: true })
  return landingReport({ edits: batch, results, held: store.all('default'), embed })
}

/** `kind edit / other` of each finding. */
const told = ({ findings }: LandingReport) =>
  findings.map(
    ({ kind, edit, other }) =>
      `${kind} ${edit.id}${other === null ? '' : ` / ${other.id}${other.index === null ? ' held' : ''}`}`,
  )

const ada = (id: string, prompt: string, targetNew = id, over: Partial<Edit> = {}) =>
  edit(id, { subject: 'Ada Quist', prompt, targetNew, ...over })

describe('a batch against itself', () => {
  it('names contradictions in equal and in other words, once each, and duplicates', async () => {
    const batch = [
      ada('a', 'The employer of Ada Quist is'),
      ada('b', "What is Ada Quist's employer?"),
      ada('c', 'Ada Quist is on the payroll of'),
      { ...ada('c', 'Ada Quist is on the payroll of') },
    ]
    expect(told(await report(batch))).toEqual([
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
})

describe('a batch against memory', () => {
  it('tells what gives way now from what is left out when asked', async () => {
    const held = [
      ada('old', 'Ada Quist works for'),
      ada('other', 'Ada Quist is on the payroll of'),
      ada('gone', 'Who pays Ada Quist?'),
    ]
    const found = await report([ada('new', 'Ada Quist works for')], held)
    expect(told(found).toSorted()).toEqual(['outdates new / gone held', 'outdates new / other held', 'supersedes new / old held'])
    expect(found.counts).toMatchObject({ supersedes: 1, outdates: 2, conflict: 0 })
    expect(found.pairs).toEqual({ compared: 2, left: 0 })
  })

  it('stands without vectors, and says that wordings were not compared', async () => {
    const held = [ada('other', 'Ada Quist is on the payroll of'), ada('old', 'Ada Quist works for')]
    const found = await report([ada('new', 'Ada Quist works for')], held, () => Promise.reject(new Error('no embedder')))
    expect(told(found)).toEqual(['supersedes new / old held'])
    expect(found).toMatchObject({ fault: 'no embedder', pairs: { compared: 0, left: 1 } })
  })

  it('compares a bounded number of pairs', async () => {
    const many = Array.from({ length: 230 }, (_, i) => ada(`e${i}`, `Question number ${i} about Ada Quist is`))
    let texts = 0
    const found = await report(many, [], (asked) => {
      texts += asked.length
      return close(asked)
    })
    expect(found.pairs.compared).toBeLessThanOrEqual(REPORT_LIMITS.pairs)
    expect(found.pairs.left).toBeGreaterThan(0)
    expect(texts).toBeLessThanOrEqual(REPORT_LIMITS.texts)
  })
})

describe('relations from the other side', () => {
  const spouse = (id: string, subject: string, targetNew: string) =>
    edit(id, { subject, prompt: `${subject} is married to`, targetNew })

  it('misses the other half of a symmetric pair, and is content with it', async () => {
    expect(told(await report([spouse('a', 'Ada Quist', 'Bo Ek')]))).toEqual(['symmetric_missing a'])
    expect(told(await report([spouse('a', 'Ada Quist', 'Bo Ek'), spouse('b', 'Bo Ek', 'Ada Quist')]))).toEqual([])
    const husband = edit('b', { subject: 'Bo Ek', prompt: 'Who is the wife of Bo Ek?', targetNew: 'Ada Quist' })
    expect(told(await report([spouse('a', 'Ada Quist', 'Bo Ek')], [husband]))).toEqual([])
  })

  it('points at a half that says otherwise, in memory or in the batch', async () => {
    const batch = [spouse('a', 'Ada Quist', 'Bo Ek')]
    expect(told(await report(batch, [spouse('b', 'Bo Ek', 'Cid Alm')]))).toEqual(['symmetric_conflict a / b held'])
    expect(told(await report(batch, [spouse('c', 'Dag Bo', 'Ada Quist')]))).toEqual(['symmetric_conflict a / c held'])
  })

  it('does not take a second neighbour or sibling for a contradiction', async () => {
    const borders = (id: string, subject: string, targetNew: string) =>
      edit(id, { subject, prompt: `${subject} borders`, targetNew })
    const batch = [borders('a', 'Veldt', 'Orrin'), borders('b', 'Orrin', 'Veldt')]
    expect(told(await report(batch, [borders('c', 'Harrow', 'Veldt')]))).toEqual([])
  })

  it('points at inverse statements that do not agree', async () => {
    const book = edit('a', { subject: 'Night of Orm', prompt: 'Night of Orm was written by', targetNew: 'Tilda Varga' })
    const wrote = (id: string, subject: string) =>
      edit(id, { subject, prompt: `${subject} is the author of`, targetNew: 'Night of Orm' })
    expect(told(await report([book], [wrote('x', 'Ines Okoro')]))).toEqual(['inverse_conflict a / x held'])
    expect(told(await report([book], [wrote('x', 'Tilda Varga')]))).toEqual([])
    expect(told(await report([wrote('x', 'Ines Okoro')], [book]))).toEqual(['inverse_conflict x / a held'])
    const capital = edit('c', { subject: 'Veldt', prompt: 'The capital of Veldt is', targetNew: 'Orrin' })
    expect(told(await report([capital]))).toEqual(['inverse_missing c'])
    const is = edit('d', { subject: 'Orrin', prompt: 'Orrin is the capital of', targetNew: 'Veldt' })
    expect(told(await report([capital, is]))).toEqual([])
  })

  it('leaves aside what the batch itself replaces', async () => {
    const held = [spouse('old', 'Ada Quist', 'Cid Alm')]
    expect(told(await report([spouse('new', 'Ada Quist', 'Bo Ek'), spouse('b', 'Bo Ek', 'Ada Quist')], held))).toEqual([
      'supersedes new / old held',
    ])
  })

  it.each([
    ['The predecessor of X is', 'followed', 'is'],
    ['X was succeeded by', 'followed', 'has'],
    ['X follows', 'followed', 'is'],
    ['Who directed X?', 'directed', 'has'],
    ['X is the director of', 'directed', 'is'],
    ['X wrote', 'written', 'is'],
    ['The siblings of X are', undefined, undefined],
    ['The sister of X is', 'sibling', 'both'],
    ['X is a member of', undefined, undefined],
  ])('%s: %s, %s', (prompt, base, side) => {
    expect(mirrorOf(edit('a', { subject: 'X', prompt }))).toEqual(
      base === undefined ? undefined : expect.objectContaining({ base, side }),
    )
  })
})

describe('names that are found too easily', () => {
  it.each([
    ['The Next Day', 'common'],
    ['100 Questions', 'common'],
    ['eggs', 'common'],
    ['The Secret in Their Eyes', undefined],
    ['US', 'short'],
    ['東', 'short'],
    ['東京', undefined],
    ['Intel', undefined],
    ['Time Lords of Orm', undefined],
  ])('%s: %s', (name, expected) => {
    expect(easyName(name)).toBe(expected)
  })

  it('are pointed out, aliases too', async () => {
    const batch = [edit('a', { subject: 'Ada Quist', aliases: ['AQ'], prompt: 'Ada Quist works for' })]
    expect(told(await report(batch))).toEqual(['short_name a'])
  })
})
