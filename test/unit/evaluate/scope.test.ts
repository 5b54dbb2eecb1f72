import { describe, expect, it } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import type { Probe } from '../../../src/evaluate/data/probe.ts'
import { settleScope } from '../../../src/evaluate/data/scope.ts'
import { selectionCurve, selectionRows, selectionTotals } from '../../../src/evaluate/metrics/selection-scores.ts'
import { edit, fakeEmbedder, unit } from '../../support/memory-data.ts'

/** Texts with the same word of these are near each other (cosine 1), all others far. */
const NEAR = ['led', 'mayor']
const embedder = fakeEmbedder({
  dimensions: 64,
  vector: (text) => {
    const at = NEAR.findIndex((word) => text.includes(word))
    // 'led' and 'mayor' are one relation here.
    return unit(Float32Array.from({ length: 64 }, (_, i) => (at >= 0 ? Number(i === 0) : Number(i === 1 + (text.length % 60)))))
  },
})
const probe = (text: string, more: Partial<Probe> = {}): Probe => ({
  ...{ id: text, record: 0, kind: 'locality', sub: 'neighbourhood', turns: [text], wants: [], answers: [], ...more },
})
const mayor = (subject: string, more: Partial<Edit> = {}): Edit =>
  edit(subject, { subject, prompt: `The mayor of ${subject} is`, targetNew: 'Bo', targetTrue: 'Cy', ...more })
const own = mayor('Orrin')
const settle = async (asked: Probe, ...live: Edit[]) => {
  const held = [own, ...live].map((one, seq) => ({ edit: one, seq }))
  const { probes } = await settleScope([asked], new Map([[0, { index: 0, edits: [own], probes: [] }]]), held, embedder)
  return probes[0]
}

describe('neighbours that are edited after all', () => {
  it('want the other edit, when it says the same of the same subject', async () => {
    expect(await settle(probe('The mayor of Velm is'), mayor('Velm'))).toMatchObject({
      kind: 'in_scope_neighbour',
      wants: ['Velm'],
      answers: ['Bo'],
      rival: 'Cy',
    })
    expect(await settle(probe("Velm's mayor, it is said, is"), mayor('Velm'))).toMatchObject({ wants: [] })
    expect(await settle(probe('In short, Velm is led by', { answers: ['Cy'] }), mayor('Velm'))).toMatchObject({ wants: ['Velm'] })
    expect(await settle(probe('In short, Velm lies on the river', { answers: ['Cy'] }), mayor('Velm'))).toMatchObject({
      wants: [],
    })
  })

  it('share the relation of their record, where labels say so', async () => {
    // Velm's edit has no label, but the words of one that has.
    const labelled = { ...own, relation: 'P6' }
    const held = [labelled, mayor('Velm')].map((one, seq) => ({ edit: one, seq }))
    const settled = async (sub: string) => {
      const records = new Map([[0, { index: 0, edits: [labelled], probes: [] }]])
      return (await settleScope([probe('Velm lies on the river', { sub })], records, held, embedder)).probes[0]?.wants
    }
    expect(await settled('neighbourhood')).toEqual(['Velm'])
    expect(await settled('relation_specificity')).toEqual([])
  })

  it('stay out of scope for their own record, another name or a reversed question', async () => {
    expect(await settle(probe('The mayor of Orrin is'))).toMatchObject({ wants: [] })
    expect(await settle(probe('The mayor of Velm Harbour is'), mayor('Velm'))).toMatchObject({ wants: [] })
    expect(await settle(probe('The mayor of Old Velm is'), mayor('Velm'))).toMatchObject({ wants: [] })
    expect(await settle(probe('The mayor of Velm Harbour is'), mayor('Velm'), mayor('Velm Harbour'))).toMatchObject({
      wants: ['Velm Harbour'],
    })
    expect(await settle(probe('Velm is the name of the mayor'), mayor('Velm'))).toMatchObject({ wants: [] })
  })
})

describe('edits that state one fact', () => {
  const inside = probe('Who is mayor of Velm?', { kind: 'reliability', sub: 'prompt', wants: ['first'], answers: ['Bo'] })
  const first = mayor('Velm', { id: 'first' })
  const again = (more: Partial<Edit>) => mayor('Velm', { id: 'again', prompt: 'Velm is led by', ...more })
  const settled = (...live: Edit[]) =>
    settleScope(
      [inside],
      new Map(),
      live.map((one, seq) => ({ edit: one, seq })),
      embedder,
    )

  it('with the same target: either is right', async () => {
    expect((await settled(first, again({}))).probes).toEqual([{ ...inside, equals: ['again'] }])
  })

  it('with another target: the later one holds', async () => {
    expect(await settled(first, again({ targetNew: 'Dee' }))).toEqual({ probes: [], contradicted: 1 })
    expect(await settled(again({ targetNew: 'Dee' }), first)).toEqual({ probes: [inside], contradicted: 0 })
    // Another true answer before, or another subject: another fact.
    expect((await settled(first, again({ targetNew: 'Dee', targetTrue: 'Ef', prompt: 'Velm lies in' }))).probes).toEqual([inside])
    expect((await settled(first, mayor('Orrin', { targetNew: 'Dee' }))).probes).toEqual([inside])
  })
})

describe('selection alone', () => {
  const outcome = (asked: Probe, selected: string[], scores: Record<string, number>, cosine: string[] = []) => ({
    probe: asked,
    gate: { selected, scores, offered: true, vectorRank: asked.wants.length > 0 ? 3 : null, subjectFound: true, ms: 1 },
    nearest: cosine.length > 0 ? { id: cosine[0] ?? '', cosine: 0.6 } : null,
  })
  const inside = (id: string) => probe(id, { kind: 'reliability', sub: 'prompt', wants: [id] })
  const outcomes = [
    outcome(inside('a'), ['a'], { a: 0.9 }, ['a']),
    outcome(inside('b'), ['b', 'x'], { b: 0.6, x: 0.55 }, ['x']),
    outcome(inside('c'), [], { c: 0.2 }),
    outcome(probe('out'), ['y'], { y: 0.7 }),
    outcome(probe('quiet'), [], { z: 0.1 }),
  ]

  it('counts what is found, what is wrong, and what the indexes offered', () => {
    const [prompts, neighbours] = selectionRows(outcomes, 0.5)
    expect(prompts).toMatchObject({ n: 3, found: { value: 2 / 3 }, wrong: { value: 1 / 3 }, cosineFound: { value: 1 / 3 } })
    expect(prompts?.vectorRecall).toMatchObject({ 1: { value: 0 }, 5: { value: 1 } })
    expect(neighbours).toMatchObject({ n: 2, found: null, wrong: { value: 0.5 } })
    expect(selectionTotals(outcomes, ({ gate }) => gate.selected)).toMatchObject({
      precision: { value: 2 / 4 },
      recall: { value: 2 / 3 },
      falseAlarms: { value: 1 / 2 },
    })
  })

  it('moves along the threshold', () => {
    const at = (threshold: number) => selectionCurve(outcomes).find((point) => point.threshold === threshold)
    expect(at(0.02)).toMatchObject({ recall: { value: 1 }, falseAlarms: { value: 1 } })
    expect(at(0.6)).toMatchObject({ precision: { value: 2 / 3 }, recall: { value: 2 / 3 } })
    expect(at(0.8)).toMatchObject({ precision: { value: 1 }, recall: { value: 1 / 3 }, falseAlarms: { value: 0 } })
  })
})
