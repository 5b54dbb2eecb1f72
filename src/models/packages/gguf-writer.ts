import { open } from 'node:fs/promises'

/** Writing GGUF version 3 (ggml-org/ggml, docs/gguf.md): little-endian header, metadata, tensor table, aligned tensor data. */
export type GgufValue =
  | { readonly type: 'u32'; readonly value: number }
  | { readonly type: 'f32'; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'i32s'; readonly value: readonly number[] }
  | { readonly type: 'f32s'; readonly value: Float32Array }
  | { readonly type: 'strings'; readonly value: readonly string[] }

export interface GgufTensor {
  readonly name: string
  /** Fastest-varying dimension first, as ggml counts: the reverse of PyTorch's shape. */
  readonly shape: readonly number[]
  /** The quantized ones (`q4_0`, `q8_0`) come as llama.cpp's own blocks. */
  readonly type: 'f32' | 'f16' | 'q4_0' | 'q8_0'
  readonly data: Uint8Array
}

const ALIGNMENT_BYTES = 32
const TENSOR_TYPE = { f32: 0, f16: 1, q4_0: 2, q8_0: 8 } as const
const KIND = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const

function u32(value: number): Buffer {
  const b = Buffer.alloc(4)
  b.writeUInt32LE(value)
  return b
}

function u64(value: number): Buffer {
  const b = Buffer.alloc(8)
  b.writeBigUInt64LE(BigInt(value))
  return b
}

function f32(value: number): Buffer {
  const b = Buffer.alloc(4)
  b.writeFloatLE(value)
  return b
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'utf8')
  return Buffer.concat([u64(bytes.length), bytes])
}

function valueBytes(v: GgufValue): Buffer[] {
  switch (v.type) {
    case 'u32':
      return [u32(KIND.u32), u32(v.value)]
    case 'f32':
      return [u32(KIND.f32), f32(v.value)]
    case 'bool':
      return [u32(KIND.bool), Buffer.from([v.value ? 1 : 0])]
    case 'string':
      return [u32(KIND.string), text(v.value)]
    case 'i32s':
      return [u32(KIND.array), u32(KIND.i32), u64(v.value.length), Buffer.from(Int32Array.from(v.value).buffer)]
    case 'f32s':
      return [
        u32(KIND.array),
        u32(KIND.f32),
        u64(v.value.length),
        Buffer.from(v.value.buffer, v.value.byteOffset, v.value.byteLength),
      ]
    case 'strings':
      return [u32(KIND.array), u32(KIND.string), u64(v.value.length), Buffer.concat(v.value.map(text))]
    default:
      return v satisfies never
  }
}

function padding(length: number): Buffer {
  return Buffer.alloc((ALIGNMENT_BYTES - (length % ALIGNMENT_BYTES)) % ALIGNMENT_BYTES)
}

/** The file in pieces, to be written in order. The same input always gives the same bytes. */
export function ggufPieces(
  metadata: readonly (readonly [key: string, value: GgufValue])[],
  tensors: readonly GgufTensor[],
): Uint8Array[] {
  const head: Buffer[] = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(metadata.length)]
  for (const [key, value] of metadata) head.push(text(key), ...valueBytes(value))
  let offset = 0
  const data: Uint8Array[] = []
  for (const tensor of tensors) {
    head.push(text(tensor.name), u32(tensor.shape.length), ...tensor.shape.map(u64), u32(TENSOR_TYPE[tensor.type]), u64(offset))
    const pad = padding(tensor.data.length)
    data.push(tensor.data, pad)
    offset += tensor.data.length + pad.length
  }
  const header = Buffer.concat(head)
  return [header, padding(header.length), ...data]
}

/** Writes the file and syncs it. */
export async function writeGguf(path: string, ...parts: Parameters<typeof ggufPieces>): Promise<void> {
  const out = await open(path, 'w')
  try {
    for (const piece of ggufPieces(...parts)) await out.writeFile(piece)
    await out.sync()
  } finally {
    await out.close()
  }
}

/** IEEE 754 binary32 to binary16, to nearest, ties to even. */
export function toHalf(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const halves = new Uint16Array(bits.length)
  // A plain loop: `Uint16Array.from` with a function takes twenty times as long.
  for (let i = 0; i < bits.length; i++) halves[i] = halfBits(bits[i] as number)
  return halves
}

function halfBits(x: number): number {
  const sign = (x >>> 16) & 0x8000
  const exponent = (x >>> 23) & 0xff
  const mantissa = x & 0x7fffff
  if (exponent === 0xff) return sign | 0x7c00 | (mantissa === 0 ? 0 : 0x200)
  const e = exponent - 112
  if (e >= 0x1f) return sign | 0x7c00
  // Below the normal range the implicit one becomes explicit and everything moves right; below half of the smallest it is zero.
  const shift = e > 0 ? 13 : 14 - e
  if (shift > 24) return sign
  const whole = e > 0 ? (e << 23) | mantissa : mantissa | 0x800000
  const kept = whole >>> shift
  const rest = whole & ((1 << shift) - 1)
  const half = 1 << (shift - 1)
  // A carry out of the mantissa lands in the exponent, which is the right next number (or infinity).
  return sign | (kept + (rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0))
}
