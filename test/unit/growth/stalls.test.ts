/** Inputs that stopped the gateway for everybody once, whole: each is answered, or refused by a bound, in little processor time. */
import { expect, it, vi } from 'vitest'
import { parseBatch } from '../../../src/edit/batch.ts'
import { LIMITS } from '../../../src/edit/edit.ts'
import { tokens, words } from '../../../src/edit/words.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import { DEFAULT_LIMITS } from '../../../src/gateway.ts'
import { NameIndex } from '../../../src/selection/names.ts'
import { Retriever } from '../../../src/selection/retriever.ts'
import { chatBody } from '../../../src/wire/openai/chat.ts'
import { check } from '../../../src/wire/openai/refusal.ts'
import { edit, fakeEmbedder, indifferentReader, memory, POST } from '../../support/memory-fixture.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 300_000 })

/** Milliseconds of processor time. */
async function cost(work: () => unknown): Promise<number> {
  const start = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(start)
  return (user + system) / 1_000
}

function refusal(work: () => unknown): PalimpsestError {
  try {
    work()
  } catch (error) {
    if (error instanceof PalimpsestError) return error
    throw error
  }
  throw new Error('it was taken')
}

const many = <T>(count: number, each: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => each(i))
const batch = (text: string, contentType: string) => parseBatch(text, { tenant: 'default', contentType })

it('a word of 15,000 letters, and 90 kB of one letter', async () => {
  const index = new NameIndex()
  index.add(edit('long', { subject: 'x'.repeat(15_000) }))
  expect(await cost(() => index.find(`Is ${'x'.repeat(15_000)} there?`))).toBeLessThan(1_000)
  expect(index.find(`Is ${'x'.repeat(15_000)} there?`)).toMatchObject([{ editId: 'long', kind: 'exact' }])
  expect(await cost(() => words('x'.repeat(90_000)))).toBeLessThan(1_000)
  expect(tokens('x'.repeat(90_000))).toHaveLength(1)
})

it('a YAML map of 10,000 keys, each a field that no edit has; and one that names a key twice', async () => {
  const map = ['text: It rains.', ...many(10_000, (i) => `key${i}: v`)].join('\n')
  let problems = 0
  expect(
    await cost(() => (problems = refusal(() => batch(`- ${map.replaceAll('\n', '\n  ')}`, 'application/yaml')).problems.length)),
  ).toBeLessThan(4_000)
  expect(problems).toBe(100)
  const twice = refusal(() => batch('- text: a\n  tags: [b]\n  text: c\n', 'application/yaml'))
  expect(twice.problems).toEqual([
    { line: 3, field: null, message: 'not YAML: the key "text" is named twice in one map: name it once' },
  ])
  const proto = refusal(() => batch('- text: a\n  __proto__: {text: b}\n', 'application/yaml'))
  expect(proto.problems[0]).toMatchObject({ line: 2, message: expect.stringMatching(/__proto__/) })
})

it('a YAML list of 5 MB', async () => {
  let refused: PalimpsestError | undefined
  expect(await cost(() => (refused = refusal(() => batch('- a\n'.repeat(1_250_000), 'application/yaml'))))).toBeLessThan(1_000)
  expect(refused?.code).toBe('request_too_large')
})

it('rows of CSV beyond what a batch may hold are not read', async () => {
  const rows = `text\n${'a\n'.repeat(LIMITS.batchEdits * 4)}`
  expect(refusal(() => batch(rows, 'text/csv')).code).toBe('request_too_large')
})

it('200,000 unknown keys of an edit and of a request', async () => {
  const keys = Object.fromEntries(many(200_000, (i) => [`key${i}`, 1]))
  const record = JSON.stringify({ text: 'a', ...keys })
  let refused: PalimpsestError | undefined
  expect(await cost(() => (refused = refusal(() => batch(record, 'application/json'))))).toBeLessThan(4_000)
  expect(refused?.problems).toHaveLength(100)
  const schema = chatBody(DEFAULT_LIMITS)
  expect(await cost(() => (refused = refusal(() => check(schema, { model: 'm', messages: [], ...keys }))))).toBeLessThan(2_000)
})

it('a batch of 20,000 edits of one fact, dry and landed, and what each did', async () => {
  const store = await memory()
  const edits = many(20_000, (i) => edit(`e${i}`, { targetNew: i % 2 === 0 ? 'Paris' : `t${i}` }))
  let last: unknown
  expect(await cost(async () => (last = (await store.land(edits, { ...POST, dryRun: true })).results.at(-1)))).toBeLessThan(8_000)
  expect(last).toMatchObject({ outcome: 'added', state: 'live', supersedes: ['e19998'] })
  expect((last as { conflictsWith: string[] }).conflictsWith).toEqual(many(10, (i) => `e${19_989 + i}`))
  expect(await cost(async () => (last = (await store.land(edits, POST)).results[0]))).toBeLessThan(8_000)
  expect(last).toMatchObject({ state: 'superseded', supersedes: [] })
  expect((last as { conflictsWith: string[] }).conflictsWith).toEqual(many(10, (i) => `e${19_981 + 2 * i}`))
})

it('1,024 turns of 3 MB', async () => {
  const store = await memory()
  await store.land([edit('e', { subject: 'Lumora', prompt: 'The mayor of Lumora is' })], POST)
  const embedder = fakeEmbedder()
  const retriever = new Retriever(store, embedder, indifferentReader(), { now: () => store.moment(), cacheBytes: 0x100000 })
  for (const content of ['Lumora '.repeat(430), ' '.repeat(3_000)]) {
    const messages = many(1_024, () => ({ role: 'user' as const, content }))
    const query = { model: 'm', messages, tenant: 'default', edits: { kind: 'on' }, tags: [] } as const
    const each = await cost(async () => {
      for (let turn = 0; turn < messages.length; turn++) await retriever.candidates(query, turn)
    })
    // A turn is some milliseconds, in which no other request is answered; between two of them all are.
    expect(each / messages.length).toBeLessThan(40)
  }
})

it('a turn of 4 MB after others of as many', async () => {
  const store = await memory()
  await store.land([edit('e', { subject: 'Lumora', prompt: 'The mayor of Lumora is' })], POST)
  const retriever = new Retriever(store, fakeEmbedder(), indifferentReader(), { now: () => store.moment(), cacheBytes: 1 })
  const messages = many(5, () => ({ role: 'user' as const, content: 'Lumora said that it rains. '.repeat(150_000) }))
  const query = { model: 'm', messages, tenant: 'default', edits: { kind: 'on' }, tags: [] } as const
  expect(await cost(() => retriever.candidates(query, 4))).toBeLessThan(1_500)
})
