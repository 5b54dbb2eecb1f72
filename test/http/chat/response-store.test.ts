import { describe, expect, test } from 'vitest'
import { ResponseStore } from '../../../src/http/reply/response-store.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'

const message = (id: string, text: string) => ({ type: 'message' as const, role: 'user' as const, id, content: [text] })
const LIMIT_BYTES = 100_000

describe.each(DIALECTS)('responses kept in %s', (dialect) => {
  const { open, again } = databases(dialect)
  const kept = (n: number, previous: string | null, text = `words ${n}`) => ({
    response: { id: `resp_${n}`, object: 'response' },
    items: [message(`msg_${n}`, text)],
    previous,
  })

  test('are found from another gateway: response, conversation and item', async () => {
    const database = await open()
    const store = new ResponseStore(database, LIMIT_BYTES)
    await store.keep('acme', 'resp_1', kept(1, null))
    await store.keep('acme', 'resp_2', kept(2, 'resp_1'))
    const other = new ResponseStore(again(database), LIMIT_BYTES)
    expect(await other.response('acme', 'resp_2')).toEqual({ id: 'resp_2', object: 'response' })
    expect(await other.conversation('acme', 'resp_2')).toEqual([message('msg_1', 'words 1'), message('msg_2', 'words 2')])
    expect(await other.item('acme', 'msg_1')).toEqual(message('msg_1', 'words 1'))
  })

  test('are one tenant’s', async () => {
    const store = new ResponseStore(await open(), LIMIT_BYTES)
    await store.keep('acme', 'resp_1', kept(1, null))
    await store.keep('other', 'resp_2', kept(2, 'resp_1'))
    expect(await store.response('other', 'resp_1')).toBeUndefined()
    expect(await store.conversation('other', 'resp_2')).toBeUndefined()
    expect(await store.item('other', 'msg_1')).toBeUndefined()
    expect(await store.drop('other', 'resp_1')).toBe(false)
  })

  test('are forgotten whole when told, and a conversation that lacks one is none', async () => {
    const store = new ResponseStore(await open(), LIMIT_BYTES)
    await store.keep('acme', 'resp_1', kept(1, null))
    await store.keep('acme', 'resp_2', kept(2, 'resp_1'))
    expect([await store.drop('acme', 'resp_1'), await store.drop('acme', 'resp_1')]).toEqual([true, false])
    expect(await store.item('acme', 'msg_1')).toBeUndefined()
    expect(await store.conversation('acme', 'resp_2')).toBeUndefined()
    expect(await store.conversation('acme', 'resp_1')).toBeUndefined()
  })

  test('stay within their bytes, the latest there', async () => {
    const database = await open()
    const store = new ResponseStore(database, LIMIT_BYTES)
    for (let n = 0; n < 100; n++) {
      await store.keep('acme', `resp_${n}`, kept(n, null, 'x'.repeat(2_000)))
      expect(await store.response('acme', `resp_${n}`)).toBeDefined()
    }
    const [row] = await database.all<{ total: number; n: number }>(
      'reading',
      'SELECT sum(bytes) AS total, count(*) AS n FROM responses',
    )
    expect(Number(row?.total)).toBeLessThanOrEqual(LIMIT_BYTES)
    expect(Number(row?.total)).toBeGreaterThan(LIMIT_BYTES * 0.8)
    const [items] = await database.all<{ n: number }>('reading', 'SELECT count(*) AS n FROM response_items')
    expect(Number(items?.n)).toBe(Number(row?.n))
    await store.keep('acme', 'resp_long', kept(200, null, 'x'.repeat(LIMIT_BYTES)))
    expect(await store.response('acme', 'resp_long')).toBeUndefined()
  })
})
