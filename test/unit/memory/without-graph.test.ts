import { expect, test, vi } from 'vitest'
import { fact, fakeEmbedder, memory, POST, recordingLog, scratch, vectorOf } from '../../support/memory-fixture.ts'

vi.mock(import('../../../src/memory/graph/graph-library.ts'), async (original) => ({ ...(await original()), usearch: null }))

const DIMENSIONS = 16

test('where usearch does not load, every vector is scanned, and the log says so at the next start', async () => {
  const log = recordingLog()
  const options = { dataDir: scratch(), embedder: fakeEmbedder(), log, limits: { exactPoints: 10 } }
  const facts = Array.from({ length: 60 }, (_, i) => fact(i))
  const store = await memory(options)
  await store.land(facts, POST)
  await store.indexed()
  const query = vectorOf('The mayor of Town 7 is', DIMENSIONS)
  expect(store.search('default', query, 5)).toEqual(store.exactSearch('default', query, 5))
  await store.close()
  const again = await memory(options)
  await again.indexed()
  expect(again.search('default', query, 1)[0]?.editId).toBe('e7')
  expect(log.lines.map(({ message }) => message).filter((line) => line.includes('every vector is scanned'))).toHaveLength(1)
})
