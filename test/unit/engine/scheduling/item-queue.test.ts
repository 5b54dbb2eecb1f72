import { expect, it } from 'vitest'
import { ItemQueue } from '../../../../src/engine/scheduling/item-queue.ts'

it('goes on after a job of no items', async () => {
  const queue = new ItemQueue(async (n: number) => 2 * n)
  expect(await queue.run([], 'query')).toEqual([])
  expect(await queue.run([1, 2], 'import')).toEqual([2, 4])
})

it('lets a query in between the items of an import', async () => {
  const order: string[] = []
  const queue = new ItemQueue(async (item: string) => void order.push(item))
  const jobs = [queue.run(['i1', 'i2'], 'import'), queue.run(['q'], 'query')]
  await Promise.all(jobs)
  expect(order).toEqual(['i1', 'q', 'i2'])
})
