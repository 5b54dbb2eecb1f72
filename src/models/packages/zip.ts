import { createReadStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'

/** One file in a zip archive (PKWARE APPNOTE 6.3, sections 4.3.7, 4.3.12, 4.3.16; no zip64, no encryption). */
export interface ZipEntry {
  readonly path: string
  /** 8: deflate; 0: stored. */
  readonly method: number
  readonly crc32: number
  readonly packedBytes: number
  readonly bytes: number
  /** Of the local header. */
  readonly offset: number
}

const END_BYTES = 22
const END_SEARCH_BYTES = END_BYTES + 0xffff
const END_MARK = 0x06054b50
const CENTRAL_MARK = 0x02014b50
const CENTRAL_BYTES = 46
const LOCAL_MARK = 0x04034b50
const LOCAL_BYTES = 30

async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length)
  const { bytesRead } = await file.read(buffer, 0, length, offset)
  if (bytesRead !== length) throw new Error(`the archive ends at byte ${offset + bytesRead}, expected ${offset + length}`)
  return buffer
}

function centralEntry(table: Buffer, at: number): { entry: ZipEntry; next: number } {
  if (at + CENTRAL_BYTES > table.length || table.readUInt32LE(at) !== CENTRAL_MARK)
    throw new Error('the archive has a broken table of contents')
  const pathEnd = at + CENTRAL_BYTES + table.readUInt16LE(at + 28)
  const entry = {
    path: table.toString('utf8', at + CENTRAL_BYTES, pathEnd),
    method: table.readUInt16LE(at + 10),
    crc32: table.readUInt32LE(at + 16),
    packedBytes: table.readUInt32LE(at + 20),
    bytes: table.readUInt32LE(at + 24),
    offset: table.readUInt32LE(at + 42),
  }
  return { entry, next: pathEnd + table.readUInt16LE(at + 30) + table.readUInt16LE(at + 32) }
}

/** The table of contents. Throws a plain Error when the file is no zip archive or is cut short. */
export async function zipEntries(path: string): Promise<ZipEntry[]> {
  const file = await open(path)
  try {
    const size = (await file.stat()).size
    const tailBytes = Math.min(size, END_SEARCH_BYTES)
    const tail = await readAt(file, size - tailBytes, tailBytes)
    let end = tailBytes - END_BYTES
    while (end >= 0 && tail.readUInt32LE(end) !== END_MARK) end--
    if (end < 0) throw new Error('it is not a zip archive, or is cut short')
    const table = await readAt(file, tail.readUInt32LE(end + 16), tail.readUInt32LE(end + 12))
    const entries: ZipEntry[] = []
    for (let i = 0, at = 0; i < tail.readUInt16LE(end + 10); i++) {
      const { entry, next } = centralEntry(table, at)
      entries.push(entry)
      at = next
    }
    return entries
  } finally {
    await file.close()
  }
}

const GZIP_HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])

/** The entry's deflate stream dressed as gzip (RFC 1952), whose trailer holds the same two checks: zlib then verifies CRC and length. */
async function* asGzip(path: string, entry: ZipEntry, dataAt: number): AsyncGenerator<Buffer> {
  yield GZIP_HEADER
  if (entry.packedBytes > 0)
    yield* createReadStream(path, { start: dataAt, end: dataAt + entry.packedBytes - 1, highWaterMark: 1 << 20 })
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(entry.crc32, 0)
  trailer.writeUInt32LE(entry.bytes, 4)
  yield trailer
}

/** Unpacks one entry into `target` from byte `position` on. Throws a plain Error when the checksum or the length is wrong. */
export async function extractEntry(
  path: string,
  entry: ZipEntry,
  target: FileHandle,
  position: number,
  signal: AbortSignal,
): Promise<void> {
  if (entry.method !== 8) throw new Error(`${entry.path} is packed with method ${entry.method}; only deflate (8) is read here`)
  const archive = await open(path)
  let dataAt: number
  try {
    const local = await readAt(archive, entry.offset, LOCAL_BYTES)
    if (local.readUInt32LE(0) !== LOCAL_MARK) throw new Error(`${entry.path} is not where the table of contents says`)
    dataAt = entry.offset + LOCAL_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28)
  } finally {
    await archive.close()
  }
  let at = position
  const write = async (chunks: AsyncIterable<Buffer>): Promise<void> => {
    for await (const chunk of chunks) {
      await target.write(chunk, 0, chunk.length, at)
      at += chunk.length
    }
  }
  await pipeline(asGzip(path, entry, dataAt), createGunzip({ chunkSize: 1 << 20 }), write, { signal })
}
