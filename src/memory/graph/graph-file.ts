import { createHash } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat, truncate } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { sha256Of } from '../../storage/file-hash.ts'
import { inSlices } from '../slices.ts'
import type { Arena } from './arena.ts'
import { Graph } from './graph.ts'
import { type GraphOptions, usearch } from './graph-library.ts'
import { buildApart } from './graph-thread.ts'
import { RowBuffer, rowBytes } from './row-file.ts'

/** Why a saved index is not used and the index is built anew. */
export type RebuildReason = 'missing' | 'stale' | 'corrupt' | 'other_embedder'

export interface Unusable {
  readonly reason: RebuildReason
  readonly detail: string
}

/** What an index must agree with to be used. */
export interface Expected {
  readonly embedder: string
  readonly dimensions: number
  /** Which texts of an edit are indexed; an index of another recipe is stale. */
  readonly recipe: number
  /** Last record of the log. */
  readonly logSeq: number
  /** What the edit says that this record of this tenant landed; nothing where there is no such record. */
  readonly contentOf: (seq: number) => string
}

/** The note of a saved index. Whichever files it names are the index; others beside it are left over. */
const Note = z.object({
  format: z.literal(2),
  tenant: z.string(),
  embedder: z.string(),
  dimensions: z.number().int(),
  neighbours: z.number().int(),
  recipe: z.number().int(),
  logSeq: z.number().int(),
  graph: z.object({ name: z.string(), bytes: z.number().int(), sha256: z.string() }),
  /** What each round added: its rows' hash, and that of the edits they are of, since another log may have others under the same numbers. */
  rounds: z.array(z.object({ points: z.number().int().positive(), rows: z.string(), edits: z.string() })).min(1),
})
type Note = z.infer<typeof Note>

/** Rows whose bytes are read, and hashed, at a time. */
const VERIFY_ROWS = 1_024

/** The note's file; the graph and the rows lie beside it. Tenant names may hold anything, hence the hash. */
export function indexFile(folder: string, tenant: string): string {
  return join(folder, `${createHash('sha256').update(tenant).digest('hex').slice(0, 32)}.json`)
}

/** One tenant's graph on the disk. */
export class GraphFiles {
  readonly note: string
  readonly #folder: string
  readonly #tenant: string
  readonly #options: GraphOptions
  readonly #stem: string
  #current: Note | null = null

  constructor(folder: string, tenant: string, options: GraphOptions) {
    this.#folder = folder
    this.#tenant = tenant
    this.#options = options
    this.note = indexFile(folder, tenant)
    this.#stem = basename(this.note, '.json')
  }

  get #rows(): string {
    return join(this.#folder, `${this.#stem}.rows`)
  }

  /** The saved graph, or why there is none to use; what cannot be used is deleted. Nothing is handed to the library before its checksum is right. */
  async load(expected: Expected): Promise<Graph | Unusable> {
    if (usearch === null) return { reason: 'missing', detail: 'usearch does not load here' }
    const found = await this.#read(expected)
    if (found instanceof Graph) await this.#sweep(basename(this.note), basename(this.#rows), this.#current?.graph.name ?? '')
    else await this.drop()
    return found
  }

  async #read(expected: Expected): Promise<Graph | Unusable> {
    const raw = await readFile(this.note, 'utf8').catch(() => null)
    if (raw === null) {
      const isOld = (await this.#names()).some((name) => name.startsWith(`${this.#stem}.hnsw`))
      return isOld ? { reason: 'stale', detail: 'of an earlier format' } : { reason: 'missing', detail: 'no such file' }
    }
    const note = parseNote(raw)
    if (note === null || note.tenant !== this.#tenant) return { reason: 'corrupt', detail: 'its note cannot be read' }
    const refused = refusal(note, expected, this.#options)
    if (refused !== null) return refused
    const graph = join(this.#folder, note.graph.name)
    const size = await sizeOf(graph)
    if (size === null) return { reason: 'missing', detail: `no ${note.graph.name}` }
    if (size !== note.graph.bytes) return { reason: 'corrupt', detail: `${size} bytes, expected ${note.graph.bytes}` }
    if ((await sha256Of(graph)) !== note.graph.sha256) return { reason: 'corrupt', detail: 'its checksum is wrong' }
    const seqs = await verifiedSeqs(this.#rows, note)
    if (!(seqs instanceof Float64Array)) return seqs
    if (!(await hasEditsOf(note, seqs, expected)))
      return { reason: 'stale', detail: 'the log has other edits than it was built from' }
    try {
      const found = new Graph({ graph, rows: this.#rows, seqs }, note.dimensions, this.#options)
      this.#current = note
      return found
    } catch (error) {
      return { reason: 'corrupt', detail: error instanceof Error ? error.message : String(error) }
    }
  }

  /**
   * Makes a graph that has these points, too, saves it, and opens it; the former one stays open. Throws when that fails, and when `signal` ends
   * it; what was saved before then still stands. The note's renaming is what makes the new files the index: a process may end anywhere.
   */
  async grow(had: Graph | null, added: Arena, of: Omit<Expected, 'dimensions'>, signal: AbortSignal): Promise<Graph> {
    const { dimensions } = added
    const former = had === null ? null : this.#current
    const name = `${this.#stem}.${(former?.rounds.length ?? 0) + 1}.usearch`
    const to = join(this.#folder, name)
    const fresh = Float64Array.from(added.seqs)
    let graph: Graph | undefined
    try {
      await mkdir(this.#folder, { recursive: true })
      const edits = await editsHash(fresh, of.contentOf)
      const from = former === null ? null : join(this.#folder, former.graph.name)
      const before = had?.size ?? 0
      const { blocks } = added
      const round = { dimensions, options: this.#options, from, to, rows: this.#rows, before, seqs: fresh, blocks }
      const { bytes, sha256, rowsSha256 } = await buildApart(round, signal)
      const seqs = new Float64Array(before + fresh.length)
      seqs.set(had?.seqs ?? [])
      seqs.set(fresh, before)
      graph = new Graph({ graph: to, rows: this.#rows, seqs }, dimensions, this.#options)
      await this.#write({
        ...{ format: 2, tenant: this.#tenant, embedder: of.embedder, dimensions, neighbours: this.#options.neighbours },
        ...{ recipe: of.recipe, logSeq: of.logSeq, graph: { name, bytes, sha256 } },
        rounds: [...(former?.rounds ?? []), { points: fresh.length, rows: rowsSha256, edits }],
      })
    } catch (error) {
      graph?.close()
      await rm(to, { force: true })
      // The disk may be full.
      await truncate(this.#rows, (had?.size ?? 0) * rowBytes(dimensions)).catch(() => undefined)
      throw error
    }
    if (former !== null) await rm(join(this.#folder, former.graph.name), { force: true })
    return graph
  }

  async #write(note: Note): Promise<void> {
    const temporary = `${this.note}.tmp`
    try {
      const handle = await open(temporary, 'w')
      try {
        await handle.writeFile(JSON.stringify(note))
        await handle.sync()
      } finally {
        await handle.close()
      }
      await rename(temporary, this.note)
      this.#current = note
    } finally {
      await rm(temporary, { force: true })
    }
  }

  /** Deletes all of it. */
  async drop(): Promise<void> {
    this.#current = null
    // First, since without it the others are nothing.
    await rm(this.note, { force: true })
    await this.#sweep()
  }

  async #sweep(...but: readonly string[]): Promise<void> {
    for (const name of await this.#names())
      if (name.startsWith(`${this.#stem}.`) && !but.includes(name)) await rm(join(this.#folder, name), { force: true })
  }

  #names(): Promise<string[]> {
    return readdir(this.#folder).catch(() => [])
  }
}

function sizeOf(file: string): Promise<number | null> {
  return stat(file).then(
    ({ size }) => size,
    () => null,
  )
}

function parseNote(raw: string): Note | null {
  try {
    return Note.parse(JSON.parse(raw))
  } catch {
    return null
  }
}

function refusal(note: Note, expected: Expected, options: GraphOptions): Unusable | null {
  if (note.embedder !== expected.embedder || note.dimensions !== expected.dimensions) {
    return { reason: 'other_embedder', detail: `made with ${note.embedder} (${note.dimensions}), in use is ${expected.embedder}` }
  }
  if (note.recipe !== expected.recipe || note.neighbours !== options.neighbours)
    return { reason: 'stale', detail: 'built by another recipe' }
  if (note.logSeq > expected.logSeq)
    return { reason: 'stale', detail: `it knows record ${note.logSeq}, the log ends at ${expected.logSeq}` }
  return null
}

/** The log record of each row, from a file in which every round's rows are as they were written. */
async function verifiedSeqs(file: string, { rounds, dimensions }: Note): Promise<Float64Array | Unusable> {
  const total = rounds.reduce((sum, { points }) => sum + points, 0)
  const size = await sizeOf(file)
  if (size === null) return { reason: 'missing', detail: 'no rows' }
  const stride = rowBytes(dimensions)
  if (size < total * stride) return { reason: 'corrupt', detail: `${size} bytes of rows, expected ${total * stride}` }
  const seqs = new Float64Array(total)
  const buffer = new RowBuffer(VERIFY_ROWS, dimensions)
  const handle = await open(file, 'r')
  try {
    let at = 0
    for (const { points, rows } of rounds) {
      const hash = createHash('sha256')
      for (const end = at + points; at < end; ) {
        const wanted = Math.min(VERIFY_ROWS, end - at)
        const { bytesRead } = await handle.read(buffer.bytes, 0, wanted * stride, at * stride)
        const whole = Math.floor(bytesRead / stride)
        if (whole === 0) return { reason: 'corrupt', detail: 'its rows cannot be read' }
        hash.update(buffer.bytes.subarray(0, whole * stride))
        for (let row = 0; row < whole; row++) seqs[at + row] = buffer.seq(row)
        at += whole
      }
      if (hash.digest('hex') !== rows) return { reason: 'corrupt', detail: 'the checksum of its rows is wrong' }
    }
    return seqs
  } finally {
    await handle.close()
  }
}

async function hasEditsOf({ rounds }: Note, seqs: Float64Array, { contentOf }: Expected): Promise<boolean> {
  let from = 0
  for (const { points, edits } of rounds) {
    if ((await editsHash(seqs.subarray(from, from + points), contentOf)) !== edits) return false
    from += points
  }
  return true
}

async function editsHash(seqs: Float64Array, contentOf: Expected['contentOf']): Promise<string> {
  const hash = createHash('sha256')
  let last = -1
  await inSlices(seqs, (seq) => {
    hash.update(seq === last ? ' ' : `${seq} ${contentOf(seq)}\n`)
    last = seq
  })
  return hash.digest('hex')
}
