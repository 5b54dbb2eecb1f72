import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Database } from './database.ts'
import { storageError } from './sqlite.ts'

/** The log, and the embeddings so that they need not be made again; graphs are rebuilt from these. */
const FILES = ['palimpsest.db', join('index', 'vectors.db')]

/** Copies the memory of one data folder into another, also while a process holds the first. Nothing is there yet: nothing is copied. Throws `storage_failed`, `storage_full`. */
export async function copyMemory(dataDir: string, to: string): Promise<void> {
  for (const name of FILES) {
    const file = join(dataDir, name)
    if (!existsSync(file)) continue
    try {
      mkdirSync(dirname(join(to, name)), { recursive: true })
      const source = new Database(file, { readOnly: true })
      try {
        await source.copyTo(join(to, name))
      } finally {
        source.close()
      }
    } catch (error) {
      throw storageError(error, file, 'copying the memory')
    }
  }
}
