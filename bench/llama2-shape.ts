/**
 * Writes a GGUF file of LLaMA-2-7B's shape: the real vocabulary (from llama.cpp's source, which node-llama-cpp brings along), random
 * weights in Q4_0. What it says is noise, but loading, memory and speed are the real model's. Where the weights can't be had, the 7B path
 * is driven with it. `npm run bench:llama2 -- --out FILE [--layers 32]` (Touvron et al. 2023, table 1 and the released configuration.)
 */
import { execFileSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values: flags } = parseArgs({ options: { out: { type: 'string' }, layers: { type: 'string', default: '32' } } })
if (flags.out === undefined) throw new Error('Expected --out FILE, where the model is to be written.')

const LAYERS = Number(flags.layers)
const [WIDTH, HIDDEN, WORDS] = [4096, 11_008, 32_000]
const ALIGNMENT_BYTES = 32
const TYPE = { f32: 0, q4_0: 2 } as const
/** Bytes of the types of a GGUF value, by their number; strings (8) and arrays (9) have a length of their own. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]

interface Tensor {
  readonly name: string
  readonly shape: readonly number[]
  readonly type: keyof typeof TYPE
}

function tensors(): Tensor[] {
  const weights = (name: string, ...shape: number[]): Tensor => ({ name: `${name}.weight`, shape, type: 'q4_0' })
  const norm = (name: string): Tensor => ({ name: `${name}.weight`, shape: [WIDTH], type: 'f32' })
  const layers = Array.from({ length: LAYERS }, (_, i) => `blk.${i}`).flatMap((layer) => [
    norm(`${layer}.attn_norm`),
    ...['q', 'k', 'v', 'output'].map((part) => weights(`${layer}.attn_${part}`, WIDTH, WIDTH)),
    norm(`${layer}.ffn_norm`),
    weights(`${layer}.ffn_gate`, WIDTH, HIDDEN),
    weights(`${layer}.ffn_up`, WIDTH, HIDDEN),
    weights(`${layer}.ffn_down`, HIDDEN, WIDTH),
  ])
  return [weights('token_embd', WIDTH, WORDS), norm('output_norm'), weights('output', WIDTH, WORDS), ...layers]
}

const weightsOf = ({ shape }: Tensor) => shape.reduce((product, n) => product * n, 1)
/** Q4_0: 32 weights in 18 bytes, an f16 scale and 4 bits each. */
const bytesOf = (tensor: Tensor) => (tensor.type === 'f32' ? 4 * weightsOf(tensor) : (weightsOf(tensor) / 32) * 18)
const aligned = (n: number) => Math.ceil(n / ALIGNMENT_BYTES) * ALIGNMENT_BYTES

/** llama.cpp's own test vocabulary: a GGUF file without tensors. */
function vocabulary(): Buffer {
  const bundle = join(dirname(fileURLToPath(import.meta.resolve('node-llama-cpp'))), '../llama/gitRelease.bundle')
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-vocabulary-'))
  try {
    execFileSync('git', ['clone', '--quiet', '--bare', bundle, folder])
    const show = ['--git-dir', folder, 'show', 'HEAD:models/ggml-vocab-llama-spm.gguf']
    return execFileSync('git', show, { maxBuffer: 64 * 1024 * 1024 })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The file's keys and values, each as the bytes it has there. */
function metadata(file: Buffer): Map<string, Buffer> {
  let at = 24
  const u64 = () => {
    at += 8
    return Number(file.readBigUInt64LE(at - 8))
  }
  const u32 = () => {
    at += 4
    return file.readUInt32LE(at - 4)
  }
  const skip = (type: number, count: number) => {
    if (type !== 8) at += count * (VALUE_BYTES[type] ?? 0)
    else
      for (let i = 0; i < count; i++) {
        const length = u64()
        at += length
      }
  }
  const found = new Map<string, Buffer>()
  for (let left = Number(file.readBigUInt64LE(16)); left > 0; left--) {
    const start = at
    const length = u64()
    const key = file.toString('utf8', at, at + length)
    at += length
    const type = u32()
    if (type === 9) skip(u32(), u64())
    else skip(type, 1)
    found.set(key, file.subarray(start, at))
  }
  return found
}

const u32 = (n: number) => Buffer.from(Uint32Array.of(n).buffer)
const u64 = (n: number) => Buffer.from(BigUint64Array.of(BigInt(n)).buffer)
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])
const pair = (key: string, type: number, value: Buffer) => [key, Buffer.concat([text(key), u32(type), value])] as const
const f32 = (n: number) => Buffer.from(Float32Array.of(n).buffer)

function header(all: readonly Tensor[]): Buffer {
  const keys = new Map([...metadata(vocabulary())].filter(([key]) => key.startsWith('tokenizer.')))
  const numbers = {
    ...{ context_length: 4096, embedding_length: WIDTH, block_count: LAYERS, feed_forward_length: HIDDEN, vocab_size: WORDS },
    ...{ 'attention.head_count': 32, 'attention.head_count_kv': 32, 'rope.dimension_count': 128 },
  }
  for (const [key, entry] of [
    pair('general.architecture', 8, text('llama')),
    pair('general.name', 8, text('random weights in the shape of LLaMA-2-7B')),
    pair('general.file_type', 4, u32(2)),
    pair('llama.attention.layer_norm_rms_epsilon', 6, f32(1e-5)),
    ...Object.entries(numbers).map(([key, value]) => pair(`llama.${key}`, 4, u32(value))),
  ])
    keys.set(key, entry)
  let offset = 0
  const table = all.map((tensor) => {
    const { name, shape, type } = tensor
    const entry = Buffer.concat([text(name), u32(shape.length), ...shape.map(u64), u32(TYPE[type]), u64(offset)])
    offset = aligned(offset + bytesOf(tensor))
    return entry
  })
  const head = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(all.length), u64(keys.size), ...keys.values(), ...table])
  return Buffer.concat([head, Buffer.alloc(aligned(head.length) - head.length)])
}

/** Half-precision 0.0043: weights of a standard deviation of 0.02, as models begin with. */
const SCALE = 0x1c67
const CHUNK_BYTES = 18 * 65_536

function write(file: number, tensor: Tensor): void {
  if (tensor.type === 'f32') return void writeSync(file, Buffer.from(new Float32Array(weightsOf(tensor)).fill(1).buffer))
  const whole = bytesOf(tensor)
  for (let left = whole; left > 0; left -= CHUNK_BYTES) {
    const chunk = randomFillSync(Buffer.allocUnsafe(Math.min(CHUNK_BYTES, left)))
    for (let at = 0; at < chunk.length; at += 18) chunk.writeUInt16LE(SCALE, at)
    writeSync(file, chunk)
  }
  writeSync(file, Buffer.alloc(aligned(whole) - whole))
}

const start = performance.now()
const all = tensors()
const file = openSync(flags.out, 'w')
const head = header(all)
writeSync(file, head)
for (const tensor of all) write(file, tensor)
closeSync(file)
const bytes = head.length + all.reduce((sum, tensor) => sum + aligned(bytesOf(tensor)), 0)
console.log(
  `${flags.out}: ${all.length} tensors, ${(bytes / 1e9).toFixed(2)} GB, ${((performance.now() - start) / 1000).toFixed(1)} s`,
)
