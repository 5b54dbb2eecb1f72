import { readFile } from 'node:fs/promises'
import { PalimpsestError } from '../../errors.ts'
import { type GgufTensor, type GgufValue, toHalf, writeGguf } from './gguf-writer.ts'

/**
 * all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers) from safetensors to GGUF, f16 matrices. The network's shape is that of
 * its config.json, which is fixed by the checksum of the weights.
 */
const SHAPE = { layers: 6, contextTokens: 512, width: 384, inner: 1536, heads: 12, epsilon: 1e-12, tokenTypes: 2 } as const

/** Numbers of llama.cpp: mean pooling, "mostly f16", and kinds of token. */
const POOLING_MEAN = 1
const FILE_MOSTLY_F16 = 1
const TOKEN = { normal: 1, unknown: 2, control: 3, unused: 5 } as const

const PARTS_OF_A_LAYER = [
  ['attention.self.query', 'attn_q'],
  ['attention.self.key', 'attn_k'],
  ['attention.self.value', 'attn_v'],
  ['attention.output.dense', 'attn_output'],
  ['attention.output.LayerNorm', 'attn_output_norm'],
  ['intermediate.dense', 'ffn_up'],
  ['output.dense', 'ffn_down'],
  ['output.LayerNorm', 'layer_output_norm'],
] as const

/** Their tensor name and llama.cpp's, in the order they are written. */
function tensorNames(): [theirs: string, ours: string][] {
  const names: [string, string][] = [
    ['embeddings.word_embeddings.weight', 'token_embd.weight'],
    ['embeddings.position_embeddings.weight', 'position_embd.weight'],
    ['embeddings.token_type_embeddings.weight', 'token_types.weight'],
    ['embeddings.LayerNorm.weight', 'token_embd_norm.weight'],
    ['embeddings.LayerNorm.bias', 'token_embd_norm.bias'],
  ]
  for (let i = 0; i < SHAPE.layers; i++) {
    for (const [theirs, ours] of PARTS_OF_A_LAYER) {
      for (const part of ['weight', 'bias']) names.push([`encoder.layer.${i}.${theirs}.${part}`, `blk.${i}.${ours}.${part}`])
    }
  }
  return names
}

/** llama.cpp adds these to activations, and wants them in full. */
const KEPT_F32: readonly string[] = ['position_embd.weight', 'token_types.weight']

interface Stored {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data_offsets: readonly [number, number]
}

/** Reader of safetensors: eight bytes of header length, a JSON header, then the data (huggingface/safetensors, README). */
function tensorReader(file: Buffer): (name: string) => { shape: readonly number[]; values: Float32Array } {
  const dataAt = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, dataAt)) as Record<string, Stored>
  return (name) => {
    const stored = header[name]
    if (stored?.dtype !== 'F32')
      throw new PalimpsestError(
        'model_file',
        `The embedder's weights hold ${stored?.dtype ?? 'nothing'} for ${name}, expected F32.`,
      )
    const [from, to] = stored.data_offsets
    // A copy, since the data need not lie on a multiple of four.
    return {
      shape: stored.shape,
      values: new Float32Array(Uint8Array.prototype.slice.call(file, dataAt + from, dataAt + to).buffer),
    }
  }
}

function tensors(file: Buffer): GgufTensor[] {
  const read = tensorReader(file)
  return tensorNames().map(([theirs, ours]) => {
    const { shape, values } = read(theirs)
    const type = shape.length === 2 && !KEPT_F32.includes(ours) ? 'f16' : 'f32'
    const numbers = type === 'f16' ? toHalf(values) : values
    return { name: ours, shape: shape.toReversed(), type, data: new Uint8Array(numbers.buffer) }
  })
}

/** llama.cpp's WordPiece marks the start of a word (U+2581); BERT's vocabulary marks the continuation (`##`). */
function token(piece: string): { text: string; kind: number } {
  if (['[PAD]', '[CLS]', '[SEP]', '[MASK]'].includes(piece)) return { text: piece, kind: TOKEN.control }
  if (piece === '[UNK]') return { text: piece, kind: TOKEN.unknown }
  if (piece.startsWith('[unused')) return { text: piece, kind: TOKEN.unused }
  return { text: piece.startsWith('##') ? piece.slice(2) : `\u2581${piece}`, kind: TOKEN.normal }
}

function metadata(vocabulary: readonly string[]): [string, GgufValue][] {
  const tokens = vocabulary.map(token)
  const u32 = (value: number): GgufValue => ({ type: 'u32', value })
  const at = (piece: string): GgufValue => u32(vocabulary.indexOf(piece))
  return [
    ['general.architecture', { type: 'string', value: 'bert' }],
    ['general.name', { type: 'string', value: 'all-MiniLM-L6-v2' }],
    ['bert.block_count', u32(SHAPE.layers)],
    ['bert.context_length', u32(SHAPE.contextTokens)],
    ['bert.embedding_length', u32(SHAPE.width)],
    ['bert.feed_forward_length', u32(SHAPE.inner)],
    ['bert.attention.head_count', u32(SHAPE.heads)],
    ['bert.attention.layer_norm_epsilon', { type: 'f32', value: SHAPE.epsilon }],
    ['bert.attention.causal', { type: 'bool', value: false }],
    ['bert.pooling_type', u32(POOLING_MEAN)],
    ['general.file_type', u32(FILE_MOSTLY_F16)],
    ['tokenizer.ggml.model', { type: 'string', value: 'bert' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'default' }],
    ['tokenizer.ggml.tokens', { type: 'strings', value: tokens.map((t) => t.text) }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: tokens.map((t) => t.kind) }],
    ['tokenizer.ggml.token_type_count', u32(SHAPE.tokenTypes)],
    ['tokenizer.ggml.bos_token_id', at('[CLS]')],
    ['tokenizer.ggml.eos_token_id', at('[SEP]')],
    // Spelled like this in the format.
    ['tokenizer.ggml.seperator_token_id', at('[SEP]')],
    ['tokenizer.ggml.padding_token_id', at('[PAD]')],
    ['tokenizer.ggml.unknown_token_id', at('[UNK]')],
    ['tokenizer.ggml.mask_token_id', at('[MASK]')],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: true }],
    ['tokenizer.ggml.add_eos_token', { type: 'bool', value: true }],
  ]
}

/** Writes the GGUF file of the weights and the vocabulary. Vectors made with it come out with a length other than 1. */
export async function convertMinilm(weightsPath: string, vocabularyPath: string, outPath: string): Promise<void> {
  const vocabulary = (await readFile(vocabularyPath, 'utf8')).trimEnd().split('\n')
  await writeGguf(outPath, metadata(vocabulary), tensors(await readFile(weightsPath)))
}
