import { expect, test } from 'vitest'
import { foldedSeed } from '../../../src/engine/seed.ts'

test.each<[number | bigint, number]>([
  [0, 0],
  [42, 42],
  [-1, 0],
  [2 ** 32 - 2, 2 ** 32 - 2],
  // llama.cpp would draw a seed of its own for this one.
  [2 ** 32 - 1, 0],
])('a seed of %d is %d in 32 bits', (seed, folded) => {
  expect(foldedSeed(seed)).toBe(folded)
})

test('every bit of 64 counts', () => {
  const base = 0x1234_5678_9abc_def0n
  const seeds = Array.from({ length: 64 }, (_, bit) => foldedSeed(base ^ (1n << BigInt(bit))))
  expect(seeds).not.toContain(foldedSeed(base))
  expect(foldedSeed(base)).toBe(foldedSeed(base))
})
