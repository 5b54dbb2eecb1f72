import { PalimpsestError } from '../../errors.ts'

/** How far from 1 a unit vector's length may be, rounding in half precision allowed for. */
const UNIT_TOLERANCE = 1e-2

/** Throws unless `vector` is a unit vector of this length: a hole or a NaN would spoil what is built of it. */
export function assertUnit(vector: Float32Array, dimensions: number): void {
  const what = vectorFault(vector, dimensions)
  if (what !== null)
    throw new PalimpsestError('engine_failed', `The embedder gave an unusable vector: ${what}. Check its model file.`)
}

/** What keeps a vector out of an index, or null. */
export function vectorFault(vector: Float32Array | undefined, dimensions: number): string | null {
  if (!(vector instanceof Float32Array) || vector.length !== dimensions)
    return `expected ${dimensions} numbers, got ${vector?.length ?? 'nothing'}`
  let square = 0
  for (const x of vector) square += x * x
  if (!Number.isFinite(square)) return 'it has a number that is not finite'
  return Math.abs(Math.sqrt(square) - 1) > UNIT_TOLERANCE ? `expected length 1, got ${Math.sqrt(square).toFixed(4)}` : null
}

/** Scalar product of two vectors by themselves; 0 where one is missing. */
export function product(a: Float32Array | undefined, b: Float32Array | undefined): number {
  return a === undefined || b === undefined ? 0 : dot(a, 0, b)
}

/** Of the unit vector at `offset` and a query, without what rounding added beyond the ends. */
export function cosine(data: Float32Array, offset: number, query: Float32Array): number {
  return Math.max(-1, Math.min(1, dot(data, offset, query)))
}

/** Four sums side by side: about twice the speed of one in V8. */
function dot(data: Float32Array, offset: number, query: Float32Array): number {
  let a = 0
  let b = 0
  let c = 0
  let d = 0
  const whole = query.length & ~3
  for (let i = 0; i < whole; i += 4) {
    const j = offset + i
    a += (data[j] as number) * (query[i] as number)
    b += (data[j + 1] as number) * (query[i + 1] as number)
    c += (data[j + 2] as number) * (query[i + 2] as number)
    d += (data[j + 3] as number) * (query[i + 3] as number)
  }
  for (let i = whole; i < query.length; i++) a += (data[offset + i] as number) * (query[i] as number)
  return a + b + c + d
}
