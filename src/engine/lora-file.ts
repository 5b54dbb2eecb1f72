import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { type GgufFileInfo, type GgufTensorInfo, readGgufFileInfo } from 'node-llama-cpp'
import { PalimpsestError } from '../errors.ts'

/** What the header of a GGUF LoRA file says (llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp). */
export interface LoraHeader {
  readonly architecture: string
  /** The largest of its tensors. */
  readonly rank: number
  readonly bytes: number
  /** Names of the weights that it changes. */
  readonly weights: readonly string[]
}

/** Sizes of a matrix, fastest-varying first, as ggml counts. */
type Sizes = readonly number[]

const PAIR = /^(.*)\.lora_([ab])$/

/** What adapters are compared with. The model file's hash, where nobody has it yet, is computed once. */
export function loraFiles(info: GgufFileInfo, modelPath: string, sha256: string | null) {
  let hashed: Promise<string> | undefined
  return {
    basePath: modelPath,
    checkLora: (path: string) => readLora(path, info),
    baseSha256: async () => {
      if (sha256 !== null) return sha256
      hashed ??= fileSha256(modelPath)
      return hashed
    },
  }
}

async function fileSha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

/**
 * The header, once it is sure that the adapter is for this model: architecture, names and shapes of its weights, rank, vocabulary. Throws
 * `adapter_mismatch` that says what was expected and what came.
 */
export async function readLora(path: string, base: GgufFileInfo): Promise<LoraHeader> {
  const bytes = await stat(path).then(({ size }) => size)
  const info = await headerOf(path)
  const { general, adapter } = metadataOf(info)
  if (general.type !== 'adapter' || adapter?.type !== 'lora')
    throw mismatch('general.type adapter and adapter.type lora', `${shown(general.type)} and ${shown(adapter?.type)}`)
  const { architecture } = base.metadata.general
  if (general.architecture !== architecture)
    throw mismatch(`an adapter for ${architecture}`, `one for ${shown(general.architecture)}`)
  if (adapter.alora !== undefined) throw mismatch('a plain LoRA', 'one that waits for an invocation (aLoRA), which is not served')
  checkVocabulary(info, base)
  const pairs = pairsOf(info.fullTensorInfo ?? [])
  const shapes = new Map((base.fullTensorInfo ?? []).map((tensor) => [tensor.name, sizesOf(tensor)]))
  for (const [name, pair] of pairs) checkPair(name, pair, shapes.get(name))
  const end = Math.max(...(info.fullTensorInfo ?? []).map(({ fileOffset }) => Number(fileOffset)), 0)
  if (end >= bytes) throw mismatch(`a file of more than ${end} bytes`, `one that breaks off after ${bytes}`)
  const rank = Math.max(...[...pairs].map(([name, { a }]) => (isEmbedding(name) ? (a?.[0] ?? 0) : (a?.[1] ?? 0))))
  return { architecture, rank, bytes, weights: [...pairs.keys()] }
}

async function headerOf(path: string): Promise<GgufFileInfo> {
  try {
    return await readGgufFileInfo(path, { sourceType: 'filesystem', logWarnings: false })
  } catch (cause) {
    throw mismatch('a GGUF file', `one whose header can't be read (${cause instanceof Error ? cause.message : cause})`, cause)
  }
}

interface LoraMetadata {
  readonly general: { readonly type?: unknown; readonly architecture?: unknown }
  readonly adapter?: { readonly type?: unknown; readonly alora?: unknown }
}

function metadataOf({ metadata }: GgufFileInfo): LoraMetadata {
  return { general: {}, ...(metadata as unknown as Partial<LoraMetadata>) }
}

interface Pair {
  a?: Sizes
  b?: Sizes
}

function pairsOf(tensors: readonly GgufTensorInfo[]): Map<string, Pair> {
  const pairs = new Map<string, Pair>()
  for (const tensor of tensors) {
    const [, name, part] = PAIR.exec(tensor.name) ?? []
    if (name === undefined) throw mismatch('tensors named NAME.lora_a and NAME.lora_b', `\`${tensor.name.slice(0, 80)}\``)
    pairs.set(name, { ...pairs.get(name), [part ?? '']: sizesOf(tensor) })
  }
  if (pairs.size === 0) throw mismatch('at least one pair of tensors NAME.lora_a and NAME.lora_b', 'none')
  return pairs
}

/** W ≈ W + scale · alpha/rank · B·A, with A [inputs, rank] and B [rank, outputs]; for an embedding the two are transposed. */
function checkPair(name: string, { a, b }: Pair, weight: Sizes | undefined): void {
  if (a === undefined || b === undefined)
    throw mismatch(`\`${name}\` as a pair`, `only its ${a === undefined ? 'lora_b' : 'lora_a'}`)
  if (weight === undefined) throw mismatch('weights that the model has', `\`${name}\`, which it has not`)
  const shape = isEmbedding(name) ? [b[1], a[1]] : [a[0], b[1]]
  if (shape[0] !== weight[0] || shape[1] !== weight[1])
    throw mismatch(`\`${name}\` of ${weight.join(' × ')}`, `an adapter for ${shape.join(' × ')}`)
  const ranks = isEmbedding(name) ? [a[0], b[0]] : [a[1], b[0]]
  if (ranks[0] !== ranks[1]) throw mismatch(`one rank in both parts of \`${name}\``, `${ranks.join(' and ')}`)
}

function isEmbedding(name: string): boolean {
  return name === 'token_embd.weight'
}

function sizesOf({ dimensions }: GgufTensorInfo): Sizes {
  return dimensions.map(Number)
}

/** Adapters seldom bring one; where one does, it has to be the model's. */
function checkVocabulary(adapter: GgufFileInfo, base: GgufFileInfo): void {
  const own = (adapter.metadata as Partial<GgufFileInfo['metadata']>).tokenizer?.ggml?.tokens
  const { tokens } = base.metadata.tokenizer.ggml
  if (own === undefined) return
  const differs = own.findIndex((token, i) => token !== tokens[i])
  if (own.length !== tokens.length || differs !== -1)
    throw mismatch(
      `the model's vocabulary of ${tokens.length} tokens`,
      `${own.length}, which differ from token ${Math.max(0, differs)} on`,
    )
}

function shown(value: unknown): string {
  return value === undefined ? 'nothing' : `\`${String(value).slice(0, 64)}\``
}

function mismatch(expected: string, came: string, cause?: unknown): PalimpsestError {
  return new PalimpsestError(
    'adapter_mismatch',
    `The adapter does not fit the model served here: expected ${expected}, got ${came}. Make it from the very model file that is served.`,
    { param: 'file', cause },
  )
}

/** It was registered, but llama.cpp does not take it. */
export function brokenAdapter(id: string, said: string, cause?: unknown): PalimpsestError {
  return new PalimpsestError(
    'adapter_mismatch',
    `The adapter '${id}' could not be loaded (${said}): delete it, or register its file again.`,
    { param: 'model', cause },
  )
}
