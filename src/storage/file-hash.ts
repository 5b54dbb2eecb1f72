import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'

/** The files have megabytes to gigabytes. */
const READ_BYTES = 1 << 20

/** In hexadecimal. */
export async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file, { highWaterMark: READ_BYTES }), hash)
  return hash.digest('hex')
}

/** Whether the file is there, with this content. */
export async function isWhole(file: string, sha256: string): Promise<boolean> {
  return sha256Of(file).then(
    (sum) => sum === sha256,
    () => false,
  )
}
