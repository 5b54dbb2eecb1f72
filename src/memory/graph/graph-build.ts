import { createHash } from 'node:crypto'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { sha256Of } from '../../storage/file-hash.ts'
import { BLOCK_POINTS } from './arena.ts'
import { type GraphOptions, type Matches, type NativeIndex, newIndex, release, view } from './graph-library.ts'
import { RowBuffer, rowBytes } from './row-file.ts'

/** Points to be added to a graph. It is sent to a thread: plain data. */
export interface Round {
  readonly dimensions: number
  readonly options: GraphOptions
  /** The graph so far, verified; null where there is none. */
  readonly from: string | null
  /** The new file. */
  readonly to: string
  readonly rows: string
  /** Points of the graph so far. Rows behind theirs were left by a round that failed. */
  readonly before: number
  readonly seqs: Float64Array
  /** See `Arena.blocks`. */
  readonly blocks: readonly Float32Array[]
}

/** What a round has put on the disk. */
export interface Built {
  readonly bytes: number
  readonly sha256: string
  /** Of the added rows. */
  readonly rowsSha256: string
}

export interface BuildPace {
  readonly threads: number
  /** Points given to the library at once: until it has them, nobody can end the thread. */
  readonly atOnce: number
  /** Called in between. */
  readonly pause: () => Promise<void> | undefined
}

/** Breadth of the search for new points, each by its own vector, and places it gives. */
const CHECK_BREADTH = 24
/** Cosine distance below which two vectors are one in bytes. */
const TWIN_DISTANCE = 1e-4

/** Appends the rows, and writes a new graph that has the points. Throws what goes wrong; the graph so far and its rows stand. */
export async function build(round: Round, pace: BuildPace): Promise<Built> {
  // The shorter part first: a full disk is noticed before the long one.
  const rowsSha256 = await appendRows(round, pace)
  const index = newIndex(round.dimensions, { ...round.options, searchBreadth: CHECK_BREADTH })
  try {
    await addAll(index, round, pace)
    await linkStranded(index, round, pace)
    index.save(round.to)
    // It does not notice when closing a file fails, but it does when it opens one that has been cut.
    view(index, round.to)
  } finally {
    release(index)
  }
  await synced(round.to)
  const { size } = await stat(round.to)
  return { bytes: size, sha256: await sha256Of(round.to), rowsSha256 }
}

async function addAll(index: NativeIndex, round: Round, pace: BuildPace): Promise<void> {
  if (round.from !== null) index.load(round.from)
  if (index.size() !== round.before) throw new Error(`the graph so far has ${index.size()} points, expected ${round.before}`)
  for (const { labels, vectors } of pages(round, pace)) {
    index.add(labels, vectors, pace.threads)
    await pace.pause()
  }
}

/**
 * Added on several threads, a point may get no link from any other, and no search ever finds it (unum-cloud/USearch#735: here up to one in a
 * thousand). So each new point is searched for, and what is not found is added again, alone.
 */
async function linkStranded(index: NativeIndex, round: Round, pace: BuildPace): Promise<void> {
  for (const { labels, vectors } of pages(round, pace)) {
    for (const i of missed(index.search(vectors, CHECK_BREADTH, pace.threads), labels)) {
      const label = labels.slice(i, i + 1)
      index.remove(label)
      index.add(label, vectors.slice(i * round.dimensions, (i + 1) * round.dimensions), 1)
    }
    await pace.pause()
  }
}

/** Places of the labels that a search for their own vectors did not find. Texts that many edits share have one vector: where only such are found, it was not missed. */
function missed({ keys, distances, counts }: Matches, labels: BigUint64Array): number[] {
  const width = keys.length / labels.length
  const isFound = (i: number) => {
    const end = i * width + Number(counts?.[i] ?? width)
    return keys.subarray(i * width, end).includes(labels[i] ?? -1n) || (distances[end - 1] ?? 1) < TWIN_DISTANCE
  }
  return [...labels.keys()].filter((i) => !isFound(i))
}

function* pages(
  round: Round,
  { atOnce }: BuildPace,
): Generator<{ readonly labels: BigUint64Array; readonly vectors: Float32Array }> {
  for (let from = 0; from < round.seqs.length; from += atOnce) {
    const count = Math.min(atOnce, round.seqs.length - from)
    const labels = BigUint64Array.from({ length: count }, (_, i) => BigInt(round.before + from + i))
    const vectors = new Float32Array(count * round.dimensions)
    for (let i = 0; i < count; i++) vectors.set(vectorAt(round, from + i), i * round.dimensions)
    yield { labels, vectors }
  }
}

function vectorAt({ dimensions, blocks }: Round, at: number): Float32Array {
  const offset = (at % BLOCK_POINTS) * dimensions
  return (blocks[Math.floor(at / BLOCK_POINTS)] ?? new Float32Array()).subarray(offset, offset + dimensions)
}

async function appendRows(round: Round, { atOnce, pause }: BuildPace): Promise<string> {
  const { dimensions, before, seqs } = round
  const stride = rowBytes(dimensions)
  const handle = await open(round.rows, before === 0 ? 'w' : 'r+')
  try {
    await handle.truncate(before * stride)
    const hash = createHash('sha256')
    const buffer = new RowBuffer(Math.min(atOnce, seqs.length), dimensions)
    for (let from = 0; from < seqs.length; from += atOnce) {
      const count = Math.min(atOnce, seqs.length - from)
      for (let i = 0; i < count; i++) buffer.set(i, seqs[from + i] ?? -1, vectorAt(round, from + i))
      const bytes = buffer.bytes.subarray(0, count * stride)
      hash.update(bytes)
      await writeAll(handle, bytes, (before + from) * stride)
      await pause()
    }
    await handle.sync()
    return hash.digest('hex')
  } finally {
    await handle.close()
  }
}

async function writeAll(handle: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}

async function synced(file: string): Promise<void> {
  const handle = await open(file, 'r+')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
