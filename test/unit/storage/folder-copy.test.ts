import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { copyMemory } from '../../../src/storage/folder-copy.ts'
import { fact, fakeEmbedder, memory, POST, scratch } from '../../support/memory-fixture.ts'

describe('a copy of a memory', () => {
  test('is made while the memory is held, with its vectors, and goes its own way', async () => {
    const [dataDir, copyDir] = [scratch(), scratch()]
    const held = await memory({ dataDir })
    await held.land([fact(1), fact(2)], POST)
    await held.indexed()
    await copyMemory(dataDir, copyDir)
    const embedder = fakeEmbedder()
    const copy = await memory({ dataDir: copyDir, embedder })
    await copy.indexed()
    expect(copy.all('default').map(({ edit }) => edit.id)).toEqual(['e1', 'e2'])
    expect(embedder.asked).toEqual([])
    copy.withdraw('default', ['e1'], 'test')
    expect(held.get('default', 'e1')?.state).toBe('live')
  })

  test('is made of a folder that nobody holds', async () => {
    const [dataDir, copyDir] = [scratch(), scratch()]
    const closed = await memory({ dataDir })
    await closed.land([fact(1)], POST)
    await closed.close()
    await copyMemory(dataDir, copyDir)
    expect((await memory({ dataDir: copyDir })).all('default')).toHaveLength(1)
  })

  test('of nothing is nothing, and a damaged one is named', async () => {
    const [dataDir, copyDir] = [scratch(), scratch()]
    await copyMemory(join(dataDir, 'none'), copyDir)
    expect(existsSync(join(copyDir, 'palimpsest.db'))).toBe(false)
    writeFileSync(join(dataDir, 'palimpsest.db'), 'not a database, but long enough to be looked at '.repeat(40))
    await expect(copyMemory(dataDir, copyDir)).rejects.toMatchObject({ code: 'storage_failed' })
  })
})
