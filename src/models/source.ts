import type { CatalogModel, Ingredient } from './catalog.ts'
import { fileState } from './checksum.ts'
import type { Meter } from './meter.ts'

/** An ingredient and where its bytes are gathered. A prefix may be there already, from an earlier try or another source. */
export interface Gathering {
  readonly ingredient: Ingredient
  readonly partPath: string
}

export interface Job {
  readonly meter: Meter
  readonly log: (line: string) => void
  readonly signal: AbortSignal
}

/**
 * A place models come from. `gather` completes every part file to its ingredient's length, or throws `network` (the next source is
 * then tried), `storage_full`, or the signal's reason. Checksums are the caller's.
 */
export interface Source {
  readonly name: 'hub' | 'packages'
  /** In words, for the line that says what is being done. */
  readonly described: string
  /** Room it needs beside the files themselves, in bytes; null: it does not have this model. */
  scratchBytes(model: CatalogModel): number | null
  gather(model: CatalogModel, gatherings: readonly Gathering[], job: Job): Promise<void>
}

/** Bytes of each ingredient that are there already. */
export async function gatheredBytes(gatherings: readonly Gathering[]): Promise<number[]> {
  return Promise.all(gatherings.map(async (g) => (await fileState(g.partPath))?.bytes ?? 0))
}
