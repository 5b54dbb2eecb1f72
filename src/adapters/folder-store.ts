import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Adapter, readRecord, recordText, writeDurably } from './record.ts'
import { ADAPTER_FILE, type AdapterStore, type AdapterTurn } from './store.ts'

const RECORD = 'adapter.json'

/** Adapters of a data folder that one gateway holds: `ID/adapter.json`, written whole or not at all, beside `ID/adapter.gguf`. */
export class FolderAdapters implements AdapterStore {
  readonly dir: string
  #records: ReadonlyMap<string, Adapter>
  #writing: Promise<unknown> = Promise.resolve()
  #gone: (adapter: Adapter) => Promise<void> = async () => {}

  /** `dir`: `adapters/` in the data folder. */
  constructor(dir: string, warn: (message: string) => void) {
    this.dir = dir
    const read = new Map<string, Adapter>()
    mkdirSync(dir, { recursive: true })
    for (const id of readdirSync(dir).sort()) {
      // What was never registered whole.
      if (id.startsWith('.')) rmSync(join(dir, id), { recursive: true, force: true })
      if (id.startsWith('.')) continue
      try {
        const adapter = readRecord(readFileSync(join(dir, id, RECORD), 'utf8'))
        if (adapter.id !== id || !existsSync(this.path(adapter)))
          throw new Error(`expected adapter '${id}' and its ${ADAPTER_FILE}`)
        read.set(id, adapter)
      } catch (error) {
        warn(`adapters/${id} is not served: ${error instanceof Error ? error.message : error}`)
      }
    }
    this.#records = read
  }

  get records(): ReadonlyMap<string, Adapter> {
    return this.#records
  }

  path({ id }: Pick<Adapter, 'id'>): string {
    return join(this.dir, id, ADAPTER_FILE)
  }

  async present(): Promise<void> {}

  async add(adapter: Adapter, folder: string, check: (records: ReadonlyMap<string, Adapter>) => void): Promise<void> {
    await writeDurably(join(folder, RECORD), recordText(adapter))
    await this.#next(async () => {
      check(this.#records)
      await rename(folder, join(this.dir, adapter.id))
      this.#keep(adapter)
    })
  }

  /** What was written before a fault stays written. */
  async change<Result>(work: (turn: AdapterTurn) => Promise<Result>): Promise<Result> {
    const removed: Adapter[] = []
    const store = this
    const turn: AdapterTurn = {
      get records() {
        return store.#records
      },
      write: async (adapter) => {
        await writeDurably(join(store.dir, adapter.id, RECORD), recordText(adapter))
        store.#keep(adapter)
      },
      remove: async (id) => {
        const adapter = store.#records.get(id)
        if (adapter !== undefined) removed.push(adapter)
        store.#records = new Map([...store.#records].filter(([one]) => one !== id))
      },
    }
    const result = await this.#next(() => work(turn))
    for (const adapter of removed) {
      await this.#gone(adapter)
      await rm(join(this.dir, adapter.id), { recursive: true, force: true })
    }
    return result
  }

  follow(gone: (adapter: Adapter) => Promise<void>): void {
    this.#gone = gone
  }

  async close(): Promise<void> {
    await this.#writing
  }

  #keep(adapter: Adapter): void {
    this.#records = new Map(this.#records).set(adapter.id, adapter)
  }

  /** One after another. */
  #next<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#writing.then(work)
    this.#writing = done.catch(() => {})
    return done
  }
}
