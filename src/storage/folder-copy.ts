import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Database, makePrivate } from './database.ts'
import { storageError } from './sqlite.ts'

/** The log, and the embeddings so that they need not be made again; graphs are rebuilt from these. */
const FILES = ['palimpsest.db', join('index', 'vectors.db')]

/** Copies the memory of one data folder into another, also while a process holds the first. Nothing is there yet: nothing is copied. Throws `storage_failed`, `storage_full`. */
export async function copyMemory(dataDir: string, to: string): Promise<void> {
  for (const name of FILES) {
    const file = join(dataDir, name)
    if (existsSync(file)) await copyDatabase(file, join(to, name))
  }
}

/** A whole copy of a database, for its owner alone, also while others write to it. Throws `storage_failed`, `storage_full`. */
export async function copyDatabase(file: string, to: string): Promise<void> {
  try {
    mkdirSync(dirname(to), { recursive: true, mode: 0o700 })
    const source = new Database(file, { readOnly: true })
    try {
      makePrivate(to)
      await source.copyTo(to)
    } finally {
      source.close()
    }
  } catch (error) {
    throw storageError(error, file, 'copying the memory')
  }
}
