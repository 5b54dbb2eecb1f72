/** Every block of the documents that is marked `sh model` is run as it stands, on real models. */
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { build, type File, filesOf, openShell, pagesWith, type Shell } from '../docs/pages.ts'
import { MODELS, needing } from '../needs.ts'
import { town } from '../support/evaluate-fixture.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest')
const NAME = 'qwen2.5-coder-0.5b-instruct'
const FILES = [`${NAME}-q4_k_m.gguf`, 'multilingual-e5-small-q4_0.gguf', 'palimpsest-reader-q8_0.gguf']
const THERE = FILES.every((file) => existsSync(join(CACHE, 'models', file)))

/** What the page calls published data sets, one record of each. */
const DATA: readonly File[] = [
  { name: 'counterfact.json', content: JSON.stringify([town('Lindenfurt', 'Ottilie Brandvold', 'Paris', 'Quarrow')]) },
  { name: 'more-edits.json', content: JSON.stringify([town('Ostermoor', 'Caspar Weidel', 'London', 'Hexby')]) },
  { name: 'nq-open.jsonl', content: '{"question": "who wrote hamlet", "answer": ["William Shakespeare"]}\n' },
  { name: 'mmlu.jsonl', content: '{"question": "2 + 2 =", "choices": ["3", "4", "5", "6"], "answer": 1}\n' },
]

needing(THERE, MODELS)('the commands on real models of', { timeout: 600_000 }, () => {
  let shell: Shell
  beforeAll(build, 300_000)
  beforeEach(() => {
    shell = openShell()
  })
  afterEach(() => shell.remove())

  test.each(pagesWith('model'))('$name do as they say', async (page) => {
    shell.save([...filesOf(page), ...DATA])
    let printed = ''
    const settings = { PALIMPSEST_HOME: CACHE, PALIMPSEST_MODEL: NAME, PALIMPSEST_THREADS: '1', PALIMPSEST_GPU: 'off' }
    for (const block of page.blocks.filter(({ words }) => words === 'model')) printed += await shell.run(block, settings)
    // Answers by the methods that one record is enough for, then which edits are selected, without a model.
    expect(printed).toMatch(/## Generated answers\n+\| measure \| n \| base \| ice \| cosine \| palimpsest \|/)
    expect(printed).toMatch(/## Selection alone/)
    // Of two messages about the refund window, both get it; neither a sibling nor an unrelated message gets anything.
    expect(printed).toMatch(/team en \| paraphrase \| 2 \| 100\.0/)
    expect(printed).toMatch(/team en \| all \| 3 \| {2}\| {2}\| 0\.0/)
    expect(printed).toMatch(/Written: fires\.json, fires\.html/)
  })
})
