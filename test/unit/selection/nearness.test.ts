import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { nearnessFor } from '../../../src/selection/nearness.ts'

const folder = mkdtempSync(join(tmpdir(), 'palimpsest-nearness-'))
afterAll(() => rmSync(folder, { recursive: true }))
const packed = (...numbers: number[]) => Buffer.from(new Float32Array(numbers).buffer).toString('base64')
/** U = (1, 2, 0)ᵀ and W = (0, 1, 1)ᵀ, of rank 1 over vectors of width 3. */
const FORM = {
  embedder: 'e',
  width: 3,
  rank: 1,
  scale: 10,
  bias: -4,
  least: -2,
  close: 0.9,
  query: packed(1, 2, 0),
  key: packed(0, 1, 1),
}
function file(content: object): string {
  const path = join(folder, `${Math.random()}.json`)
  writeFileSync(path, JSON.stringify(content))
  return path
}
const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0)

it('ranks keys by (scale q + W Uᵀ q) · k + bias', () => {
  const { towards, bias, least } = nearnessFor({ name: 'e', dimensions: 3 }, file(FORM))
  expect([bias, least]).toEqual([-4, -2])
  const q = new Float32Array([0.6, 0, 0.8])
  const { direction, norm } = towards(q)
  expect(dot(direction, direction)).toBeCloseTo(1, 5)
  const k = new Float32Array([0, 0.6, 0.8])
  expect(norm * dot(direction, k) + bias).toBeCloseTo(10 * dot(q, k) + 0.6 * (0.6 + 0.8) - 4, 4)
})

it('takes the cosine of an embedder that nothing was learned for', () => {
  const { towards, bias, least, close } = nearnessFor({ name: 'another', dimensions: 3 }, file(FORM))
  const q = new Float32Array([1, 0, 0])
  expect(towards(q).direction).toEqual(q)
  expect(towards(q).norm * close + bias).toBeCloseTo(least, 6)
})

it('refuses a file whose matrices have another shape, and names it', () => {
  const bad = file({ ...FORM, rank: 2 })
  expect(() => nearnessFor({ name: 'e', dimensions: 3 }, bad)).toThrow(`${bad}: query and key are not of rank × width numbers`)
})
