import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { DATABASE_NOW, type Sql } from '../storage/sql.ts'

/** Of one row: what a statement carries, and what a gateway holds in memory at a time. */
const PIECE_BYTES = 1024 * 1024

/** A file is whole where it has a row in `adapter_files`. */
export const FILE_TABLES = (body: 'BLOB' | 'BYTEA'): readonly string[] => [
  'CREATE TABLE adapter_files (sha256 TEXT PRIMARY KEY, bytes BIGINT NOT NULL, pieces INTEGER NOT NULL)',
  `CREATE TABLE adapter_pieces (
    sha256 TEXT NOT NULL, number INTEGER NOT NULL, body ${body} NOT NULL, written_at BIGINT NOT NULL, PRIMARY KEY (sha256, number)
  )`,
]

interface FileSize {
  readonly bytes: number
  readonly pieces: number
}

const SENDING = 'sending the file of an adapter'
const FETCHING = 'fetching the file of an adapter'

/** Sends what of the file is not there yet. */
export async function sendFile(sql: Sql, sha256: string, path: string): Promise<FileSize> {
  const file = await open(path)
  try {
    const { size: bytes } = await file.stat()
    const pieces = Math.ceil(bytes / PIECE_BYTES)
    const size = { bytes, pieces }
    if (await fileIsWhole(sql, sha256, size)) return size
    for (let number = 0; number < pieces; number++) {
      const body = Buffer.alloc(Math.min(PIECE_BYTES, bytes - number * PIECE_BYTES))
      const { bytesRead } = await file.read(body, 0, body.length, number * PIECE_BYTES)
      if (bytesRead !== body.length) throw new Error(`${path} ended after ${bytesRead} bytes of piece ${number}`)
      await sql.run(
        SENDING,
        `INSERT INTO adapter_pieces (sha256, number, body, written_at) VALUES (?, ?, ?, ${DATABASE_NOW[sql.dialect]})
           ON CONFLICT (sha256, number) DO UPDATE SET written_at = excluded.written_at`,
        ...[sha256, number, body],
      )
    }
    return size
  } finally {
    await file.close()
  }
}

/** Whether all pieces of a file are there. */
export async function fileIsWhole(sql: Sql, sha256: string, { bytes, pieces }: FileSize): Promise<boolean> {
  const [row] = await sql.all<{ n: number; total: number | string | null }>(
    SENDING,
    'SELECT count(*) AS n, sum(length(body)) AS total FROM adapter_pieces WHERE sha256 = ?',
    sha256,
  )
  return Number(row?.n) === pieces && Number(row?.total ?? 0) === bytes
}

/** From now on the file is whole, and other gateways fetch it. */
export async function nameFile(sql: Sql, sha256: string, { bytes, pieces }: FileSize): Promise<void> {
  await sql.run(
    SENDING,
    'INSERT INTO adapter_files (sha256, bytes, pieces) VALUES (?, ?, ?) ON CONFLICT (sha256) DO NOTHING',
    ...[sha256, bytes, pieces],
  )
}

/** Writes the file to `path`. Throws where what came is not what was sent. */
export async function fetchFile(sql: Sql, sha256: string, path: string): Promise<void> {
  const [size] = await sql.all<FileSize>(FETCHING, 'SELECT bytes, pieces FROM adapter_files WHERE sha256 = ?', sha256)
  if (size === undefined) throw new Error('its file is not in the database')
  const hash = createHash('sha256')
  let came = 0
  const pieces = async function* () {
    for (let number = 0; number < size.pieces; number++) {
      const [piece] = await sql.all<{ body: Uint8Array }>(
        FETCHING,
        'SELECT body FROM adapter_pieces WHERE sha256 = ? AND number = ?',
        ...[sha256, number],
      )
      if (piece === undefined) throw new Error(`piece ${number + 1} of ${size.pieces} is missing`)
      hash.update(piece.body)
      came += piece.body.length
      yield piece.body
    }
  }
  await pipeline(pieces, createWriteStream(path, { flush: true }))
  if (came !== size.bytes) throw new Error(`expected ${size.bytes} bytes, got ${came}`)
  const sum = hash.digest('hex')
  if (sum !== sha256) throw new Error(`expected sha256 ${sha256.slice(0, 12)}…, got ${sum.slice(0, 12)}…`)
}
