import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseBatch } from '../../../src/edit/batch.ts'
import { DATA, needing } from '../../needs.ts'

/** Public benchmark files, kept outside the repository; without them there is nothing to read here. */
const FOLDER = process.env.PALIMPSEST_TEST_DATA ?? join(import.meta.dirname, '../../../../shared/data')
const present = existsSync(FOLDER)

needing(present, DATA)('every benchmark file is read whole', { timeout: 60_000 }, () => {
  test.each([
    ['counterfact/counterfact-dev-500.json', 'counterfact', 500, { relation: 500, targetTrue: 500 }],
    ['counterfact/counterfact-flat-12k.json', 'counterfact', 12_000, { relation: 0, targetTrue: 12_000 }],
    ['zsre/zsre-dev-500.json', 'zsre', 500, { relation: 0, targetTrue: 500 }],
    ['knowedit/wiki_recent_train.json', 'knowedit', 570, { relation: 0, targetTrue: 0 }],
    ['knowedit/wiki_counterfact_train_500.json', 'knowedit', 500, { relation: 0, targetTrue: 500 }],
    ['mquake/mquake-2002-dev-400.json', 'mquake', 599, { relation: 599, targetTrue: 599, paraphrases: 599 }],
    ['temporal/wikifactdiff-train-1000.json', 'wikifactdiff', 1_000, { relation: 0, targetTrue: 1_000 }],
    ['conflict/coverage-500.json', 'conflictedit', 1_000, { relation: 1_000, targetTrue: 1_000 }],
  ] as const)('%s', (file, format, count, has) => {
    const batch = parseBatch(readFileSync(`${FOLDER}/${file}`), { tenant: 'default' })
    expect(batch.format).toBe(format)
    expect(batch.edits).toHaveLength(count)
    expect(batch.edits.filter(({ relation }) => relation !== undefined)).toHaveLength(has.relation)
    expect(batch.edits.filter(({ targetTrue }) => targetTrue !== undefined)).toHaveLength(has.targetTrue)
    expect(batch.edits.flatMap(({ paraphrases }) => paraphrases)).toHaveLength('paraphrases' in has ? has.paraphrases : 0)
    for (const { prompt, subject } of batch.edits) expect(prompt.toLowerCase()).toContain(subject.toLowerCase())
  })

  test.each(['nq-open-1500.jsonl', 'gsm8k-500.jsonl', 'mt-bench-80.jsonl'])(
    '%s holds no edits, and says so at every line',
    (file) => {
      const text = readFileSync(`${FOLDER}/traffic/${file}`, 'utf8')
      expect(() => parseBatch(text, { tenant: 'default', file })).toThrow(`${text.trim().split('\n').length} problems`)
    },
  )
})
