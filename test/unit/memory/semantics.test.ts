import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { contentOf } from '../../../src/memory/log/timeline.ts'
import { SqliteSql } from '../../../src/storage/sqlite-sql.ts'
import { DIALECTS } from '../../support/databases/databases.ts'
import { codeOf, memories } from '../../support/databases/memory-databases.ts'
import { clock, edit, fact, POST, recordingLog, scratch } from '../../support/memory-fixture.ts'

const T = 'default'

const REFUSING_E3 = {
  sqlite: [
    "CREATE TRIGGER no BEFORE INSERT ON log WHEN NEW.edit_id = 'e3' BEGIN SELECT RAISE(ABORT, 'refused'); END",
    'DROP TRIGGER no',
  ],
  postgres: ["ALTER TABLE log ADD CONSTRAINT no CHECK (edit_id <> 'e3')", 'ALTER TABLE log DROP CONSTRAINT no'],
} as const

describe.each(DIALECTS)('a memory over %s', (dialect) => {
  const { memory, databaseOf } = memories(dialect)

  describe('sentences and rules', () => {
    const rule = (id: string, over = {}) =>
      edit(id, { kind: 'rule', subject: '', prompt: 'someone asks', targetNew: id, ...over })

    test('come back from the disk as they were', async () => {
      const dataDir = scratch()
      const store = await memory({ dataDir })
      const said = [
        rule('a', { examples: ['Can I?'], counterexamples: ['Could she?'] }),
        rule('b', { prompt: '', always: true }),
        edit('c', { kind: 'sentence', subject: '', prompt: 'We close at 6.', targetNew: '' }),
        edit('d', { subject: '', prompt: 'Our CEO is', targetNew: 'Ada' }),
      ]
      await store.land(said, POST)
      await store.close()
      const again = await memory({ dataDir })
      expect(said.map(({ id }) => again.get(T, id)?.edit)).toEqual(said)
    })

    test('a rule gives way to another for the same messages, a rule for every message to none', async () => {
      const store = await memory()
      await store.land([rule('a'), rule('x', { prompt: '', always: true })], POST)
      const { results } = await store.land(
        [rule('b', { prompt: 'Someone asks.' }), rule('y', { prompt: '', always: true })],
        POST,
      )
      expect(results.map(({ supersedes }) => supersedes)).toEqual([['a'], []])
    })

    test('examples are content: an edit with others is revised, one with the same is not', async () => {
      const store = await memory()
      await store.land([rule('a', { examples: ['Can I?'] })], POST)
      const outcome = async (over: object) => (await store.land([rule('a', over)], POST)).results[0]?.outcome
      expect((await store.land([rule('a', { examples: ['Can I?'] })], POST)).replayed).toBe(true)
      expect(await outcome({ examples: ['May I?'] })).toBe('revised')
      expect(await outcome({ examples: ['May I?'], counterexamples: ['No.'] })).toBe('revised')
      expect(await outcome({ prompt: '', always: true, examples: ['May I?'], counterexamples: ['No.'] })).toBe('revised')
    })

    test('a fact has the content that it had before there were others', () => {
      const said = ['default', 'France', 'The capital of France is', 'a', [], [], [], [null, null, null, null, null]]
      expect(contentOf(edit('a'))).toBe(JSON.stringify(said))
      expect(contentOf(edit('a', { models: ['m'] }))).toBe(JSON.stringify([...said, ['m']]))
    })
  })

  describe('supersession', () => {
    test('the later edit of the same subject and relation is held, and withdrawing it brings the earlier back', async () => {
      const store = await memory()
      await store.land([edit('Lyon')], POST)
      const landing = await store.land([edit('Nice')], POST)
      expect(landing.results[0]).toMatchObject({ outcome: 'added', state: 'live', supersedes: ['Lyon'] })
      expect(store.get(T, 'Lyon')).toMatchObject({ state: 'superseded', supersededBy: 'Nice' })
      await store.withdraw(T, ['Nice'], 'test')
      expect(store.get(T, 'Lyon')?.state).toBe('live')
      await store.restore(T, ['Nice'], 'test')
      expect(store.get(T, 'Lyon')?.state).toBe('superseded')
    })

    test('of three, the last open one is held', async () => {
      const store = await memory()
      for (const id of ['a', 'b', 'c']) await store.land([edit(id)], POST)
      expect(store.get(T, 'a')).toMatchObject({ state: 'superseded', supersededBy: 'c' })
      await store.withdraw(T, ['c'], 'test')
      expect(store.get(T, 'a')).toMatchObject({ state: 'superseded', supersededBy: 'b' })
      expect(store.get(T, 'b')?.state).toBe('live')
    })

    test('an edit valid only later supersedes then, one that has expired no longer does', async () => {
      const now = clock(1_000)
      const store = await memory({ now })
      await store.land([edit('old')], POST)
      expect((await store.land([edit('soon', { validFrom: 5_000, validTo: 6_000 })], POST)).results[0]?.supersedes).toEqual([])
      expect(store.get(T, 'soon')?.state).toBe('not_yet_valid')
      expect(store.get(T, 'old')?.state).toBe('live')
      now.at = 5_000
      expect(store.get(T, 'old')).toMatchObject({ state: 'superseded', supersededBy: 'soon' })
      now.at = 6_000
      expect(store.get(T, 'soon')?.state).toBe('expired')
      expect(store.get(T, 'old')?.state).toBe('live')
    })

    test('a question supersedes the statement that says the same, and edits for other models do not', async () => {
      const store = await memory()
      await store.land([edit('a')], POST)
      await store.land([edit('b', { models: ['m'] }), edit('c', { prompt: 'The capital of France was' })], POST)
      expect(store.get(T, 'a')?.state).toBe('live')
      await store.land([edit('d', { prompt: 'What is the capital of France?' })], POST)
      expect(store.get(T, 'a')).toMatchObject({ state: 'superseded', supersededBy: 'd' })
      expect(['b', 'c'].map((id) => store.get(T, id)?.state)).toEqual(['live', 'live'])
    })

    test('other relations, other subjects and other tenants do not supersede', async () => {
      const store = await memory()
      await store.land(
        [edit('a'), edit('b', { relation: 'P36' }), edit('c', { subject: 'Spain', prompt: 'The capital of Spain is' })],
        POST,
      )
      await store.land([edit('d', { tenant: 'other' })], { ...POST, tenant: 'other' })
      for (const id of ['a', 'b', 'c']) expect(store.get(T, id)?.state).toBe('live')
      expect(store.get('other', 'd')?.state).toBe('live')
      expect(store.get('other', 'a')).toBeUndefined()
    })
  })

  describe('what was held on a day', () => {
    test('landing, withdrawal and restoration count from when they came', async () => {
      const now = clock(1_000)
      const store = await memory({ now })
      await store.land([edit('a')], POST)
      now.at = 2_000
      await store.withdraw(T, ['a'], 'test')
      now.at = 3_000
      await store.restore(T, ['a'], 'test')
      const held = [999, 1_000, 1_999, 2_000, 2_999, 3_000, 9_000].map((at) => store.heldAt(T, 'a', at))
      expect(held).toEqual([false, true, true, false, false, true, true])
      expect(store.get(T, 'a', 999)).toBeUndefined()
    })

    test('valid_from reaches back before the landing, and valid_to is exclusive', async () => {
      const store = await memory({ now: clock(1_000) })
      await store.land([edit('a', { validFrom: 100, validTo: 200 })], POST)
      expect([99, 100, 199, 200].map((at) => store.heldAt(T, 'a', at))).toEqual([false, true, true, false])
    })

    test('a superseded edit was held until the later one landed', async () => {
      const now = clock(1_000)
      const store = await memory({ now })
      await store.land([edit('a')], POST)
      now.at = 2_000
      await store.land([edit('b')], POST)
      expect([1_500, 2_000].map((at) => [store.heldAt(T, 'a', at), store.heldAt(T, 'b', at)])).toEqual([
        [true, false],
        [false, true],
      ])
    })

    test('a revision counts from its landing; the former content from its own until then', async () => {
      const now = clock(1_000)
      const store = await memory({ now })
      await store.land([edit('a', { targetNew: 'Lyon' })], POST)
      now.at = 2_000
      expect((await store.land([edit('a', { targetNew: 'Nice' })], POST)).results[0]).toMatchObject({
        outcome: 'revised',
        supersedes: [],
      })
      expect(store.get(T, 'a', 1_500)?.edit.targetNew).toBe('Lyon')
      expect(store.get(T, 'a')?.edit.targetNew).toBe('Nice')
      expect(store.history(T, 'a').map((r) => [r.kind, r.edit?.targetNew])).toEqual([
        ['add', 'Lyon'],
        ['add', 'Nice'],
      ])
    })

    test('a clock set back hides nothing that has landed', async () => {
      const now = clock(5_000)
      const store = await memory({ now })
      await store.land([edit('a')], POST)
      now.at = 1_000
      expect(store.heldAt(T, 'a', now.at)).toBe(true)
      await store.withdraw(T, ['a'], 'test')
      expect(store.heldAt(T, 'a', now.at)).toBe(false)
    })
  })

  describe('repeats', () => {
    test.each([undefined, 'again'])('what was withdrawn is live again (id %s), and can be taken back again', async (batchId) => {
      const dataDir = scratch()
      const store = await memory({ dataDir })
      const first = await store.land([edit('a'), edit('b')], POST)
      await store.withdraw(T, ['a'], 'test')
      const options = batchId === undefined ? POST : { ...POST, batchId }
      const rehearsed = await store.land([edit('a'), edit('b')], { ...options, dryRun: true })
      const again = await store.land([edit('a'), edit('b')], options)
      expect(again).toMatchObject({
        replayed: false,
        version: 4,
        results: [{ outcome: 'restored', state: 'live' }, { outcome: 'unchanged' }],
      })
      expect(again.batchId).not.toBe(first.batchId)
      expect(rehearsed).toEqual({ ...again, dryRun: true, version: 3 })
      expect(await store.land([edit('a'), edit('b')], options)).toEqual({ ...again, replayed: true })
      expect((await store.withdrawBatch(T, again.batchId, 'test')).map(({ edit, state }) => [edit.id, state])).toEqual([
        ['a', 'withdrawn'],
      ])
      await store.close()
      const later = await memory({ dataDir })
      const third = await later.land([edit('a'), edit('b')], POST)
      expect(third).toMatchObject({
        replayed: false,
        results: [{ outcome: 'restored', state: 'live' }, { outcome: 'unchanged' }],
      })
      expect([first.batchId, again.batchId]).not.toContain(third.batchId)
    })

    test('a batch that its sender named lands once: a retry takes no withdrawal back', async () => {
      const store = await memory()
      await store.land([edit('a')], { ...POST, batchId: 'mine' })
      await store.withdraw(T, ['a'], 'test')
      const again = await store.land([edit('a')], { ...POST, batchId: 'mine' })
      expect(again).toMatchObject({ replayed: true, results: [{ state: 'withdrawn' }] })
      expect(store.version(T)).toBe(2)
    })

    test('what was said before a revision is a revision, too, when it is said again', async () => {
      const store = await memory()
      await store.land([edit('a', { tags: ['x'] })], POST)
      await store.land([edit('a', { tags: ['y'] })], POST)
      expect(await store.land([edit('a', { tags: ['x'] })], POST)).toMatchObject({
        replayed: false,
        results: [{ outcome: 'revised' }],
      })
      expect(store.get(T, 'a')?.edit.tags).toEqual(['x'])
    })

    test('new content under the id of a withdrawn edit is held', async () => {
      const store = await memory()
      await store.land([edit('a')], POST)
      await store.withdraw(T, ['a'], 'test')
      expect((await store.land([edit('a', { tags: ['x'] })], POST)).results[0]).toMatchObject({
        outcome: 'revised',
        state: 'live',
      })
    })

    test.each([undefined, 'mine'])(
      'a batch posted again (id %s) is answered as the first time, after a restart too',
      async (batchId) => {
        const dataDir = scratch()
        const options = batchId === undefined ? POST : { ...POST, batchId }
        const batch = [edit('a'), edit('b'), edit('b', { tags: ['t'] }), edit('a')]
        const first = await memory({ dataDir })
        const landed = await first.land(batch, options)
        expect(landed.results.map((r) => r.outcome)).toEqual(['added', 'added', 'revised', 'unchanged'])
        expect(landed.replayed).toBe(false)
        await first.close()
        const second = await memory({ dataDir })
        expect(await second.land(batch, options)).toEqual({ ...landed, replayed: true })
        expect(second.version(T)).toBe(3)
      },
    )

    test('a batch id used for other content is refused', async () => {
      const store = await memory()
      await store.land([edit('a')], { ...POST, batchId: 'mine' })
      expect(await codeOf(() => store.land([edit('b')], { ...POST, batchId: 'mine' }))).toBe('invalid_value:batch')
      expect(store.get(T, 'b')).toBeUndefined()
      await store.land([edit('b', { tenant: 'other' })], { ...POST, tenant: 'other', batchId: 'mine' })
      expect(store.get('other', 'b')?.state).toBe('live')
    })
  })

  describe('a batch', () => {
    test('reports duplicates and conflicts, the last one winning', async () => {
      const store = await memory()
      const { results } = await store.land([edit('a'), edit('b'), edit('c', { targetNew: 'a' }), fact(1)], POST)
      expect(results.map((r) => [r.state, r.duplicateOf ?? null, r.conflictsWith])).toEqual([
        ['superseded', null, ['b']],
        ['superseded', null, ['a', 'c']],
        ['live', 0, ['b']],
        ['live', null, []],
      ])
    })

    test('statements of times that do not meet are no conflict', async () => {
      const store = await memory()
      const { results } = await store.land([edit('a', { validTo: 500 }), edit('b', { validFrom: 500 })], POST)
      expect(results.map((r) => r.conflictsWith)).toEqual([[], []])
    })

    test('a dry run says what would happen and leaves no trace', async () => {
      const dataDir = scratch()
      const store = await memory({ dataDir })
      await store.land([edit('a')], POST)
      const dry = await store.land([edit('b'), edit('a', { tags: ['t'] }), fact(1)], { ...POST, dryRun: true })
      expect(dry.results.map((r) => [r.outcome, r.supersedes])).toEqual([
        ['added', ['a']],
        ['revised', ['b']],
        ['added', []],
      ])
      expect(store.get(T, 'a')).toMatchObject({ state: 'live', edit: { tags: [] } })
      expect([store.get(T, 'b'), store.get(T, 'e1'), store.version(T)]).toEqual([undefined, undefined, 1])
      expect((await store.land([edit('b'), edit('a', { tags: ['t'] }), fact(1)], POST)).results).toEqual(dry.results)
    })

    test('lands whole or not at all when the database refuses one row', async () => {
      const dataDir = scratch()
      const store = await memory({ dataDir })
      await store.land([fact(0)], POST)
      const other = dialect === 'sqlite' ? new SqliteSql(join(dataDir, 'palimpsest.db'), { durable: true }) : databaseOf(dataDir)
      const [refuse, allow] = REFUSING_E3[dialect]
      await other.run('refusing', refuse)
      expect(await codeOf(() => store.land([fact(1), fact(2), fact(3), fact(4)], { ...POST, batchId: 'x' }))).toMatch(
        /^storage_failed/,
      )
      expect(store.version(T)).toBe(1)
      expect(store.get(T, 'e1')).toBeUndefined()
      expect(store.batches(T)).toHaveLength(1)
      expect(await other.all('counting', 'SELECT count(*) AS n FROM log')).toEqual([{ n: 1 }])
      await other.run('allowing', allow)
      if (dialect === 'sqlite') await other.close()
      expect((await store.land([fact(1), fact(2), fact(3), fact(4)], { ...POST, batchId: 'x' })).replayed).toBe(false)
      expect(store.version(T)).toBe(5)
    })

    test('an edit of another tenant is refused with its place', async () => {
      const store = await memory()
      await expect(store.land([fact(1), fact(2, { tenant: 'other' })], POST)).rejects.toThrowError(
        expect.objectContaining({ code: 'invalid_batch', problems: [expect.objectContaining({ index: 1, field: 'tenant' })] }),
      )
      expect(store.version(T)).toBe(0)
    })

    test('is withdrawn as a whole, but not what was since said anew', async () => {
      const store = await memory()
      const { batchId } = await store.land([fact(1), fact(2)], POST)
      await store.land([fact(2, { targetNew: 'Someone else' })], POST)
      expect((await store.withdrawBatch(T, batchId, 'test')).map((h) => [h.edit.id, h.state])).toEqual([['e1', 'withdrawn']])
      expect(store.get(T, 'e2')?.state).toBe('live')
      expect(store.batches(T).map((b) => [b.edits, b.live])).toEqual([
        [2, 0],
        [1, 1],
      ])
      expect(await codeOf(() => store.withdrawBatch(T, 'nope', 'test'))).toBe('batch_not_found:batch')
    })
  })

  test('withdrawing is all or nothing, and names what does not exist', async () => {
    const store = await memory()
    await store.land([fact(1)], POST)
    await expect(store.withdraw(T, ['e1', 'zz', 'yy'], 'test')).rejects.toThrowError(/"zz", "yy"/)
    expect(await codeOf(() => store.restore(T, ['zz'], 'test'))).toBe('edit_not_found:id')
    expect(store.get(T, 'e1')?.state).toBe('live')
  })

  test('the whole state is the same after a restart', async () => {
    const dataDir = scratch()
    const now = clock()
    const first = await memory({ dataDir, now })
    await first.land([edit('a'), edit('b'), fact(1), fact(2)], POST)
    now.at = 2_000
    await first.withdraw(T, ['b', 'e1'], 'test')
    await first.land([fact(2, { targetNew: 'New' })], POST)
    const before = [first.all(T), first.version(T), first.batches(T), first.history(T, 'e2')]
    await first.close()
    const second = await memory({ dataDir, now })
    expect([second.all(T), second.version(T), second.batches(T), second.history(T, 'e2')]).toEqual(before)
  })

  test('listeners hear what landed, after it is visible, and one that throws stops nothing', async () => {
    const log = recordingLog()
    const store = await memory({ log })
    const heard: unknown[] = []
    store.onChange(() => {
      throw new Error('listener')
    })
    const stop = store.onChange(({ tenant, added, version }) =>
      heard.push([tenant, added.map((h) => h.edit.id), version, store.heldAt(T, 'e1', 1_000)]),
    )
    await store.land([fact(1)], POST)
    await store.land([fact(2)], { ...POST, dryRun: true })
    await store.withdraw(T, ['e1'], 'test')
    stop()
    await store.land([fact(3)], POST)
    expect(heard).toEqual([
      [T, ['e1'], 1, true],
      [T, [], 2, false],
    ])
    expect(log.lines.filter((l) => l.level === 'error')).toHaveLength(3)
  })

  describe('list', () => {
    test('filters by state, tag, batch, subject and text', async () => {
      const store = await memory()
      const { batchId } = await store.land([fact(1, { tags: ['x'] }), fact(2, { aliases: ['Zürich am See'] })], POST)
      await store.land([edit('a'), edit('b')], POST)
      const ids = (filter: object) => store.list({ tenant: T, limit: 10, ...filter }).edits.map((h) => h.edit.id)
      expect(ids({})).toEqual(['b', 'a', 'e2', 'e1'])
      expect(ids({ state: 'superseded' })).toEqual(['a'])
      expect(ids({ tag: 'x' })).toEqual(['e1'])
      expect(ids({ batchId })).toEqual(['e2', 'e1'])
      expect(ids({ subject: 'town  1' })).toEqual(['e1'])
      expect(ids({ text: 'zurich MAYOR' })).toEqual(['e2'])
      expect(ids({ text: 'zurich nowhere' })).toEqual([])
      expect(ids({ text: 'may' })).toEqual([])
    })

    test('pages without gaps or repeats while edits land in between', async () => {
      const store = await memory()
      await store.land(
        Array.from({ length: 7 }, (_, n) => fact(n)),
        POST,
      )
      const seen: string[] = []
      let cursor: string | null | undefined
      do {
        const page = store.list({ tenant: T, limit: 3, ...(cursor ? { cursor } : {}) })
        seen.push(...page.edits.map((h) => h.edit.id))
        cursor = page.nextCursor
        await store.land([fact(100 + seen.length)], POST)
      } while (cursor !== null)
      expect(seen).toEqual(['e6', 'e5', 'e4', 'e3', 'e2', 'e1', 'e0'])
      expect(await codeOf(() => store.list({ tenant: T, limit: 3, cursor: 'junk' }))).toBe('invalid_value:cursor')
    })
  })
})
