import { PalimpsestError } from '../../errors.ts'
import { findNotFinite, type GgufHeader, type GgufTensorPlace, readGgufHeader } from './header.ts'

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

/** What of the model's own header an adapter is compared with. */
export interface LoraBase {
  readonly metadata: {
    readonly general: { readonly architecture: string }
    readonly tokenizer: { readonly ggml: { readonly tokens: readonly string[] } }
  }
  readonly fullTensorInfo?: readonly { readonly name: string; readonly dimensions: readonly (number | bigint)[] }[]
}

/**
 * The header, once it is sure that the adapter is for this model: architecture, names and shapes of its weights, rank, vocabulary; and that
 * its weights are numbers. Throws `adapter_mismatch` that says what was expected and what came.
 */
export async function readLora(path: string, base: LoraBase): Promise<LoraHeader> {
  const { values, tensors, bytes } = await headerOf(path)
  const [type, kind] = [values.get('general.type'), values.get('adapter.type')]
  if (type !== 'adapter' || kind !== 'lora')
    throw mismatch('general.type adapter and adapter.type lora', `${shown(type)} and ${shown(kind)}`)
  const { architecture } = base.metadata.general
  const own = values.get('general.architecture')
  if (own !== architecture) throw mismatch(`an adapter for ${architecture}`, `one for ${shown(own)}`)
  if ([...values.keys()].some((key) => key.startsWith('adapter.alora')))
    throw mismatch('a plain LoRA', 'one that waits for an invocation (aLoRA), which is not served')
  const alpha = values.get('adapter.lora.alpha') ?? 0
  if (!Number.isFinite(alpha)) throw mismatch('a finite adapter.lora.alpha', shown(alpha))
  checkVocabulary(values.get('tokenizer.ggml.tokens'), base)
  const pairs = pairsOf(tensors)
  const shapes = new Map((base.fullTensorInfo ?? []).map(({ name, dimensions }) => [name, dimensions.map(Number)]))
  for (const [name, pair] of pairs) checkPair(name, pair, shapes.get(name))
  const broken = await findNotFinite(path, tensors)
  if (broken !== null) throw mismatch('finite weights', `NaN or infinity in \`${broken}\``)
  const rank = [...pairs].reduce((most, [name, { a }]) => Math.max(most, rankOf(name, a) ?? 0), 0)
  return { architecture, rank, bytes, weights: [...pairs.keys()] }
}

async function headerOf(path: string): Promise<GgufHeader> {
  try {
    return await readGgufHeader(path)
  } catch (cause) {
    throw mismatch('a GGUF file', `one whose header can't be read (${cause instanceof Error ? cause.message : cause})`, cause)
  }
}

interface Pair {
  a?: Sizes
  b?: Sizes
}

function pairsOf(tensors: readonly GgufTensorPlace[]): Map<string, Pair> {
  const pairs = new Map<string, Pair>()
  for (const tensor of tensors) {
    const [, name, part] = PAIR.exec(tensor.name) ?? []
    if (name === undefined) throw mismatch('tensors named NAME.lora_a and NAME.lora_b', `\`${tensor.name.slice(0, 80)}\``)
    pairs.set(name, { ...pairs.get(name), [part ?? '']: padded(tensor.sizes) })
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
  const deeper = [2, 3].map((at) => [weight[at] ?? 1, a[at], b[at]] as const)
  for (const [size, ...own] of deeper)
    if (own.some((one) => one !== size))
      throw mismatch(`\`${name}\` of ${weight.join(' × ')}`, `parts of ${a.join(' × ')} and ${b.join(' × ')}`)
  const ranks = [rankOf(name, a), b[0]]
  if (ranks[0] !== ranks[1]) throw mismatch(`one rank in both parts of \`${name}\``, `${ranks.join(' and ')}`)
  const most = Math.min(weight[0] ?? 0, weight[1] ?? 0)
  if ((b[0] ?? 0) > most) throw mismatch(`a rank of at most ${most} for \`${name}\``, `${b[0]}`)
}

/** Sizes of 1 at the end may be left away. */
function padded(sizes: Sizes): Sizes {
  return [...sizes, 1, 1, 1].slice(0, 4)
}

function rankOf(name: string, a: Sizes | undefined): number | undefined {
  return isEmbedding(name) ? a?.[0] : a?.[1]
}

function isEmbedding(name: string): boolean {
  return name === 'token_embd.weight'
}

/** Adapters seldom bring one; where one does, it has to be the model's. */
function checkVocabulary(own: ReturnType<GgufHeader['values']['get']>, base: LoraBase): void {
  const { tokens } = base.metadata.tokenizer.ggml
  if (own === undefined) return
  if (typeof own !== 'object') throw mismatch('a vocabulary of texts', shown(own))
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

export function mismatch(expected: string, came: string, cause?: unknown): PalimpsestError {
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
