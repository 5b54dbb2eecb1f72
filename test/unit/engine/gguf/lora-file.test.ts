import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { GgufFileInfo } from 'node-llama-cpp'
import { afterAll, describe, expect, it } from 'vitest'
import { headerIn } from '../../../../src/engine/gguf/header.ts'
import { readLora } from '../../../../src/engine/gguf/lora.ts'
import { type GgufTensor, type GgufValue, ggufPieces, toHalf } from '../../../../src/models/packages/gguf-writer.ts'

const dir = mkdtempSync(join(tmpdir(), 'palimpsest-lora-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const WEIGHT = 'blk.0.ffn_down.weight'
const [INPUTS, OUTPUTS] = [8, 6]
const base = {
  metadata: { general: { architecture: 'qwen2' }, tokenizer: { ggml: { tokens: ['a', 'b'] } } },
  fullTensorInfo: [{ name: WEIGHT, dimensions: [INPUTS, OUTPUTS] }],
} as unknown as GgufFileInfo

const floats = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
const part = (suffix: string, shape: readonly number[], values?: Float32Array): GgufTensor => ({
  ...{ name: `${WEIGHT}.${suffix}`, shape, type: 'f32' },
  data: floats(values ?? new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5)),
})
const pair = (rank: number, a?: Float32Array) => [part('lora_a', [INPUTS, rank], a), part('lora_b', [rank, OUTPUTS])]
const KEYS: (readonly [string, GgufValue])[] = [
  ['general.type', { type: 'string', value: 'adapter' }],
  ['general.architecture', { type: 'string', value: 'qwen2' }],
  ['adapter.type', { type: 'string', value: 'lora' }],
  ['adapter.lora.alpha', { type: 'f32', value: 2 }],
]
const file = (tensors: readonly GgufTensor[], more: readonly (readonly [string, GgufValue])[] = []) =>
  Buffer.concat(ggufPieces([...KEYS.filter(([key]) => !more.some(([other]) => other === key)), ...more], tensors))
const good = file(pair(2))

/** The same bytes with another number where `after` ends. */
function claiming(after: string | Buffer, value: bigint, bytes: 4 | 8 = 8): Buffer {
  const changed = Buffer.from(good)
  const at = changed.indexOf(after) + Buffer.from(after).length
  if (bytes === 8) changed.writeBigUInt64LE(value, at)
  else changed.writeUInt32LE(Number(value), at)
  return changed
}

async function read(bytes: Buffer) {
  const path = join(dir, 'adapter.gguf')
  writeFileSync(path, bytes)
  return readLora(path, base)
}

/** Bytes of its tensors, padding included, and of the padding at its end. */
const [DATA, PADDING] = [128, 16]
const VERSION = Buffer.from([3, 0, 0, 0])
const counts = good.subarray(4, 16)
const lengthOf = (text: string) => Buffer.from([text.length, 0, 0, 0, 0, 0, 0, 0])
/** What comes before the length of a text. */
const upTo = (text: string) => good.subarray(0, good.indexOf(Buffer.concat([lengthOf(text), Buffer.from(text)])))

describe('the header of an adapter’s file', () => {
  it('is read, of all kinds of values', async () => {
    expect(await read(good)).toEqual({ architecture: 'qwen2', rank: 2, bytes: good.length, weights: [WEIGHT] })
    const more = file(pair(2), [
      ['general.alignment', { type: 'u32', value: 32 }],
      ['some.numbers', { type: 'i32s', value: [1, 2, 3] }],
      ['some.truth', { type: 'bool', value: true }],
      ['tokenizer.ggml.tokens', { type: 'strings', value: ['a', 'b'] }],
    ])
    expect(await read(more)).toMatchObject({ rank: 2 })
    const { values, tensors } = headerIn(more, more.length)
    expect([values.get('some.truth'), values.get('some.numbers'), values.get('adapter.lora.alpha')]).toEqual([true, undefined, 2])
    expect(tensors.map(({ sizes, bytes }) => [sizes, bytes])).toEqual([
      [[8, 2], 64],
      [[2, 6], 48],
    ])
  })

  const huge = 2n ** 60n
  const wrong: readonly (readonly [string, Buffer, RegExp])[] = [
    ['tensors', claiming(Buffer.concat([Buffer.from('GGUF'), VERSION]), huge), /beyond every file|claims/],
    ['a few more tensors', claiming(Buffer.concat([Buffer.from('GGUF'), VERSION]), 3n), /name|dimensions|breaks off/],
    ['keys', claiming(Buffer.concat([Buffer.from('GGUF'), counts]), huge), /beyond every file|claims/],
    ['four billion keys', claiming(Buffer.concat([Buffer.from('GGUF'), counts]), 2n ** 32n), /claims 4294967296 keys/],
    ['a text of 3e9 bytes', claiming(upTo('adapter'), 3_000_000_000n), /breaks off/],
    ['a key of 3e9 bytes', claiming(upTo('general.type'), 3_000_000_000n), /the name of a key has 3000000000 bytes/],
    ['dimensions', claiming(`${WEIGHT}.lora_a`, 2n ** 32n - 1n, 4), /has 4294967295 dimensions/],
    ['no dimensions', claiming(`${WEIGHT}.lora_a`, 0n, 4), /has 0 dimensions/],
    ['a size', claiming(Buffer.concat([Buffer.from(`${WEIGHT}.lora_a`), Buffer.from([2, 0, 0, 0])]), huge), /beyond every file/],
    [
      'sizes whose product is',
      claiming(Buffer.concat([Buffer.from(`${WEIGHT}.lora_a`), Buffer.from([2, 0, 0, 0])]), 2n ** 40n),
      /beyond the file/,
    ],
    ['a version', claiming('GGUF', 99n, 4), /version 99/],
  ]
  it.each(wrong)('is refused where it claims %s that it can’t hold', async (_, bytes, message) => {
    const began = performance.now()
    await expect(read(bytes)).rejects.toMatchObject({ code: 'adapter_mismatch', message: expect.stringMatching(message) })
    expect(performance.now() - began).toBeLessThan(1_000)
  })

  it('is refused wherever it breaks off, and whichever byte is another', async () => {
    for (let length = 0; length < good.length - PADDING; length++)
      expect(() => headerIn(good.subarray(0, length), length), String(length)).toThrow(Error)
    for (let at = 0; at < good.length - DATA; at++)
      for (const flip of [0x01, 0x80, 0xff]) {
        const bytes = Buffer.from(good)
        bytes[at] = (bytes[at] ?? 0) ^ flip
        const began = performance.now()
        try {
          headerIn(bytes, bytes.length)
        } catch (error) {
          expect(error).not.toBeInstanceOf(RangeError)
        }
        expect(performance.now() - began).toBeLessThan(500)
      }
  })

  it('is refused with an array that it can’t hold, and with keys that would change objects', async () => {
    const array = file(pair(2), [['some.numbers', { type: 'i32s', value: [1, 2, 3] }]])
    const at = array.indexOf(Buffer.from([5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0])) + 4
    array.writeBigUInt64LE(2n ** 31n, at)
    await expect(read(array)).rejects.toThrow(/claims 2147483648 values/)
    await expect(read(file(pair(2), [['general.__proto__.x', { type: 'u32', value: 1 }]]))).rejects.toThrow(/is none/)
    await expect(read(file(pair(2), [['general.alignment', { type: 'u32', value: 0 }]]))).rejects.toThrow(/alignment/)
    const [a] = pair(2)
    await expect(read(file([a as GgufTensor, a as GgufTensor]))).rejects.toThrow(/one name/)
  })
})

describe('weights of an adapter', () => {
  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])('are refused with %s among them', async (value) => {
    const values = new Float32Array(INPUTS * 2).fill(1)
    values[11] = value
    await expect(read(file(pair(2, values)))).rejects.toMatchObject({
      code: 'adapter_mismatch',
      message: expect.stringMatching(/expected finite weights, got NaN or infinity in `blk\.0\.ffn_down\.weight\.lora_a`/),
    })
    const halves = { ...part('lora_a', [INPUTS, 2]), type: 'f16' as const, data: new Uint8Array(toHalf(values).buffer) }
    await expect(read(file([halves, part('lora_b', [2, OUTPUTS])]))).rejects.toThrow(/finite weights/)
    await expect(read(file(pair(2), [['adapter.lora.alpha', { type: 'f32', value }]]))).rejects.toThrow(
      /finite adapter.lora.alpha/,
    )
  })

  it('are refused with a rank beyond the matrix, and taken with the largest there is', async () => {
    expect(await read(file(pair(OUTPUTS)))).toMatchObject({ rank: OUTPUTS })
    await expect(read(file(pair(OUTPUTS + 1)))).rejects.toThrow(
      /expected a rank of at most 6 for `blk\.0\.ffn_down\.weight`, got 7/,
    )
  })

  it('may leave away sizes of 1 at the end', async () => {
    expect(await read(file([part('lora_a', [INPUTS]), part('lora_b', [1, OUTPUTS])]))).toMatchObject({ rank: 1 })
    await expect(read(file([part('lora_a', [INPUTS, 1, 3]), part('lora_b', [1, OUTPUTS, 3])]))).rejects.toThrow(
      /of 8 × 6, got parts/,
    )
  })
})
