import { createRequire } from 'node:module'

/** What we use of hnswlib-node. */
export interface HierarchicalNSW {
  initIndex(options: { maxElements: number; m: number; efConstruction: number; randomSeed: number }): void
  setEf(breadth: number): void
  addPoint(vector: number[], label: number): void
  getPoint(label: number): number[]
  getCurrentCount(): number
  getMaxElements(): number
  resizeIndex(elements: number): void
  searchKnn(vector: number[], count: number): { neighbors: number[]; distances: number[] }
  readIndex(file: string): Promise<boolean>
  writeIndex(file: string): Promise<boolean>
}

interface Library {
  readonly HierarchicalNSW: new (space: 'ip', dimensions: number) => HierarchicalNSW
}

/** hnswlib-node comes without binaries and is compiled where it is installed. Null where it could not be: every vector is then scanned. */
export const hnswlib: Library | null = load()

function load(): Library | null {
  try {
    return createRequire(import.meta.url)('hnswlib-node') as Library
  } catch {
    return null
  }
}

/** A new, empty graph. Callers look at `hnswlib` before they want one. */
export function newIndex(dimensions: number): HierarchicalNSW {
  if (hnswlib === null) throw new Error('expected hnswlib-node, which does not load here')
  return new hnswlib.HierarchicalNSW('ip', dimensions)
}
