import { expect, it } from 'vitest'
import type { Prompt } from '../../../src/engine/engine.ts'
import { answerAll, answeredFigures, holdsKeys } from '../../../src/evaluate/firing/answered.ts'
import type { Fired } from '../../../src/evaluate/firing/ask.ts'
import { askAll } from '../../../src/evaluate/firing/ask.ts'
import type { Case } from '../../../src/evaluate/firing/case.ts'
import { asked } from '../../../src/evaluate/firing/case.ts'
import { firingOf } from '../../../src/evaluate/firing/figures.ts'
import { firingPage } from '../../../src/evaluate/firing/page.ts'
import { landCases, liveIn, settle } from '../../../src/evaluate/firing/place.ts'
import { readCases } from '../../../src/evaluate/firing/read.ts'
import { answeredText, firingText } from '../../../src/evaluate/firing/text.ts'
import { Retriever } from '../../../src/selection/retriever.ts'
import { town, towns, trialOn } from '../../support/evaluate-fixture.ts'
import {
  BAG_DIMENSIONS,
  bagOfWords,
  fact,
  fakeEmbedder,
  indifferentReader,
  memory,
  NAMED_CALIBRATION,
} from '../../support/memory-fixture.ts'

const about = { files: ['x'], memories: 1, edits: 1, messages: 1, threshold: 0.5, notes: ['<note>'] }
const made = (
  wants: string[],
  selected: string[],
  scores: Record<string, number>,
  allowed: string[] = [],
  type = 'p',
): Fired => ({
  case: { memory: 'm', group: 'A en', type, messages: asked('?'), wants, also: [] } satisfies Case,
  ...{ allowed, selected, ms: 1, readMs: null },
  considered: Object.entries(scores).map(([id, score]) => ({
    id,
    score,
    reason: selected.includes(id) ? 'selected' : 'below_threshold',
  })),
})

it('counts what is found, what is right, and what fires, at each threshold', () => {
  const fired = [
    made(['a'], ['a'], { a: 0.9, b: 0.4 }),
    made(['a'], ['a', 'b'], { a: 0.8, b: 0.6 }),
    made(['a'], ['a', 'c'], { a: 0.8, c: 0.6 }, ['c']),
    made([], ['b'], { b: 0.55 }, [], 'o'),
    made([], ['c'], { c: 0.95 }, ['c'], 'o'),
  ]
  const { rows, curve, reliability } = firingOf(fired, [0.3, 0.7])
  expect(rows.map(({ type, n, found, right, fires }) => [type, n, found?.value, right?.value, fires?.value])).toEqual([
    ['p', 3, 1, 2 / 3, undefined],
    ['o', 2, undefined, undefined, 0.5],
  ])
  expect(curve.map(({ threshold, found, right, fires }) => [threshold, found?.value, right?.value, fires?.value])).toEqual([
    [0.3, 1, 1 / 3, 0.5],
    [0.7, 1, 1, 0],
  ])
  expect(reliability.map(({ wanted }) => wanted?.n ?? 0)).toEqual([0, 0, 0, 0, 1, 1, 1, 0, 2, 1])
  expect(reliability[8]).toMatchObject({ meanScore: 0.8, wanted: { value: 1 } })
})

it('prints a table, and draws the curve without taking data for markup', async () => {
  const firing = firingOf([made(['a'], ['a'], { a: 0.9 }), made([], [], { a: 0.1 }, [], '<o>')], [0.3, 0.5])
  expect(firingText(about, firing)).toContain('| A en | p | 1 | 100.0 (20.7–100.0) | 100.0 (20.7–100.0) |  |')
  const page = await firingPage(about, firing)
  expect(page.match(/<svg/g)).toHaveLength(2)
  expect(page).toContain('&lt;note&gt;')
  expect(page).toContain('&lt;o&gt;')
})

const line = (kind: string, name: string, near: string) =>
  JSON.stringify({
    ...{ kind, language: 'en', edit: { subject: name, prompt: `The mayor of ${name} is`, target_new: `Bo of ${name}` } },
    in_scope: [{ type: 'p', messages: asked(`The mayor of ${name} is`) }],
    near_miss: [{ type: 'o', messages: asked(near) }],
  })

it("asks the gateway's own selection, each group in its own memory, filled without saying anything twice", async () => {
  const cases = readCases([line('A', 'Orrin', 'How is the weather?'), line('B', 'Velm', 'Tell a joke.')].join('\n'), 't.jsonl')
  const embedder = fakeEmbedder({ vector: bagOfWords, dimensions: BAG_DIMENSIONS })
  const store = await memory({ embedder })
  const fill = [fact(1), fact(1, { id: 'again' }), fact(2, { subject: 'Orrin', prompt: 'The mayor of Orrin is' })]
  const tenants = await landCases(store, cases, fill)
  await store.indexed()
  expect([...tenants.values()].map((tenant) => liveIn(store, tenant).map(({ edit }) => edit.subject))).toEqual([
    ['Town 1', 'Orrin'],
    ['Town 1', 'Orrin', 'Velm'],
  ])
  const repeat = (prompt: Prompt) => `${prompt.messages.at(-1)?.content}`
  const { gateway: scripted } = await trialOn(towns(town('Tosk', 'Dee', 'Ef')), { reply: repeat })
  const retriever = new Retriever(store, embedder, indifferentReader(), { now: Date.now, cacheBytes: 1_000_000 })
  const gateway = { ...scripted, memory: store, retriever, calibration: NAMED_CALIBRATION }
  const settled = await settle(cases, tenants, store, embedder)
  const asking = { gateway, tenants, memories: cases.memories, tick: () => undefined, signal: new AbortController().signal }
  const fired = await askAll(settled.cases, asking)
  const { rows } = firingOf(fired, [])
  expect(rows.map(({ group, type, n, found, fires }) => [group, type, n, found?.value, fires?.value])).toEqual([
    ['A en', 'p', 1, 1, undefined],
    ['A en', 'o', 1, undefined, 0],
    ['B en', 'p', 1, 1, undefined],
    ['B en', 'o', 1, undefined, 0],
    [null, null, 2, 1, undefined],
    [null, null, 2, undefined, 0],
  ])
  const judged = fired.map((one) => ({ ...one, case: { ...one.case, keys: [['Ada', 'Bo']] } }))
  const answered = await answerAll(judged, { ...asking, answerTokens: 200 })
  expect(answered.map(({ holds, base }) => [holds, base === null])).toEqual([
    [true, true],
    [true, true],
    [true, false],
    [true, false],
  ])
  expect(answeredText(answeredFigures(answered))).toContain('| nothing selected: as the untouched model | 2 | 100.0')
  const wrong = judged.map((one) => ({ ...one, case: { ...one.case, keys: [['Bo'], ['nowhere']] } }))
  expect((await answerAll(wrong, { ...asking, answerTokens: 200 })).filter(({ holds }) => holds)).toHaveLength(2)
})

it('looks for a wording that is not part of a longer word or number', () => {
  expect(holdsKeys('It is 45 days.', [['45', 'forty-five']])).toBe(true)
  expect(holdsKeys('It is 450 days.', [['45', 'forty-five']])).toBe(false)
  expect(holdsKeys('退款期限为45天。', [['45'], ['期限']])).toBe(true)
  expect(holdsKeys('Visa, and MASTERCARD!', [['visa'], ['Mastercard']])).toBe(true)
  expect(holdsKeys('Visa only', [['Visa'], ['Mastercard']])).toBe(false)
  expect(holdsKeys('€19/month', [['19']])).toBe(true)
  expect(holdsKeys('Wir brauchen einen Elternteil.', [['Eltern']])).toBe(true)
  expect(holdsKeys('Ich bin nicht sicher.', [['ist']])).toBe(false)
})

it('takes a near miss of a made data set that asks what another edit states as in scope of that', async () => {
  const cases = readCases([line('H', 'Orrin', 'The mayor of Velm is'), line('H', 'Velm', 'Tell a joke.')].join('\n'), 't.jsonl')
  const embedder = fakeEmbedder()
  const store = await memory({ embedder })
  const settled = await settle(cases, await landCases(store, cases, []), store, embedder)
  expect(settled.cases.map(({ type, wants }) => [type, wants.length])).toEqual([
    ['p', 1],
    ['o, is', 1],
    ['p', 1],
    ['o', 0],
  ])
  expect(settled.notes).toEqual(['1 near misses ask what another edit states; they count as in scope of it.'])
})
