import { randomUUID } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sha256Of } from '../../storage/file-hash.ts'
import { commonPrefix, truncate } from '../scheduling/prefix-cache.ts'
import { betweenBatches } from './batching.ts'
import { clear, type Slot } from './slot.ts'

export interface SavedCachesOptions {
  /** Only this user can read it: what is cached tells what was asked. */
  readonly dir: string
  readonly limitBytes: number
  /** Model file, context and library: a cache of another would crash the process. */
  readonly of: string
  readonly log: (level: 'info' | 'warn', message: string) => void
}

/** Caches shorter than this are sooner computed than read. */
const LEAST_TOKENS = 256

/** A slot's cache in a file, and beside it (FILE.json) what it is. */
interface Saved {
  readonly file: string
  readonly of: string
  readonly adapter: string
  readonly tokens: readonly number[]
  readonly boundaries: readonly number[]
  readonly alignedTokens: number
  readonly sha256: string
  readonly bytes: number
  lastUse: number
}

/**
 * Caches of conversations that have lost their slot to others, on the disk, the longest unused removed first; also those of the last run. One
 * that is damaged is removed and logged, and the prompt is evaluated instead.
 */
export class SavedCaches {
  readonly #options: SavedCachesOptions
  readonly #saved = new Map<string, Saved>()
  #uses = 0

  constructor(options: SavedCachesOptions) {
    this.#options = options
    const { dir } = options
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    const found = readdirSync(dir)
    for (const name of found.filter((file) => file.endsWith('.json'))) this.#read(name.slice(0, -'.json'.length))
    for (const name of found) if (!this.#saved.has(name.replace(/\.json$/, ''))) rmSync(join(dir, name), { force: true })
    for (const { lastUse } of this.#saved.values()) this.#uses = Math.max(this.#uses, lastUse)
  }

  get bytes(): number {
    return [...this.#saved.values()].reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Before `prompt` is evaluated in this slot: what it would overwrite is saved, and what was saved of this conversation is brought back. */
  async exchange(slot: Slot, prompt: readonly number[], adapter: string): Promise<void> {
    const here = slot.adapter === adapter ? commonPrefix(slot.tokens, prompt) : 0
    if (here * 2 < slot.tokens.length) await this.save(slot)
    let best: { readonly saved: Saved; readonly shared: number } | null = null
    for (const saved of this.#saved.values()) {
      const shared = saved.adapter === adapter ? commonPrefix(saved.tokens, prompt) : 0
      if (shared > (best?.shared ?? here + LEAST_TOKENS - 1)) best = { saved, shared }
    }
    if (best !== null) await this.#load(slot, best.saved)
  }

  /** A slot that nobody uses. Whatever fails is told, and nothing is lost but the time to compute it again. */
  async save(slot: Slot): Promise<void> {
    const { dir, of, limitBytes, log } = this.#options
    const { tokens, adapter, boundaries, alignedTokens, sequence } = slot
    if (tokens.length < LEAST_TOKENS || sequence.nextTokenIndex !== tokens.length) return
    const file = randomUUID()
    const path = join(dir, file)
    try {
      const { fileSize: bytes } = await betweenBatches(sequence.context, () => sequence.saveStateToFile(path))
      const kept = { tokens: [...tokens], boundaries: [...boundaries], alignedTokens }
      const saved: Saved = { file, of, adapter, ...kept, bytes, sha256: await sha256Of(path), lastUse: ++this.#uses }
      await writeFile(`${path}.part`, JSON.stringify(saved), { mode: 0o600 })
      await rename(`${path}.part`, `${path}.json`)
      this.#saved.set(file, saved)
      // A part of this one is of no more use.
      for (const one of [...this.#saved.values()])
        if (one !== saved && one.adapter === adapter && commonPrefix(one.tokens, tokens) === one.tokens.length)
          await this.#remove(one)
      const oldest = [...this.#saved.values()].sort((a, b) => a.lastUse - b.lastUse)
      for (const one of oldest) if (this.bytes > limitBytes) await this.#remove(one)
    } catch (error) {
      log('warn', `a conversation's cache was not saved: ${error instanceof Error ? error.message : error}`)
      for (const name of [file, `${file}.part`, `${file}.json`]) await rm(join(dir, name), { force: true }).catch(() => {})
    }
  }

  async #load(slot: Slot, saved: Saved): Promise<void> {
    const { sequence } = slot
    const path = join(this.#options.dir, saved.file)
    try {
      if ((await sha256Of(path)) !== saved.sha256) throw new Error('its checksum is not what was recorded')
      truncate(slot, 0)
      await betweenBatches(sequence.context, () => sequence.loadStateFromFile(path, { acceptRisk: true }))
      slot.adapter = saved.adapter
      slot.tokens = [...saved.tokens]
      slot.boundaries = [...saved.boundaries]
      slot.alignedTokens = saved.alignedTokens
      saved.lastUse = ++this.#uses
    } catch (error) {
      this.#options.log('warn', `a saved cache was removed: ${error instanceof Error ? error.message : error}`)
      await this.#remove(saved)
      if (slot.tokens.length === 0) await clear(slot)
    }
  }

  async #remove({ file }: Saved): Promise<void> {
    this.#saved.delete(file)
    const { dir } = this.#options
    await Promise.all([rm(join(dir, file), { force: true }), rm(join(dir, `${file}.json`), { force: true })])
  }

  #read(file: string): void {
    const { dir, of, log } = this.#options
    try {
      const saved = JSON.parse(readFileSync(join(dir, `${file}.json`), 'utf8')) as Saved
      const whole = saved.file === file && Array.isArray(saved.tokens) && Array.isArray(saved.boundaries) && saved.bytes > 0
      if (!whole) throw new Error('its record is not whole')
      if (saved.of === of) this.#saved.set(file, saved)
    } catch (error) {
      log('warn', `a saved cache was removed: ${error instanceof Error ? error.message : error}`)
    }
  }
}
