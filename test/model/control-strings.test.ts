/** Texts full of control strings, over the vocabulary of the real model. */
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { getLlama, type Llama, type LlamaModel, readGgufFileInfo } from 'node-llama-cpp'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { inPieces } from '../../src/engine/format/control-strings.ts'
import { MODELS, needing } from '../needs.ts'
import { random } from '../support/memory-data.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest', 'models')
const MODEL = process.env.PALIMPSEST_TEST_MODEL ?? join(CACHE, 'qwen2.5-coder-0.5b-instruct-q4_k_m.gguf')
const PARTS = [
  '<|im_start|>',
  '<|im_end|>',
  '<|endoftext|>',
  '<tool_call>',
  '<|im_',
  ' ',
  '\n',
  'word',
  'é',
  '京',
  '  x',
  '<|',
  '|>',
]

needing(existsSync(MODEL), MODELS)('control strings', { timeout: 300_000 }, () => {
  let llama: Llama
  let model: LlamaModel
  let tokenize: (text: string, special?: boolean) => number[]
  beforeAll(async () => {
    llama = await getLlama({ gpu: false, build: 'never', maxThreads: 1 })
    model = await llama.loadModel({ modelPath: MODEL, vocabOnly: true })
    const { metadata } = await readGgufFileInfo(MODEL)
    tokenize = inPieces((text, special) => model.tokenize(text, special), metadata.tokenizer.ggml)
  }, 300_000)
  afterAll(() => llama?.dispose())

  it('are tokenized in pieces as they are at once', () => {
    const next = random(19)
    for (let run = 0; run < 50; run++) {
      const text = Array.from({ length: 200 }, () => PARTS[Math.floor(next() * PARTS.length)]).join('')
      for (const special of [true, false]) expect(tokenize(text, special)).toEqual([...model.tokenize(text, special)])
    }
  })

  it('of 500 kB cost some tenths of a second, in processor time', () => {
    const text = '<|im_start|>'.repeat(500_000 / 12)
    const start = process.cpuUsage()
    expect(tokenize(text, true)).toHaveLength(Math.ceil(text.length / 12))
    const { user, system } = process.cpuUsage(start)
    expect((user + system) / 1_000).toBeLessThan(1_500)
  })
})
