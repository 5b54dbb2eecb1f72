import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import { devNull } from 'node:os'

/** HNSW's knobs (Malkov & Yashunin 2016): neighbours per node, breadth of search while building, and while searching. */
export interface GraphOptions {
  readonly neighbours: number
  readonly buildBreadth: number
  readonly searchBreadth: number
}

export const GRAPH_OPTIONS: GraphOptions = { neighbours: 24, buildBreadth: 128, searchBreadth: 256 }

export interface Matches {
  readonly keys: BigUint64Array
  readonly distances: Float32Array
  /** Absent for a single query. */
  readonly counts?: BigUint64Array
}

/** What we use of an index of usearch. Its calls return when all is done; they throw what goes wrong, short of damaged bytes. */
export interface NativeIndex {
  size(): number
  add(labels: BigUint64Array, vectors: Float32Array, threads: number): void
  /** Of one query; of several, one after the other in `queries`, `count` places each, filled as far as `counts` says. */
  search(queries: Float32Array, count: number, threads: number): Matches
  remove(labels: BigUint64Array): void
  save(file: string): void
  load(file: string): void
  /** See `view` below. What was held before is let go of first, and so it is by `load`. */
  view(file: string): void
}

interface Library {
  readonly Index: new (options: {
    readonly dimensions: number
    readonly metric: 'cos'
    readonly quantization: 'i8'
    readonly connectivity: number
    readonly expansion_add: number
    readonly expansion_search: number
  }) => NativeIndex
}

/** usearch brings binaries for Linux (x64, arm64) and macOS. Null where there is none: every vector is then scanned. */
export const usearch: Library | null = load()

function load(): Library | null {
  try {
    return createRequire(import.meta.url)('usearch') as Library
  } catch {
    return null
  }
}

/** A new, empty index of bytes. Callers look at `usearch` before they want one. */
export function newIndex(dimensions: number, options: GraphOptions): NativeIndex {
  if (usearch === null) throw new Error('expected usearch, which does not load here')
  return new usearch.Index({
    dimensions,
    metric: 'cos',
    quantization: 'i8',
    connectivity: options.neighbours,
    expansion_add: options.buildBreadth,
    expansion_search: options.searchBreadth,
  })
}

/**
 * Maps the file into memory. Where the library cannot open a file, or it is empty, it closes descriptor 0, whosever that is
 * (`memory_mapped_file_t::close`): so that is tried first, in the way the library does it.
 */
export function view(index: NativeIndex, file: string): void {
  const descriptor = openSync(file, constants.O_RDONLY | (constants.O_NOATIME ?? 0))
  try {
    if (fstatSync(descriptor).size === 0) throw new Error(`${file} is empty`)
  } finally {
    closeSync(descriptor)
  }
  index.view(file)
}

/** Ends a mapping, or frees what was built: the library has no other way than to load something else, and here there is nothing. */
export function release(index: NativeIndex): void {
  try {
    index.load(devNull)
  } catch {}
}
