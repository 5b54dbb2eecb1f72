import type pg from 'pg'

/**
 * A `COPY … TO STDOUT` as pg takes queries of one's own (its `Submittable`; pg-cursor is one, too). Bytes come as they lie in the server, where a
 * SELECT has each written in hexadecimal and read again: for a new node, hundreds of megabytes.
 */
export class CopyOut implements pg.Submittable {
  readonly #statement: string
  readonly #bytes: Buffer
  #length = 0
  /** pg puts its timeout around it. */
  callback: (error: Error | null) => void = () => {}
  /** What was copied, once all of it is here. */
  readonly copied: Promise<Buffer>

  /** `most`: bytes that can come; with more it fails. */
  constructor(statement: string, most: number) {
    this.#statement = statement
    this.#bytes = Buffer.allocUnsafe(most)
    this.copied = new Promise((resolve, reject) => {
      this.callback = (error) => (error === null ? resolve(this.#bytes.subarray(0, this.#length)) : reject(error))
    })
  }

  submit(connection: pg.Connection): void {
    connection.query(this.#statement)
  }

  /** The chunk lies in a buffer that pg uses again. */
  handleCopyData({ chunk }: { readonly chunk: Buffer }): void {
    if (this.#length + chunk.length > this.#bytes.length)
      this.handleError(new Error(`COPY gives more than ${this.#bytes.length} bytes`))
    else this.#length += chunk.copy(this.#bytes, this.#length)
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.callback(null)
  }

  handleError(error: Error): void {
    this.callback(error)
  }
}

/** https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format": a signature, flags, the length of what may follow, then the rows. */
const HEADER = { signature: 'PGCOPY\n\xff\r\n\0', bytes: 19, extensionAt: 15 } as const
export const COPY_BYTES = { around: HEADER.bytes + 2, row: 2, field: 4 } as const

/** Rows of COPY's binary format; a field that is null is empty here. The fields are views. */
export function* copiedRows(bytes: Buffer): Generator<readonly Buffer[]> {
  if (bytes.toString('latin1', 0, HEADER.signature.length) !== HEADER.signature) throw new Error('not what COPY gives')
  let at = HEADER.bytes + bytes.readInt32BE(HEADER.extensionAt)
  for (let count = bytes.readInt16BE(at); count >= 0; count = bytes.readInt16BE(at)) {
    at += 2
    const row: Buffer[] = []
    for (let i = 0; i < count; i++) {
      const length = Math.max(0, bytes.readInt32BE(at))
      row.push(bytes.subarray(at + 4, at + 4 + length))
      at += 4 + length
    }
    yield row
  }
}
