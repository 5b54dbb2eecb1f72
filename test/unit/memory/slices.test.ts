/** A batch is landed in slices, between which everybody else is answered; nobody sees a part of it. */
import { describe, expect, it } from 'vitest'
import { stated } from '../../../src/memory/log/landing.ts'
import { LiveView } from '../../../src/memory/log/timeline.ts'
import type { LandOptions } from '../../../src/memory/memory.ts'
import { inSlices } from '../../../src/memory/slices.ts'
import { edit, memory, POST } from '../../support/memory-fixture.ts'

const EDITS = 1_024
/** Passes over a batch before each of which others have a turn, at the least. */
const LEAST_TURNS = 5
const SOME = 128

const batch = (name: string, targetNew = name) =>
  Array.from({ length: EDITS }, (_, i) =>
    edit(`${name}${i}`, { subject: `Town ${i}`, prompt: `The mayor of Town ${i} is`, targetNew }),
  )

/** Looks at every turn of the event loop until the work is done. */
async function watching<Seen, Result>(look: () => Seen, work: Promise<Result>): Promise<{ seen: Seen[]; result: Result }> {
  const seen: Seen[] = []
  let isOver = false
  const result = work.finally(() => {
    isOver = true
  })
  while (!isOver) {
    seen.push(look())
    await new Promise(setImmediate)
  }
  return { seen, result: await result }
}

describe('a batch of a thousand edits', () => {
  it.each<[string, LandOptions]>([
    ['landed', POST],
    ['rehearsed', { ...POST, dryRun: true }],
  ])('leaves turns to others while it is %s, who see none of it or all', async (_, options) => {
    const store = await memory()
    await store.land(batch('old'), POST)
    const held = () => [0, EDITS - 1].map((i) => [store.get('default', `old${i}`)?.state, store.get('default', `new${i}`)?.state])
    const before = [Array(2).fill(['live', undefined]), store.version('default')]
    const after = [Array(2).fill(['superseded', 'live']), 2 * EDITS]
    const { seen, result } = await watching(() => [held(), store.version('default')], store.land(batch('new'), options))
    expect(seen.length).toBeGreaterThan(LEAST_TURNS)
    const changed = seen.findIndex((one) => one[1] !== EDITS)
    const [untouched, whole] = changed === -1 ? [seen, []] : [seen.slice(0, changed), seen.slice(changed)]
    for (const one of untouched) expect(one).toEqual(before)
    for (const one of whole) expect(one).toEqual(after)
    expect(store.version('default')).toBe(options.dryRun ? EDITS : 2 * EDITS)
    expect(result.results.every(({ outcome, supersedes }, i) => outcome === 'added' && supersedes[0] === `old${i}`)).toBe(true)
  })

  it('lands whole beside another, each in its place of the log', async () => {
    const store = await memory()
    const [a, rehearsed, b] = await Promise.all([
      store.land(batch('a'), POST),
      store.land(batch('c'), { ...POST, dryRun: true }),
      store.land(batch('b'), POST),
    ])
    const [first, second] = [a, b].sort((one, other) => one.version - other.version)
    expect([first?.version, second?.version]).toEqual([EDITS, 2 * EDITS])
    const seqs = [first, second].map((landing) =>
      landing?.results.flatMap(({ id }) => store.history('default', id).map(({ seq }) => seq)),
    )
    const rise = (from: number) => Array.from({ length: EDITS }, (_, i) => from + i)
    expect(seqs).toEqual([rise(1), rise(1 + EDITS)])
    expect(first?.results.flatMap(({ supersedes }) => supersedes)).toEqual([])
    expect(second?.results.flatMap(({ supersedes }) => supersedes)).toEqual(first?.results.map(({ id }) => id))
    expect(rehearsed.results.every(({ outcome }) => outcome === 'added')).toBe(true)
    expect(store.get('default', 'c0')).toBeUndefined()
  })
})

it('an excerpt says what the records said up to a moment, whatever is applied while it is made', async () => {
  const view = new LiveView()
  const edits = batch('a')
  for (const [i, one] of edits.entries()) view.apply({ seq: i + 1, at: 1, kind: 'add', editId: one.id, batchId: 'a', edit: one })
  const { batch: rivals } = await stated(batch('b').slice(0, SOME))
  const making = view.excerpt(rivals, EDITS)
  let seq = EDITS
  for (const { id } of edits) view.apply({ seq: ++seq, at: 2, kind: 'withdraw', editId: id, batchId: 'w' })
  const excerpt = await making
  expect([...excerpt.ids()]).toEqual(edits.slice(0, SOME).map(({ id }) => id))
  expect([excerpt, view].map((one) => one.held('a0', 3)?.state)).toEqual(['live', 'withdrawn'])
})

it('work of a millisecond each leaves a turn to others every few', async () => {
  const busy = (one: number) => {
    const until = performance.now() + 1
    while (performance.now() < until);
    return 2 * one
  }
  const { seen, result } = await watching(() => null, inSlices([...Array(60).keys()], busy))
  expect(result).toEqual(Array.from({ length: 60 }, (_, i) => 2 * i))
  expect(seen.length).toBeGreaterThan(10)
})
