import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PalimpsestError } from '../../errors.ts'
import { PACKAGE_ROOT } from '../../package-root.ts'
import { type GgufTensor, type GgufValue, writeGguf } from './gguf-writer.ts'

/**
 * multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672) from its 4-bit carrier to GGUF. The carrier's matrices are llama.cpp's own
 * Q4_0 blocks, so they pass on as they are. Two files come of it: the embedder (mean pooling), and the reader, whose layers and head are
 * ours (`calibration/reader.safetensors`) and whose token embeddings are the body's.
 */
/** The reader's own layers and head, written by `npm run train:reader`. */
export const READER_WEIGHTS = join(PACKAGE_ROOT, 'calibration', 'reader.safetensors')

interface Stored {
  readonly from: number
  readonly bytes: number
  readonly values: number
}

interface Carrier {
  readonly file: Buffer
  readonly width: number
  readonly layers: number
  readonly heads: number
  readonly inner: number
  readonly positions: number
  readonly epsilon: number
  readonly pieces: readonly string[]
  readonly scores: Float32Array
  readonly tensors: ReadonlyMap<string, Stored>
}

const MAGIC = 'E5S1'
const BLOCK_VALUES = 32
const Q4_BLOCK_BYTES = 18

/** The carrier's layout is that of its `e5.c`: shape, unigram vocabulary, normalisation map, then a directory of tensors. */
function readCarrier(file: Buffer): Carrier {
  if (file.toString('latin1', 0, 4) !== MAGIC)
    throw new PalimpsestError('model_file', `The embedder's carrier does not begin with ${MAGIC}; delete it and fetch it again.`)
  let at = 8
  const next = <T>(bytes: number, read: (at: number) => T): T => {
    at += bytes
    return read(at - bytes)
  }
  const i32 = () => next(4, (from) => file.readInt32LE(from))
  const u64 = () => next(8, (from) => Number(file.readBigUInt64LE(from)))
  const [width = 0, layers = 0, heads = 0, inner = 0, , positions = 0] = Array.from({ length: 7 }, i32)
  const epsilon = next(4, (from) => file.readFloatLE(from))
  i32()
  const count = i32()
  at += 16
  const blobBytes = u64()
  const offsets = Array.from({ length: count + 1 }, () => next(4, (from) => file.readUInt32LE(from)))
  const scores = new Float32Array(Uint8Array.prototype.slice.call(file, at, at + count * 4).buffer)
  at += count * 4
  const pieces = offsets.slice(1).map((end, i) => file.toString('utf8', at + (offsets[i] ?? 0), at + end))
  at += blobBytes
  i32()
  const mapBytes = i32()
  at += mapBytes
  const tensors = new Map<string, Stored>()
  for (let left = i32(); left > 0; left--) {
    const length = next(2, (from) => file.readUInt16LE(from))
    const name = next(length, (from) => file.toString('utf8', from, from + length))
    at += 1
    const values = next(4, (from) => file.readUInt32LE(from))
    tensors.set(name, { values, from: u64(), bytes: u64() })
  }
  return { file, width, layers, heads, inner, positions, epsilon, pieces, scores, tensors }
}

const LAYER_PARTS = [
  ['q', 'attn_q'],
  ['k', 'attn_k'],
  ['v', 'attn_v'],
  ['ao', 'attn_output'],
  ['aln', 'attn_output_norm'],
  ['fi', 'ffn_up'],
  ['fo', 'ffn_down'],
  ['oln', 'layer_output_norm'],
] as const

/** A tensor of the carrier under llama.cpp's name; `rows` cuts a matrix that holds more. */
function tensorOf(carrier: Carrier, theirs: string, ours: string, shape: readonly number[]): GgufTensor {
  const stored = carrier.tensors.get(theirs)
  const values = shape.reduce((a, b) => a * b, 1)
  if (stored === undefined || stored.values < values)
    throw new PalimpsestError(
      'model_file',
      `The embedder's carrier holds ${stored?.values ?? 0} values of ${theirs}, expected ${values}.`,
    )
  const full = stored.bytes === stored.values * 4
  const bytes = full ? values * 4 : (values / BLOCK_VALUES) * Q4_BLOCK_BYTES
  return { name: ours, shape, type: full ? 'f32' : 'q4_0', data: carrier.file.subarray(stored.from, stored.from + bytes) }
}

function embeddingTensors(carrier: Carrier): GgufTensor[] {
  const { width, positions, pieces } = carrier
  return [
    tensorOf(carrier, 'emb.word', 'token_embd.weight', [width, pieces.length]),
    tensorOf(carrier, 'emb.pos', 'position_embd.weight', [width, positions]),
    tensorOf(carrier, 'emb.type', 'token_types.weight', [width, 1]),
  ]
}

function bodyTensors(carrier: Carrier): GgufTensor[] {
  const { width, inner, layers } = carrier
  const norm = (part: string) => part === 'aln' || part === 'oln'
  const out = ['w', 'b'].map((kind) =>
    tensorOf(carrier, `emb.ln.${kind}`, `token_embd_norm.${kind === 'w' ? 'weight' : 'bias'}`, [width]),
  )
  for (let layer = 0; layer < layers; layer++) {
    for (const [theirs, ours] of LAYER_PARTS) {
      const outer = theirs === 'fi' ? inner : width
      const matrix = [theirs === 'fo' ? inner : width, outer]
      out.push(tensorOf(carrier, `l${layer}.${theirs}.w`, `blk.${layer}.${ours}.weight`, norm(theirs) ? [width] : matrix))
      out.push(tensorOf(carrier, `l${layer}.${theirs}.b`, `blk.${layer}.${ours}.bias`, [outer]))
    }
  }
  return out
}

const POOLING = { mean: 1, rank: 4 } as const
const TOKEN = { normal: 1, unknown: 2, control: 3 } as const
const SPECIAL = {
  '<s>': TOKEN.control,
  '<pad>': TOKEN.control,
  '</s>': TOKEN.control,
  '<unk>': TOKEN.unknown,
  '<mask>': TOKEN.control,
}

function metadata(carrier: Carrier, name: string, layers: number, pooling: keyof typeof POOLING): [string, GgufValue][] {
  const { pieces, scores, width, inner, heads, positions, epsilon } = carrier
  const u32 = (value: number): GgufValue => ({ type: 'u32', value })
  const flag = (value: boolean): GgufValue => ({ type: 'bool', value })
  const at = (piece: string): GgufValue => u32(pieces.indexOf(piece))
  const special: Readonly<Record<string, number>> = SPECIAL
  return [
    ['general.architecture', { type: 'string', value: 'bert' }],
    ['general.name', { type: 'string', value: name }],
    ['bert.block_count', u32(layers)],
    ['bert.context_length', u32(positions)],
    ['bert.embedding_length', u32(width)],
    ['bert.feed_forward_length', u32(inner)],
    ['bert.attention.head_count', u32(heads)],
    ['bert.attention.layer_norm_epsilon', { type: 'f32', value: epsilon }],
    ['bert.attention.causal', flag(false)],
    ['bert.pooling_type', u32(POOLING[pooling])],
    // SentencePiece's unigram tokenizer goes by this name in the format. Text is normalised before it (`edit/words.ts`).
    ['tokenizer.ggml.model', { type: 'string', value: 't5' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'default' }],
    ['tokenizer.ggml.tokens', { type: 'strings', value: pieces }],
    ['tokenizer.ggml.scores', { type: 'f32s', value: scores }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: pieces.map((p) => special[p] ?? TOKEN.normal) }],
    ['tokenizer.ggml.token_type_count', u32(1)],
    ['tokenizer.ggml.add_space_prefix', flag(true)],
    ['tokenizer.ggml.remove_extra_whitespaces', flag(true)],
    ['tokenizer.ggml.bos_token_id', at('<s>')],
    ['tokenizer.ggml.eos_token_id', at('</s>')],
    ['tokenizer.ggml.seperator_token_id', at('</s>')],
    ['tokenizer.ggml.cls_token_id', at('<s>')],
    ['tokenizer.ggml.padding_token_id', at('<pad>')],
    ['tokenizer.ggml.unknown_token_id', at('<unk>')],
    ['tokenizer.ggml.mask_token_id', at('<mask>')],
    ['tokenizer.ggml.add_bos_token', flag(true)],
    ['tokenizer.ggml.add_eos_token', flag(true)],
  ]
}

/** Writes the embedder's GGUF file. */
export async function convertE5(carrierPath: string, outPath: string): Promise<void> {
  const carrier = readCarrier(await readFile(carrierPath))
  const tensors = [...embeddingTensors(carrier), ...bodyTensors(carrier)]
  await writeGguf(outPath, metadata(carrier, 'multilingual-e5-small', carrier.layers, 'mean'), tensors)
}

interface Weight {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data_offsets: readonly [number, number]
}

/** Writes the reader's GGUF file: token embeddings of the body, layers and head of `weightsPath` (safetensors; `U8` holds Q8_0 blocks). */
export async function convertReader(carrierPath: string, weightsPath: string, outPath: string): Promise<void> {
  const carrier = readCarrier(await readFile(carrierPath))
  const file = await readFile(weightsPath)
  const dataAt = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, dataAt)) as Record<string, Weight> & { __metadata__: { layers: string } }
  const { __metadata__: meta, ...weights } = header
  const own = Object.entries(weights).map(
    ([
      name,
      {
        dtype,
        shape,
        data_offsets: [from, to],
      },
    ]): GgufTensor => {
      const type = dtype === 'U8' ? 'q8_0' : 'f32'
      return { name, shape: shape.toReversed(), type, data: file.subarray(dataAt + from, dataAt + to) }
    },
  )
  const tensors = [...embeddingTensors(carrier), ...own]
  await writeGguf(outPath, metadata(carrier, 'palimpsest-reader', Number(meta.layers), 'rank'), tensors)
}
