import type { Adapter } from './record.ts'

/** The name of an adapter's file where it is alone in a folder. */
export const ADAPTER_FILE = 'adapter.gguf'

/** Folder of the data folder with the files that came from a shared database, each under its hash. */
export const SHARED_FOLDER = 'adapter-files'

/** A change under way: nobody else looks or writes until it ends. */
export interface AdapterTurn {
  /** What is on record, with what this change has written. */
  readonly records: ReadonlyMap<string, Adapter>
  write(adapter: Adapter): Promise<void>
  remove(id: string): Promise<void>
}

/** Where adapters are on record, and their files: a folder of this gateway's own, or a database that gateways share. */
export interface AdapterStore {
  /** On the disk that holds the files; what is being received lies in it under names that begin with a dot. */
  readonly dir: string
  /** As this gateway knows them, by id; another map after each change. */
  readonly records: ReadonlyMap<string, Adapter>
  /** Where the file is, once `present` has resolved. */
  path(adapter: Pick<Adapter, 'id' | 'sha256'>): string
  /** Resolves once the file is on this machine. Throws `storage_unavailable` where that takes too long, or the signal's reason. */
  present(adapter: Adapter, signal?: AbortSignal): Promise<void>
  /** Takes the file that lies in `folder` and the record, both or neither. `check` sees what is on record in that turn; its throw refuses. */
  add(adapter: Adapter, folder: string, check: (records: ReadonlyMap<string, Adapter>) => void): Promise<void>
  /** Looks and writes in one turn. */
  change<Result>(work: (turn: AdapterTurn) => Promise<Result>): Promise<Result>
  /** Files are needed from now on. `gone` is told of each adapter that was removed, by whomever; its file goes once that resolves. */
  follow(gone: (adapter: Adapter) => Promise<void>): void
  close(): Promise<void>
}
