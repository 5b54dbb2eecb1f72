import { PalimpsestError } from '../errors.ts'
import { CATALOG, CPU_MODEL, catalogModel, chatModelNames, GPU_MODEL, SMALL_MODEL } from './catalog.ts'
import type { Gpu } from './hardware.ts'

export interface Situation {
  readonly gpu: Gpu | null
  readonly freeMemoryBytes: number
  /** A GGUF path, the URL of an OpenAI-compatible server, or a catalogue name; absent: the default for this machine. */
  readonly wanted?: string | undefined
}

export type Choice = { readonly why: string } & (
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'upstream'; readonly url: string }
  | { readonly kind: 'catalog'; readonly name: string }
)

/** 4.1 GB of weights, and a cache for a few conversations of 4,096 tokens. */
export const GPU_MODEL_VRAM_BYTES = 6.5e9
/** 1.1 GB of weights, the embedder, the cache and the working memory of both. */
export const CPU_MODEL_MEMORY_BYTES = 3e9

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`

/** `isFile`: whether a path is one that exists. Throws `model_not_found` for a name that is none of the three. */
export function chooseModel(situation: Situation, isFile: (path: string) => boolean): Choice {
  return situation.wanted === undefined || situation.wanted === ''
    ? defaultModel(situation)
    : wantedModel(situation.wanted, isFile)
}

function wantedModel(wanted: string, isFile: (path: string) => boolean): Choice {
  if (/^https?:\/\//i.test(wanted)) return { kind: 'upstream', url: wanted, why: `You asked for the server at ${wanted}.` }
  if (isFile(wanted) || /\.gguf$/i.test(wanted)) return { kind: 'file', path: wanted, why: `You asked for the file ${wanted}.` }
  const names = chatModelNames()
  const name = wanted.toLowerCase()
  if (names.includes(name)) return { kind: 'catalog', name, why: `You asked for ${name}.` }
  const known = `Expected a GGUF file, the URL of an OpenAI-compatible server, or one of ${names.join(', ')}`
  if (CATALOG.some((model) => model.name === name))
    throw new PalimpsestError('model_not_found', `${name} makes vectors or scores and cannot answer. ${known}.`)
  throw new PalimpsestError('model_not_found', `There is no model "${wanted}". ${known}.`)
}

function defaultModel({ gpu, freeMemoryBytes }: Situation): Choice {
  if (gpu !== null && gpu.freeVramBytes >= GPU_MODEL_VRAM_BYTES) {
    return {
      kind: 'catalog',
      name: GPU_MODEL,
      why: `${gpu.name} has ${gigabytes(gpu.freeVramBytes)} free: room for ${GPU_MODEL}.`,
    }
  }
  const noGpu = gpu === null ? 'No GPU was found' : `${gpu.name} has only ${gigabytes(gpu.freeVramBytes)} free`
  if (freeMemoryBytes >= CPU_MODEL_MEMORY_BYTES) {
    return { kind: 'catalog', name: CPU_MODEL, why: `${noGpu}; ${catalogModel(CPU_MODEL).name} runs well on the processor.` }
  }
  return {
    kind: 'catalog',
    name: SMALL_MODEL,
    why: `${noGpu}, and ${gigabytes(freeMemoryBytes)} of free memory is little: the smallest model, ${SMALL_MODEL}.`,
  }
}
