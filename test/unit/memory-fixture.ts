import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Edit } from '../../src/edit/edit.ts'
import type { Embedder } from '../../src/engine/engine.ts'
import type { Log } from '../../src/memory/indexer.ts'
import type { MemoryOptions, MemoryStore } from '../../src/memory/memory-store.ts'
import { openMemory } from '../../src/memory/store.ts'

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

export function unit(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector)
  return vector.map((x) => x / length)
}

/** A unit vector that depends on nothing but the text. */
export function vectorOf(text: string, dimensions: number): Float32Array {
  const next = random(createHash('sha256').update(text).digest().readInt32LE(0))
  return unit(Float32Array.from({ length: dimensions }, () => next() - 0.5))
}

export interface FakeEmbedder extends Embedder {
  /** Every text it was asked for, in order. */
  readonly asked: string[]
}

export function fakeEmbedder(options: { name?: string; dimensions?: number; vector?: (text: string) => Float32Array } = {}): FakeEmbedder {
  const { name = 'fake', dimensions = 16 } = options
  const vector = options.vector ?? ((text: string) => vectorOf(text, dimensions))
  const asked: string[] = []
  return {
    ...{ name, dimensions, maxTokens: 256, asked },
    embed: async (texts) => {
      asked.push(...texts)
      return texts.map(vector)
    },
    close: async () => undefined,
  }
}

export interface Line {
  readonly level: keyof Log
  readonly about: Record<string, unknown>
  readonly message: string
}

export function recordingLog(): Log & { lines: Line[] } {
  const lines: Line[] = []
  const at = (level: keyof Log) => (about: object, message: string) => void lines.push({ level, about: about as Record<string, unknown>, message })
  return { lines, info: at('info'), warn: at('warn'), error: at('error') }
}

/** A folder that is gone after the test. */
export function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-memory-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A clock that stands still until it is set. */
export function clock(at = 1_000): { (): number; at: number } {
  const read = () => read.at
  read.at = at
  return read
}

/** A memory that is closed after the test; in a new folder unless one is given. */
export async function memory(options: Partial<MemoryOptions> = {}): Promise<MemoryStore> {
  const store = await openMemory({ dataDir: scratch(), embedder: fakeEmbedder(), now: clock(), log: recordingLog(), ...options })
  onTestFinished(() => store.close())
  return store
}

export function edit(id: string, over: Partial<Edit> = {}): Edit {
  return {
    ...{ id, subject: 'France', prompt: 'The capital of France is', targetNew: id },
    ...{ aliases: [], paraphrases: [], tags: [], tenant: 'default', ...over },
  }
}

/** An edit about a subject of its own. */
export function fact(n: number, over: Partial<Edit> = {}): Edit {
  return edit(`e${n}`, { subject: `Town ${n}`, prompt: `The mayor of Town ${n} is`, targetNew: `Mayor ${n}`, ...over })
}

export const POST = { source: 'test', tenant: 'default', dryRun: false } as const
