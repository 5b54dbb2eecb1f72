import type { EvaluationPriority } from 'node-llama-cpp'
import { describe, expect, it } from 'vitest'
import { ALONE, alonePerBatch, SHARED } from '../../../src/engine/embedded/batching.ts'
import { QWEN_SYSTEM } from '../../../src/engine/format/chat-format.ts'
import { defaultSystem, fitSlots, guessFamily } from '../../../src/engine/format/model-family.ts'
import { tokenBytes } from '../../../src/engine/output/token-bytes.ts'

describe('guessFamily', () => {
  it.each([
    ['chatml', { architecture: 'qwen2', template: "{{'<|im_start|>' + role}}", vocabulary: 'gpt2' }],
    ['llama2', { architecture: 'llama', template: '[INST] <<SYS>>', vocabulary: 'llama' }],
    ['llama2', { architecture: 'llama', vocabulary: 'llama' }],
    [null, { architecture: 'llama', template: '[INST] {{content}}[/INST]', vocabulary: 'llama' }], // Mistral
    [null, { architecture: 'llama', vocabulary: 'gpt2' }], // LLaMA-3
    [null, {}],
  ])('says %s', (family, header) => {
    expect(guessFamily(header)).toBe(family)
  })
})

it('keeps Qwen’s system message to templates that have it', () => {
  expect(defaultSystem(undefined)).toBe(QWEN_SYSTEM)
  expect(defaultSystem(`…${QWEN_SYSTEM}…`)).toBe(QWEN_SYSTEM)
  expect(defaultSystem('<|im_start|>')).toBeNull()
})

describe('fitSlots', () => {
  const need = (freeBytes: number) => ({ modelBytes: 100, contextBytes: (slots: number) => 10 * slots, freeBytes })

  it('opens as many slots as memory allows', () => {
    expect(fitSlots(need(1000), 4, 'm.gguf')).toBe(4)
    expect(fitSlots(need(129), 4, 'm.gguf')).toBe(2)
  })

  it('says how much is missing when not one fits', () => {
    const mib = 2 ** 20
    const small = { modelBytes: 500 * mib, contextBytes: () => 24 * mib, freeBytes: 300 * mib }
    expect(() => fitSlots(small, 4, 'm.gguf')).toThrow(/m\.gguf needs about 524 MiB.*300 MiB are free/)
  })
})

describe('alonePerBatch', () => {
  const item = (evaluationPriority: EvaluationPriority, length = 1) => ({
    tokens: Array(length).fill(0),
    logits: [],
    evaluationPriority,
  })

  it('gives a marked evaluation a batch of its own, and the others the next one', () => {
    const strategy = alonePerBatch()
    const items = [item(SHARED), item(ALONE), item(SHARED, 64), item(ALONE)]
    const batch = () => strategy({ items, size: 512 }).map((chosen) => items.indexOf(chosen.item as never))
    expect([batch(), batch(), batch()]).toEqual([[1], [0, 2], [1]])
  })

  it('lets unmarked ones share, within the size', () => {
    const strategy = alonePerBatch()
    const sizes = strategy({ items: [item(SHARED, 60), item(SHARED, 60)], size: 100 }).map(({ processAmount }) => processAmount)
    expect(sizes).toEqual([60, 40])
  })
})

describe('tokenBytes', () => {
  const text = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString('latin1')

  it('reads byte-level and SentencePiece vocabularies, and shows no control token', () => {
    const gpt2 = tokenBytes({
      model: 'gpt2',
      tokens: ['Ġhi', 'Ċ', 'Ã©', '<|im_end|>', '<tool call>'],
      token_type: [1, 1, 1, 3, 4],
    })
    expect([0, 1, 2, 3, 4, 99].map((token) => text(gpt2?.(token)))).toEqual([' hi', '\n', '\xc3\xa9', '', '<tool call>', ''])
    const spm = tokenBytes({ model: 'llama', tokens: ['<unk>', '▁hi', '<0xE2>', '▁▁'], token_type: [2, 1, 6, 1] })
    expect([0, 1, 2, 3].map((token) => text(spm?.(token)))).toEqual(['', ' hi', '\xe2', '  '])
    expect(tokenBytes({ model: 'bert', tokens: [], token_type: [] })).toBeNull()
  })
})
