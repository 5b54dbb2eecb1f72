import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Logger } from '../../src/logger.ts'
import type { MemoryOptions, MemoryStore } from '../../src/memory/memory-store.ts'
import { openMemory } from '../../src/memory/store.ts'
import type { Calibration } from '../../src/selection/gate.ts'
import { fakeEmbedder } from './memory-data.ts'

export * from './memory-data.ts'

export interface Line {
  readonly level: keyof Logger
  readonly about: Record<string, unknown>
  readonly message: string
}

export function recordingLog(): Logger & { lines: Line[] } {
  const lines: Line[] = []
  const at = (level: keyof Logger) => (about: object, message: string) =>
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

/** Takes every edit of which the reader says that it is needed. */
export const READ_CALIBRATION: Calibration = {
  bias: 0,
  weights: { reader: 1, named: 0, loosely: 0, earlier: 0, crowd: 0, crowdLoosely: 0 },
  threshold: 0.5,
}
