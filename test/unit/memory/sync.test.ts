import { describe, expect, test } from 'vitest'
import { DIALECTS } from '../../support/databases/databases.ts'
import { memories } from '../../support/databases/memory-databases.ts'
import { clock, edit, fact, POST, scratch } from '../../support/memory-fixture.ts'

const T = 'default'
const [A, B] = ['edits/a.yaml', 'edits/b.jsonl']

describe.each(DIALECTS)('edit files over %s', (dialect) => {
  const { memory } = memories(dialect)

  test('a file read again lands what is new, withdraws what vanished, restores what is back', async () => {
    const store = await memory()
    expect(await store.sync(A, [fact(1), fact(2)])).toMatchObject({ added: ['e1', 'e2'], withdrawn: [], unchanged: 0 })
    expect(await store.sync(A, [fact(2), fact(3), fact(1, { tags: ['t'] })])).toMatchObject({
      added: ['e3'],
      revised: ['e1'],
      unchanged: 1,
    })
    expect(await store.sync(A, [fact(3)])).toMatchObject({ withdrawn: ['e1', 'e2'], unchanged: 1 })
    expect(await store.sync(A, [fact(2), fact(3)])).toMatchObject({ restored: ['e2'], added: [], unchanged: 1 })
    expect([1, 2, 3].map((n) => store.get(T, `e${n}`)?.state)).toEqual(['withdrawn', 'live', 'live'])
  })

  test('reading an unchanged file writes nothing, after a restart too', async () => {
    const dataDir = scratch()
    const content = [fact(1), fact(1, { targetNew: 'Later in the file' }), fact(2, { tenant: 'other' })]
    const first = await memory({ dataDir })
    await first.sync(A, content)
    const version = first.version(T)
    await first.sync(A, content)
    expect(first.version(T)).toBe(version)
    expect(first.get(T, 'e1')?.edit.targetNew).toBe('Later in the file')
    await first.close()
    const second = await memory({ dataDir })
    expect(await second.sync(A, content)).toMatchObject({ added: [], revised: [], unchanged: 2 })
    expect(second.batches('other')).toHaveLength(1)
  })

  test('an old statement that comes back in place of the new one is held again', async () => {
    const store = await memory()
    await store.sync(A, [edit('Lyon')])
    await store.sync(A, [edit('Nice')])
    await store.sync(A, [edit('Lyon')])
    expect([store.get(T, 'Lyon')?.state, store.get(T, 'Nice')?.state]).toEqual(['live', 'withdrawn'])
  })

  test('what a user withdrew or revised stays so until the file itself changes', async () => {
    const store = await memory()
    await store.sync(A, [fact(1), fact(2)])
    await store.withdraw(T, ['e1'], 'user')
    await store.land([fact(2, { targetNew: 'By hand' })], POST)
    const version = store.version(T)
    await store.sync(A, [fact(1), fact(2)])
    expect(store.version(T)).toBe(version)
    expect(store.get(T, 'e1')?.state).toBe('withdrawn')
    await store.sync(A, [fact(1, { targetNew: 'New in the file' }), fact(2)])
    expect(store.get(T, 'e1')?.state).toBe('live')
    await store.sync(A, [])
    expect(store.get(T, 'e2')).toMatchObject({ state: 'live', edit: { targetNew: 'By hand' } })
  })

  test('a posted edit that a file happens to say too is not withdrawn with it', async () => {
    const store = await memory()
    await store.land([fact(1)], POST)
    await store.sync(A, [fact(1)])
    await store.sync(A, [])
    expect(store.get(T, 'e1')?.state).toBe('live')
  })

  test.each([
    ['new file first', [B, A]],
    ['old file first', [A, B]],
  ])('an edit moved to another file stays held: %s', async (_, order) => {
    const store = await memory({ now: clock() })
    await store.sync(A, [fact(1)])
    await store.sync(B, [])
    for (const file of order) await store.sync(file, file === B ? [fact(1)] : [])
    expect(store.get(T, 'e1')?.state).toBe('live')
    await store.sync(B, [])
    expect(store.get(T, 'e1')?.state).toBe('withdrawn')
  })

  test('files with edits still held are told, so that a deleted one can be emptied', async () => {
    const dataDir = scratch()
    const first = await memory({ dataDir })
    await first.sync(A, [fact(1)])
    await first.sync(B, [fact(2)])
    await first.close()
    const second = await memory({ dataDir })
    expect(second.sources().sort()).toEqual([A, B])
    await second.sync(A, [])
    expect(second.sources()).toEqual([B])
  })

  test('a file with one unlandable edit changes nothing', async () => {
    const store = await memory()
    await store.sync(A, [fact(1)])
    await expect(store.sync(A, [fact(2), fact(3, { id: '' })])).rejects.toThrowError(
      expect.objectContaining({ code: 'invalid_batch' }),
    )
    expect([store.get(T, 'e1')?.state, store.get(T, 'e2')]).toEqual(['live', undefined])
  })
})
