import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { PalimpsestError } from '../errors.ts'
import { product } from '../memory/graph/vector.ts'
import { PACKAGE_ROOT } from '../package-root.ts'

/**
 * How plausible it is that a message needs an edit, in log-odds, before the reader is asked: norm · cos(direction, key) + bias, of an edit's
 * keys the highest. So one search of the vector index, in that direction, ranks a whole memory.
 */
export interface Nearness {
  /** Least log-odds at which an edit that is not named is read, … */
  readonly least: number
  /** … and least cosine at which the few nearest by it are: what was learned knows messages of the forms and languages that were taught. */
  readonly close: number
  readonly bias: number
  /** `direction`: a unit vector. */
  towards(message: Float32Array): { readonly direction: Float32Array; readonly norm: number }
}

const matrix = z.base64().transform((text) => {
  const bytes = Buffer.from(text, 'base64')
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength))
})
/** `npm run train:reader` writes it: s(q, k) = (scale q + W Uᵀ q) · k + bias; U and W are (rank, width), row by row. */
const schema = z
  .strictObject({
    embedder: z.string(),
    width: z.int().positive(),
    rank: z.int().positive(),
    scale: z.number(),
    bias: z.number(),
    least: z.number(),
    close: z.number(),
    query: matrix,
    key: matrix,
  })
  .refine(({ width, rank, query, key }) => query.length === width * rank && key.length === width * rank, {
    error: 'query and key are not of rank × width numbers',
  })

const FILE = join(PACKAGE_ROOT, 'calibration', 'nearness.json')

/** For an embedder that nothing was learned for: its cosine, from `from` on, `slope` log-odds for each 1. */
const UNLEARNED: Readonly<Record<string, { readonly slope: number; readonly from: number }>> = {
  'all-minilm-l6-v2': { slope: 10, from: 0.3 },
}
const USUAL = { slope: 20, from: 0.8 }

/** What was learned for the embedder, or its cosine. Throws `invalid_value`, naming the file. */
export function nearnessFor(embedder: { readonly name: string; readonly dimensions: number }, file: string = FILE): Nearness {
  const parsed = schema.safeParse(JSON.parse(readFileSync(file, 'utf8')))
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    const where = [file, ...(issue?.path ?? [])].join(': ')
    throw new PalimpsestError('invalid_value', `${where}: ${issue?.message}. Make it again: npm run train:reader.`)
  }
  const { width, rank, scale, bias, least, close, query, key } = parsed.data
  if (embedder.name !== parsed.data.embedder || embedder.dimensions !== width) {
    const { slope, from } = UNLEARNED[embedder.name] ?? USUAL
    return { least: 0, close: from, bias: -slope * from, towards: (message) => ({ direction: message, norm: slope }) }
  }
  const row = (all: Float32Array, r: number) => all.subarray(r * width, (r + 1) * width)
  return {
    least,
    bias,
    close,
    towards: (message) => {
      const direction = message.map((value) => scale * value)
      for (let r = 0; r < rank; r++) {
        const by = product(row(query, r), message)
        const towards = row(key, r)
        for (let i = 0; i < width; i++) direction[i] = (direction[i] as number) + by * (towards[i] as number)
      }
      const norm = Math.sqrt(product(direction, direction))
      return { direction: direction.map((value) => value / norm), norm }
    },
  }
}
