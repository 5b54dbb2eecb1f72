import { expect, it } from 'vitest'
import { ItemQueue, sideBySide } from '../../../../src/engine/scheduling/item-queue.ts'

it('goes on after a job of no items', async () => {
  const queue = new ItemQueue(
    async (list: readonly number[]) => list.map((n) => 2 * n),
    () => 1,
  )
  expect(await queue.run([], 'query')).toEqual([])
  expect(await queue.run([1, 2], 'import')).toEqual([2, 4])
})

it('lets a query in between the items of an import', async () => {
  const order: string[] = []
  const queue = new ItemQueue(
    async ([item = '']: readonly string[]) => [order.push(item)],
    () => 1,
  )
  const jobs = [queue.run(['i1', 'i2'], 'import'), queue.run(['q'], 'query')]
  await Promise.all(jobs)
  expect(order).toEqual(['i1', 'q', 'i2'])
})

it('takes as many items of one job as it may, and none of the next', async () => {
  const taken: (readonly number[])[] = []
  const evaluate = async (list: readonly number[]) => {
    taken.push(list)
    return list.map((n) => 2 * n)
  }
  const queue = new ItemQueue(evaluate, () => 2)
  expect(await Promise.all([queue.run([1, 2, 3], 'query'), queue.run([4], 'query')])).toEqual([[2, 4, 6], [8]])
  expect(taken).toEqual([[1, 2], [3], [4]])
})

it('works side by side, in order, and throws what failed when no work is under way', async () => {
  const LANES = ['one', 'other']
  let [now, most] = [0, 0]
  const work = async (_: string, n: number) => {
    most = Math.max(most, ++now)
    await new Promise((resume) => setTimeout(resume, n))
    now--
    if (n === 3) throw new Error('three')
    return 2 * n
  }
  expect(await sideBySide(LANES, [9, 1, 2, 4], work)).toEqual([18, 2, 4, 8])
  expect(most).toBe(2)
  await expect(sideBySide(LANES, [3, 9], work)).rejects.toThrow('three')
  expect(now).toBe(0)
  expect(await sideBySide(LANES, [], work)).toEqual([])
})
