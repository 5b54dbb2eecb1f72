/** Every block of the documents that is marked `sh model` is run as it stands, on real models. */
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { build, openShell, pagesWith, type Shell } from '../docs/pages.ts'
import { MODELS, needing } from '../needs.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest')
const FILES = ['multilingual-e5-small-q4_0.gguf', 'palimpsest-reader-q8_0.gguf']
const THERE = FILES.every((file) => existsSync(join(CACHE, 'models', file)))

needing(THERE, MODELS)('the commands on real models of', { timeout: 600_000 }, () => {
  let shell: Shell
  beforeAll(build, 300_000)
  beforeEach(() => {
    shell = openShell()
  })
  afterEach(() => shell.remove())

  test.each(pagesWith('model'))('$name do as they say', async ({ files, commands }) => {
    shell.save(files)
    let printed = ''
    for (const block of commands) printed += await shell.run(block, { PALIMPSEST_HOME: CACHE })
    // Of two messages about the refund window, both get it; neither a sibling nor an unrelated message gets anything.
    expect(printed).toMatch(/team en \| paraphrase \| 2 \| 100\.0/)
    expect(printed).toMatch(/team en \| all \| 3 \| {2}\| {2}\| 0\.0/)
    expect(printed).toMatch(/Written: fires\.json, fires\.html/)
  })
})
