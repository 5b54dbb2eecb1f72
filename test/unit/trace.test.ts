import { expect, test } from 'vitest'
import { Trace } from '../../src/trace.ts'

test('a stage within another counts for itself alone, and stands behind the one that it is in', async () => {
  let now = 0
  const trace = new Trace('t', () => now)
  const takes = (ms: number) => () => {
    now += ms
  }
  await trace.time('retrieve', async () => {
    takes(1)()
    await trace.time('read', takes(20))
    takes(2)()
    await trace.time('read', takes(30))
  })
  await trace.time('gate', () => trace.time('read', takes(4)))
  await trace.time('gate', takes(8))
  expect(Object.entries(trace.stagesMs)).toEqual([
    ['retrieve', 3],
    ['read', 54],
    ['gate', 8],
  ])
})

test('a stage that fails has its time counted, and what it was in too', async () => {
  let now = 0
  const trace = new Trace('t', () => now)
  const fail = () => {
    now += 5
    throw new Error('the reader is gone')
  }
  await expect(trace.time('retrieve', () => trace.time('read', fail))).rejects.toThrow('the reader is gone')
  expect(trace.stagesMs).toEqual({ retrieve: 0, read: 5 })
})
