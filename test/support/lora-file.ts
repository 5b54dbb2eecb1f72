import { readGgufFileInfo } from 'node-llama-cpp'
import { type GgufValue, ggufPieces } from '../../src/models/packages/gguf-writer.ts'

/** Made-up numbers in [-1, 1), always the same for a seed (Numerical Recipes' linear congruence). */
function noise(count: number, seed: number): Float32Array {
  let state = seed >>> 0
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 31 - 1
  })
}

export interface LoraWanted {
  /** Names of the weights to change, with their sizes: inputs, outputs. */
  readonly weights: Readonly<Record<string, readonly [number, number]>>
  readonly architecture: string
  readonly rank: number
  readonly seed: number
  /** Sizes of B's entries; A's are about 1. */
  readonly strength: number
  readonly extra?: readonly (readonly [string, GgufValue])[]
}

/** A GGUF LoRA file of noise. */
export function loraBytes({ weights, architecture, rank, seed, strength, extra = [] }: LoraWanted): Buffer {
  const tensors = Object.entries(weights).flatMap(([name, [inputs, outputs]], at) => {
    const part = (suffix: string, shape: readonly number[], scale: number, salt: number) => {
      const values = noise((shape[0] ?? 0) * (shape[1] ?? 0), seed * 1000 + at * 2 + salt).map((x) => x * scale)
      return { name: `${name}.${suffix}`, shape, type: 'f32' as const, data: new Uint8Array(values.buffer) }
    }
    return [part('lora_a', [inputs, rank], 1, 0), part('lora_b', [rank, outputs], strength, 1)]
  })
  const metadata: (readonly [string, GgufValue])[] = [
    ['general.type', { type: 'string', value: 'adapter' }],
    ['general.architecture', { type: 'string', value: architecture }],
    ['adapter.type', { type: 'string', value: 'lora' }],
    ['adapter.lora.alpha', { type: 'f32', value: rank }],
    ...extra,
  ]
  return Buffer.concat(ggufPieces(metadata, tensors))
}

/** The same for the `ffn_down` of some layers of a real model. */
export async function loraFor(
  modelPath: string,
  seed: number,
  strength: number,
  layers: readonly number[] = [4, 8],
): Promise<Buffer> {
  const info = await readGgufFileInfo(modelPath, { sourceType: 'filesystem', logWarnings: false })
  const weights = Object.fromEntries(
    layers.map((layer) => {
      const name = `blk.${layer}.ffn_down.weight`
      const [inputs = 0, outputs = 0] =
        (info.fullTensorInfo ?? []).find((tensor) => tensor.name === name)?.dimensions.map(Number) ?? []
      return [name, [inputs, outputs] as const]
    }),
  )
  return loraBytes({ weights, architecture: info.metadata.general.architecture, rank: 4, seed, strength })
}
