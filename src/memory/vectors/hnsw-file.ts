import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { Graph, type GraphOptions } from './hnsw-graph.ts'
import { hnswlib } from './hnsw-library.ts'

/** Why a saved index is not used and the index is built anew. */
export type RebuildReason = 'missing' | 'stale' | 'corrupt' | 'other_embedder'

/** What an index must agree with to be used. */
export interface Expected {
  readonly embedder: string
  readonly dimensions: number
  /** Which texts of an edit are indexed; an index of another recipe is stale. */
  readonly recipe: number
  /** Last record of the log. */
  readonly logSeq: number
  /** The texts indexed for the edit that this record of this tenant landed; none where there is no such record. */
  readonly textsOf: (seq: number) => readonly string[]
}

/** The note beside the graph's file. */
const Sidecar = z.object({
  format: z.literal(1),
  tenant: z.string(),
  sha256: z.string(),
  bytes: z.number().int(),
  embedder: z.string(),
  dimensions: z.number().int(),
  space: z.literal('ip'),
  neighbours: z.number().int(),
  recipe: z.number().int(),
  count: z.number().int(),
  logSeq: z.number().int(),
  /** Hash of the indexed texts, in the order of `seqs`: another log may have other edits under the same numbers. */
  texts: z.string(),
  /** Log record of each label. */
  seqs: z.array(z.number().int().nonnegative()),
})
type Sidecar = z.infer<typeof Sidecar>

/** hnswlib's file: this header (little endian), the ground layer, then a length and the links of each point. hnswalg.h, saveIndex. */
const HEADER = { bytes: 96, countAt: 16, pointBytesAt: 24 } as const

/** The graph's file; the note lies beside it under `.json`. Tenant names may hold anything, hence the hash. */
export function indexFile(folder: string, tenant: string): string {
  return join(folder, `${createHash('sha256').update(tenant).digest('hex').slice(0, 32)}.hnsw`)
}

async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

/**
 * Throws unless the file is whole. The library reports no failed write, and the length of a whole file is not known beforehand; but the
 * header and the lengths inside add up to it.
 */
async function assertWhole(file: string, count: number): Promise<number> {
  const { size } = await stat(file)
  const cut = () => new Error(`only part of it was written (${size} bytes); the disk may be full`)
  if (size < HEADER.bytes) throw cut()
  const header = await part(file, 0, HEADER.bytes)
  if (Number(header.readBigUInt64LE(HEADER.countAt)) !== count) throw new Error(`holds another number of vectors than ${count}`)
  const ground = HEADER.bytes + count * Number(header.readBigUInt64LE(HEADER.pointBytesAt))
  if (size < ground) throw cut()
  const links = await part(file, ground, size - ground)
  let at = 0
  for (let i = 0; i < count; i++) {
    if (at + 4 > links.length) throw cut()
    at += 4 + links.readUInt32LE(at)
  }
  if (at !== links.length) throw cut()
  return size
}

/** The ground layer is most of a file that may be too large to be read whole. */
async function part(file: string, position: number, length: number): Promise<Buffer> {
  const handle = await open(file, 'r')
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, position)
    return buffer.subarray(0, bytesRead)
  } finally {
    await handle.close()
  }
}

function textsHash(seqs: readonly number[], textsOf: Expected['textsOf']): string {
  const hash = createHash('sha256')
  let last = -1
  for (const seq of seqs) {
    hash.update(`${seq} `)
    if (seq !== last) hash.update(JSON.stringify(textsOf(seq)))
    last = seq
  }
  return hash.digest('hex')
}

async function sync(file: string): Promise<void> {
  const handle = await open(file, 'r+')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Writes the graph under a temporary name, checks it, and renames it into place with its note. Throws when it could not be written; what
 * was saved before then still stands.
 */
export async function saveGraph(folder: string, tenant: string, graph: Graph, of: Omit<Expected, 'dimensions'>): Promise<void> {
  const file = indexFile(folder, tenant)
  const [graphTmp, noteTmp] = [`${file}.tmp`, `${file}.json.tmp`]
  const seqs = graph.seqs.slice()
  try {
    await mkdir(folder, { recursive: true })
    await graph.write(graphTmp)
    const bytes = await assertWhole(graphTmp, seqs.length)
    await sync(graphTmp)
    const note: Sidecar = {
      format: 1,
      tenant,
      sha256: await sha256Of(graphTmp),
      bytes,
      embedder: of.embedder,
      dimensions: graph.dimensions,
      space: 'ip',
      neighbours: graph.options.neighbours,
      recipe: of.recipe,
      count: seqs.length,
      logSeq: of.logSeq,
      texts: textsHash(seqs, of.textsOf),
      seqs,
    }
    const handle = await open(noteTmp, 'w')
    await handle.writeFile(JSON.stringify(note))
    await handle.sync()
    await handle.close()
    // Between these two renames the note belongs to the former graph: its checksum then refuses the pair, and the index is rebuilt.
    await rename(graphTmp, file)
    await rename(noteTmp, `${file}.json`)
  } finally {
    await rm(graphTmp, { force: true })
    await rm(noteTmp, { force: true })
  }
}

/** The saved graph, or why there is none to use. Nothing is handed to the library before its checksum is right. */
export async function loadGraph(
  folder: string,
  tenant: string,
  expected: Expected,
  options: GraphOptions,
): Promise<Graph | { readonly reason: RebuildReason; readonly detail: string }> {
  if (hnswlib === null) return { reason: 'missing', detail: 'hnswlib-node does not load here' }
  const file = indexFile(folder, tenant)
  const raw = await readFile(`${file}.json`, 'utf8').catch(() => null)
  const size = await stat(file).then(
    (s) => s.size,
    () => null,
  )
  if (raw === null || size === null) return { reason: 'missing', detail: raw === null ? 'no note beside it' : 'no such file' }
  const note = parseNote(raw)
  if (note === null || note.tenant !== tenant) return { reason: 'corrupt', detail: 'its note cannot be read' }
  if (note.bytes !== size) return { reason: 'corrupt', detail: `${size} bytes, expected ${note.bytes}` }
  if ((await sha256Of(file)) !== note.sha256) return { reason: 'corrupt', detail: 'its checksum is wrong' }
  const refused = rebuildReason(note, expected, options)
  if (refused !== null) return refused
  try {
    return await Graph.read(file, note.dimensions, note.seqs, options)
  } catch (error) {
    return { reason: 'corrupt', detail: error instanceof Error ? error.message : String(error) }
  }
}

function parseNote(raw: string): Sidecar | null {
  try {
    return Sidecar.parse(JSON.parse(raw))
  } catch {
    return null
  }
}

function rebuildReason(
  note: Sidecar,
  expected: Expected,
  options: GraphOptions,
): { reason: RebuildReason; detail: string } | null {
  if (note.embedder !== expected.embedder || note.dimensions !== expected.dimensions) {
    return { reason: 'other_embedder', detail: `made with ${note.embedder} (${note.dimensions}), in use is ${expected.embedder}` }
  }
  if (note.recipe !== expected.recipe || note.neighbours !== options.neighbours)
    return { reason: 'stale', detail: 'built by another recipe' }
  if (note.logSeq > expected.logSeq)
    return { reason: 'stale', detail: `it knows record ${note.logSeq}, the log ends at ${expected.logSeq}` }
  if (note.texts !== textsHash(note.seqs, expected.textsOf))
    return { reason: 'stale', detail: 'the log has other edits than it was built from' }
  if (note.count !== note.seqs.length) return { reason: 'corrupt', detail: 'its note contradicts itself' }
  return null
}
