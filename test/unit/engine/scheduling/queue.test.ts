import { describe, expect, it } from 'vitest'
import { SlotQueue } from '../../../../src/engine/scheduling/slot-queue.ts'

const first = (free: readonly string[]) => free[0]
const never = new AbortController().signal

describe('SlotQueue', () => {
  it('serves in order of arrival', async () => {
    const queue = new SlotQueue(['a'], 10, () => 0)
    const held = await queue.acquire(first, never)
    const order: number[] = []
    const waiting = [1, 2, 3].map(async (n) => {
      const lease = await queue.acquire(first, never)
      order.push(n)
      lease.release()
    })
    expect(queue.load()).toEqual({ slots: 1, busy: 1, queued: 3, queueLimit: 10 })
    held.release()
    await Promise.all(waiting)
    expect(order).toEqual([1, 2, 3])
    expect(queue.load()).toEqual({ slots: 1, busy: 0, queued: 0, queueLimit: 10 })
  })

  it('refuses at once when full, and says when to come back', async () => {
    let now = 0
    const queue = new SlotQueue(['a'], 2, () => now)
    const slow = await queue.acquire(first, never)
    now = 3000
    slow.release() // one request took 3 s
    await queue.acquire(first, never)
    void queue.acquire(first, never)
    void queue.acquire(first, never)
    await expect(queue.acquire(first, never)).rejects.toMatchObject({ code: 'queue_full', status: 429, retryAfterSeconds: 6 })
  })

  it('names at least one second before anything is known', async () => {
    const queue = new SlotQueue(['a'], 0, () => 0)
    await queue.acquire(first, never)
    await expect(queue.acquire(first, never)).rejects.toMatchObject({ retryAfterSeconds: 1 })
  })

  it('lets go of an aborted request, which frees its place in the queue', async () => {
    const queue = new SlotQueue(['a'], 1, () => 0)
    const held = await queue.acquire(first, never)
    const gone = new AbortController()
    const waiting = queue.acquire(first, gone.signal)
    gone.abort(new Error('left'))
    await expect(waiting).rejects.toThrow('left')
    expect(queue.load().queued).toBe(0)
    const next = queue.acquire(first, never)
    held.release()
    expect((await next).slot).toBe('a')
  })

  it('does not take a request that was aborted before it came', async () => {
    const queue = new SlotQueue(['a'], 1, () => 0)
    await expect(queue.acquire(first, AbortSignal.abort(new Error('left')))).rejects.toThrow('left')
    expect(queue.load().busy).toBe(0)
  })

  it('lets the chooser see all free slots at the moment of granting', async () => {
    const queue = new SlotQueue(['a', 'b'], 5, () => 0)
    const [a, b] = [await queue.acquire(first, never), await queue.acquire(first, never)]
    const seen: string[][] = []
    const waiting = queue.acquire((free) => {
      seen.push([...free])
      return free[0]
    }, never)
    b.release()
    b.release() // twice does nothing more
    expect((await waiting).slot).toBe('b')
    expect(seen).toEqual([['b']])
    a.release()
    expect(queue.load().busy).toBe(1)
  })

  it('refuses all that wait or come later once closed, and knows when it is empty', async () => {
    const queue = new SlotQueue(['a'], 5, () => 0)
    const held = await queue.acquire(first, never)
    const waiting = queue.acquire(first, never)
    queue.close()
    await expect(waiting).rejects.toMatchObject({ code: 'shutting_down' })
    await expect(queue.acquire(first, never)).rejects.toMatchObject({ code: 'shutting_down' })
    expect(await queue.drained(1)).toBe(false)
    const empty = queue.drained(60_000)
    held.release()
    expect(await empty).toBe(true)
  })
})
