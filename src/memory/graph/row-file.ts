import { closeSync, openSync, readSync } from 'node:fs'
import type { Point } from './arena.ts'
import { cosine } from './vector.ts'

/** Before each vector of 32-bit floats, little endian: the log record of its edit, as a 64-bit float. */
const SEQ_BYTES = Float64Array.BYTES_PER_ELEMENT
/** Rows read at a time when all are. */
const READ_ROWS = 1_024

export function rowBytes(dimensions: number): number {
  return SEQ_BYTES + dimensions * Float32Array.BYTES_PER_ELEMENT
}

/** Room for rows, as bytes and as their numbers. */
export class RowBuffer {
  readonly bytes: Buffer
  readonly #dimensions: number

  constructor(rows: number, dimensions: number) {
    this.#dimensions = dimensions
    this.bytes = Buffer.from(new ArrayBuffer(rows * rowBytes(dimensions)))
  }

  seq(row: number): number {
    return this.bytes.readDoubleLE(row * rowBytes(this.#dimensions))
  }

  /** It shares its memory with the buffer. */
  vector(row: number): Float32Array {
    return new Float32Array(this.bytes.buffer, row * rowBytes(this.#dimensions) + SEQ_BYTES, this.#dimensions)
  }

  set(row: number, seq: number, vector: Float32Array): void {
    this.bytes.writeDoubleLE(seq, row * rowBytes(this.#dimensions))
    this.vector(row).set(vector)
  }
}

/**
 * The exact vectors of a graph's points, row by row in the order of their labels. They stay in the file: what is read often is in the
 * operating system's cache, where other programs may have the memory if they need it.
 */
export class RowFile {
  readonly dimensions: number
  readonly #file: number
  readonly #one: RowBuffer
  readonly #vector: Float32Array

  constructor(file: string, dimensions: number) {
    this.dimensions = dimensions
    this.#file = openSync(file, 'r')
    this.#one = new RowBuffer(1, dimensions)
    this.#vector = this.#one.vector(0)
  }

  cosine(label: number, query: Float32Array): number {
    this.#read(this.#one.bytes, label)
    return cosine(this.#vector, 0, query)
  }

  vector(label: number): Float32Array {
    this.#read(this.#one.bytes, label)
    return this.#vector.slice()
  }

  /** The first `count`, in order. A point's vector holds until the next page is read: whoever keeps it copies it. */
  *pages(count: number): Generator<Point[]> {
    const buffer = new RowBuffer(Math.min(READ_ROWS, count), this.dimensions)
    for (let from = 0; from < count; from += READ_ROWS) {
      const rows = Math.min(READ_ROWS, count - from)
      this.#read(buffer.bytes.subarray(0, rows * rowBytes(this.dimensions)), from)
      yield Array.from({ length: rows }, (_, row) => ({ seq: buffer.seq(row), vector: buffer.vector(row) }))
    }
  }

  #read(into: Buffer, label: number): void {
    const read = readSync(this.#file, into, 0, into.length, label * rowBytes(this.dimensions))
    if (read !== into.length) throw new Error(`vector ${label} of the index cannot be read: its file has been cut`)
  }

  close(): void {
    closeSync(this.#file)
  }
}
