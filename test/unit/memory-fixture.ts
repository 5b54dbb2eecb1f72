import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Log } from '../../src/memory/indexer.ts'
import type { MemoryOptions, MemoryStore } from '../../src/memory/memory-store.ts'
import { openMemory } from '../../src/memory/store.ts'
import { fakeEmbedder } from './memory-data.ts'

export * from './memory-data.ts'

export interface Line {
  readonly level: keyof Log
  readonly about: Record<string, unknown>
  readonly message: string
}

export function recordingLog(): Log & { lines: Line[] } {
  const lines: Line[] = []
  const at = (level: keyof Log) => (about: object, message: string) =>
    void lines.push({ level, about: about as Record<string, unknown>, message })
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

export const POST = { source: 'test', tenant: 'default', dryRun: false } as const
