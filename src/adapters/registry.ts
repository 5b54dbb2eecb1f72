import { createHash, randomUUID } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, realpath, rm, stat } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { PalimpsestError } from '../errors.ts'
import type { Adapter } from './record.ts'
import { ADAPTER_FILE, type AdapterStore, type AdapterTurn, SHARED_FOLDER } from './store.ts'

export type { Adapter }

type Records = ReadonlyMap<string, Adapter>

/** What is said of a file that is registered; the rest is read from it. */
export type AdapterMade = Pick<Adapter, 'id' | 'tenant' | 'baseSha256' | 'method' | 'edits' | 'created' | 'scale'>

/** Why an adapter says something else than the memory of an edit that it holds. */
export type Disagreement = {
  readonly id: string
  readonly why: 'unknown' | 'superseded' | 'withdrawn' | 'revised' | 'not_valid_now'
}

/** The model that answers through adapters. */
export interface AdapterBase {
  check(path: string): Promise<{ readonly architecture: string; readonly rank: number; readonly bytes: number }>
  baseSha256(): Promise<string>
  load(lora: Adapter & { readonly path: string }): Promise<void>
  unload(lora: { readonly sha256: string }): Promise<void>
  loaded(lora: { readonly sha256: string }): boolean
}

/** What the memory holds of an edit now. */
export interface EditNow {
  readonly state: 'live' | 'superseded' | 'withdrawn' | 'not_yet_valid' | 'expired'
  /** Milliseconds since the epoch. */
  readonly landedAt: number
  readonly batchId: string
}

export interface AdaptersOptions {
  readonly store: AdapterStore
  /** The data folder: files to be registered lie in it. */
  readonly dataDir: string
  readonly base: AdapterBase
  readonly editNow: (tenant: string, id: string) => EditNow | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly limits: { readonly adapters: number; readonly tenantAdapters: number; readonly adapterBytes: number }
  /** Whether tenants are kept apart now, which is while keys are asked for. Else everybody sees every adapter. */
  readonly apart: () => boolean
}

/** Folders of the data folder whose files are tenants': nobody registers from them what is another tenant's. */
const TENANTS_FOLDERS = ['adapters', SHARED_FOLDER, 'handoffs']

/**
 * The adapters that this gateway serves. An adapter is its tenant's: where tenants are kept apart, it does not exist for any other, so every
 * question names the tenant that asks. What is promoted is a field of an adapter's record, written whole or not at all.
 */
export class Adapters {
  readonly #options: AdaptersOptions
  /** By tenant, of the records that it was made from; kept because every request asks. */
  #promoted: { readonly of: Records; readonly byTenant: ReadonlyMap<string, Adapter> }
  #beforePromotion: (adapter: Adapter) => Promise<void> = async () => {}

  constructor(options: AdaptersOptions) {
    this.#options = options
    const { store, base } = options
    this.#promoted = { of: store.records, byTenant: promotedOf(store.records) }
    store.follow((adapter) => base.unload(adapter))
  }

  get #held(): Records {
    return this.#options.store.records
  }

  /** Those that the tenant may ask for. */
  list(tenant: string): readonly Adapter[] {
    return this.#ofTenant(this.#held, tenant)
  }

  #ofTenant(records: Records, tenant: string): readonly Adapter[] {
    return [...records.values()].filter((adapter) => this.#isFor(tenant, adapter))
  }

  /** Whether the id is taken, by whatever tenant. */
  has(id: string): boolean {
    return this.#held.has(id)
  }

  /** Throws `adapter_not_found`, also for another tenant's. */
  get(id: string, tenant: string, param = 'id'): Adapter {
    return this.#in(this.#held, id, tenant, param)
  }

  #in(records: Records, id: string, tenant: string, param = 'id'): Adapter {
    const adapter = records.get(id)
    if (adapter !== undefined && this.#isFor(tenant, adapter)) return adapter
    throw this.#unknown(id, tenant, param)
  }

  #isFor(tenant: string, adapter: Adapter): boolean {
    return adapter.tenant === tenant || !this.#options.apart()
  }

  #unknown(id: string, tenant: string, param: string): PalimpsestError {
    const known =
      this.list(tenant)
        .map((one) => one.id)
        .slice(0, 10)
        .join(', ') || 'none'
    return new PalimpsestError('adapter_not_found', `There is no adapter '${id.slice(0, 64)}'. Registered: ${known}.`, { param })
  }

  /** Done before each promotion that nothing speaks against, whoever asks for it; a throw refuses it. */
  guardPromotion(work: (adapter: Adapter) => Promise<void>): void {
    this.#beforePromotion = work
  }

  /** What a tenant is answered through unless it asks for something else. */
  promoted(tenant: string): Adapter | undefined {
    const records = this.#held
    if (this.#promoted.of !== records) this.#promoted = { of: records, byTenant: promotedOf(records) }
    return this.#promoted.byTenant.get(tenant)
  }

  /** As an engine is asked for it, once its file is on this machine. Throws `storage_unavailable` where that takes too long. */
  async lora(adapter: Adapter, signal?: AbortSignal) {
    const { store } = this.#options
    await store.present(adapter, signal)
    return { ...adapter, path: store.path(adapter) }
  }

  loaded(adapter: Adapter): boolean {
    return this.#options.base.loaded(adapter)
  }

  /** Whether the adapter says what this edit says: it holds it, and the edit has not been changed since. */
  covers(adapter: Adapter, id: string): boolean {
    return adapter.edits.includes(id) && this.#disagreement(adapter, id) === undefined
  }

  /** Whether it holds an edit of one of these batches. */
  holdsAny({ tenant, edits }: Adapter, batches: readonly string[]): boolean {
    const { editNow } = this.#options
    return batches.length > 0 && edits.some((id) => batches.includes(editNow(tenant, id)?.batchId ?? ''))
  }

  disagreements(adapter: Adapter): readonly Disagreement[] {
    return adapter.edits.flatMap((id) => this.#disagreement(adapter, id) ?? [])
  }

  #disagreement({ tenant, created }: Adapter, id: string): Disagreement | undefined {
    const held = this.#options.editNow(tenant, id)
    if (held === undefined) return { id, why: 'unknown' }
    switch (held.state) {
      case 'superseded':
      case 'withdrawn':
        return { id, why: held.state }
      case 'not_yet_valid':
      case 'expired':
        return { id, why: 'not_valid_now' }
      case 'live':
        return held.landedAt > created ? { id, why: 'revised' } : undefined
      default:
        return held.state satisfies never
    }
  }

  /** Takes in a file that lies in the data folder; its path is relative to that. It is copied. Throws `adapter_not_found` for another tenant's. */
  async registerFile(path: string, made: AdapterMade): Promise<Adapter> {
    const { dataDir } = this.#options
    const file = join(dataDir, path)
    const within = file.startsWith(join(dataDir, '/')) && (await isReached(dataDir, file))
    if (within && !(await this.#mayCopy(file, made.tenant))) throw this.#unknown(path, made.tenant, 'path')
    if (
      !within ||
      !(await stat(file).then(
        (s) => s.isFile(),
        () => false,
      ))
    )
      throw new PalimpsestError(
        'invalid_value',
        `Expected \`path\` to name a file in the data folder, and no link, got '${path.slice(0, 200)}'.`,
        { param: 'path' },
      )
    return this.register(createReadStream(file), made, (sha256) => {
      const ofOthers = [...this.#held.values()].some((one) => one.sha256 === sha256 && !this.#isFor(made.tenant, one))
      if (ofOthers) throw this.#unknown(path, made.tenant, 'path')
    })
  }

  /** By where the file really lies, not by how its path is spelt. */
  async #mayCopy(file: string, tenant: string): Promise<boolean> {
    const { apart, dataDir, store } = this.#options
    if (!apart()) return true
    const [root, real] = await Promise.all([realpath(dataDir), realpath(file)]).catch(() => [dataDir, file] as const)
    const [folder = ''] = relative(root, real).split(sep)
    if (!TENANTS_FOLDERS.includes(folder)) return true
    const own = [...this.#held.values()].filter((adapter) => adapter.tenant === tenant)
    return own.some((adapter) => relative(dataDir, store.path(adapter)) === relative(root, real))
  }

  /**
   * Takes in a file as it comes; for another base, nothing of it is read. `check` may refuse it by its sha256. Throws `adapter_mismatch`,
   * `adapter_conflict`, `request_too_large`; nothing is kept then.
   */
  async register(file: Readable, made: AdapterMade, check: (sha256: string) => void = () => {}): Promise<Adapter> {
    const { store, base } = this.#options
    this.#refuseNew(this.#held, made)
    const expected = await base.baseSha256()
    if (made.baseSha256 !== expected)
      throw new PalimpsestError(
        'adapter_mismatch',
        `The adapter is for another model file: expected base_sha256 ${expected}, got ${made.baseSha256}. Make it from the very file that is served.`,
        { param: 'base_sha256' },
      )
    const folder = join(store.dir, `.${randomUUID()}`)
    await mkdir(folder)
    try {
      const received = join(folder, ADAPTER_FILE)
      const sha256 = await this.#receive(file, received)
      check(sha256)
      const header = await base.check(received)
      const adapter: Adapter = { ...made, ...header, sha256, promotedAt: null, gated: false }
      await store.add(adapter, folder, (records) => this.#refuseNew(records, made))
      return adapter
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }

  /** Throws `adapter_mismatch` where the engine refuses it. */
  async load(id: string, tenant: string): Promise<Adapter> {
    const adapter = this.get(id, tenant)
    await this.#options.base.load(await this.lora(adapter))
    return adapter
  }

  /** Frees its memory, once the answers through it have ended; the next request for it loads it again. */
  async unload(id: string, tenant: string): Promise<Adapter> {
    const adapter = this.get(id, tenant)
    await this.#options.base.unload(adapter)
    return adapter
  }

  /** Which edits it holds can't be changed while it is promoted: requests rely on it. */
  change(id: string, tenant: string, to: Partial<Pick<Adapter, 'scale' | 'edits'>>): Promise<Adapter> {
    return this.#options.store.change(async (turn) => {
      const adapter = this.#in(turn.records, id, tenant)
      if (to.edits !== undefined && adapter.promotedAt !== null)
        throw conflict(`Adapter '${id}' is promoted, so the edits it holds can't be changed: roll it back first.`)
      return written(turn, { ...adapter, ...to })
    })
  }

  async remove(id: string, tenant: string): Promise<Adapter> {
    return this.#options.store.change(async (turn) => {
      const adapter = this.#in(turn.records, id, tenant)
      if (adapter.promotedAt !== null) throw conflict(`Adapter '${id}' is promoted: roll it back before you delete it.`)
      await turn.remove(id)
      return adapter
    })
  }

  /**
   * From now on its tenant is answered through it, in place of the one before, and the edits it holds leave the prompt. `gated`: only where
   * the gate selects one of those edits, so that every other request is answered by the base, untouched (the default where it names any).
   * Throws `adapter_conflict` where one of those edits has been superseded, withdrawn or revised since it was made, or where another adapter
   * has been promoted since it was asked for.
   */
  async promote(id: string, tenant: string, gated?: boolean): Promise<Adapter> {
    const seen = this.promoted(this.get(id, tenant).tenant)?.id
    await this.load(id, tenant)
    return this.#options.store.change(async (turn) => {
      const adapter = this.#in(turn.records, id, tenant)
      const before = promotedOf(turn.records).get(adapter.tenant)
      if (before !== undefined && before.id !== seen && before.id !== id)
        throw conflict(`Adapter '${before.id}' was promoted in the meantime, so '${id}' is not: look at it, then promote again.`)
      const since = this.disagreements(adapter)
      if (since.length > 0)
        throw conflict(
          `Adapter '${id}' no longer says what the memory says: ${shown(since)}. Make a new one, or name the edits that it holds anew.`,
        )
      if (adapter.scale === 0) throw conflict(`Adapter '${id}' has scale 0, so it would change nothing: set its scale first.`)
      if (gated === true && adapter.edits.length === 0)
        throw conflict(
          `Adapter '${id}' names no edits, so no request would be found to need it: name them, or promote it with gated false.`,
        )
      await this.#beforePromotion(adapter)
      // Should the process end between the two, the later one is the one promoted.
      const promoted = await written(turn, {
        ...adapter,
        promotedAt: this.#later(before),
        gated: gated ?? adapter.edits.length > 0,
      })
      if (before !== undefined && before.id !== id) await turn.write({ ...before, promotedAt: null })
      return promoted
    })
  }

  /** The prompt edits return. */
  rollback(id: string, tenant: string): Promise<Adapter> {
    return this.#options.store.change(async (turn) => {
      const adapter = this.#in(turn.records, id, tenant)
      return adapter.promotedAt === null ? adapter : written(turn, { ...adapter, promotedAt: null })
    })
  }

  /** Once what was begun has ended. */
  close(): Promise<void> {
    return this.#options.store.close()
  }

  #later(before: Adapter | undefined): number {
    return Math.max(Math.round(this.#options.now()), (before?.promotedAt ?? 0) + 1)
  }

  #refuseNew(records: Records, { id, tenant }: Pick<AdapterMade, 'id' | 'tenant'>): void {
    const { limits, apart } = this.#options
    const held = records.get(id)
    if (held !== undefined)
      throw conflict(
        this.#isFor(tenant, held)
          ? `There is an adapter '${id}' already: delete it, or choose another id.`
          : `The id '${id}' is taken: choose another.`,
      )
    if (records.size >= limits.adapters) throw conflict(`There are ${records.size} adapters, which is the limit: delete one.`)
    const own = this.#ofTenant(records, tenant).length
    if (apart() && own >= limits.tenantAdapters)
      throw conflict(`There are ${own} adapters of this tenant, which is its limit: delete one.`)
  }

  /** Bytes to the disk; returns their sha256. */
  async #receive(from: Readable, path: string): Promise<string> {
    const most = this.#options.limits.adapterBytes
    const hash = createHash('sha256')
    let bytes = 0
    const counted = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        bytes += chunk.length
        hash.update(chunk)
        done(bytes > most ? tooLarge(most) : null, chunk)
      },
    })
    await pipeline(from, counted, createWriteStream(path, { flush: true }))
    return hash.digest('hex')
  }
}

async function written(turn: AdapterTurn, adapter: Adapter): Promise<Adapter> {
  await turn.write(adapter)
  return adapter
}

/** By tenant the latest promoted. */
function promotedOf(records: Records): ReadonlyMap<string, Adapter> {
  const promoted = [...records.values()].filter(({ promotedAt }) => promotedAt !== null)
  return new Map(promoted.sort((a, b) => (a.promotedAt ?? 0) - (b.promotedAt ?? 0)).map((adapter) => [adapter.tenant, adapter]))
}

/** Whether no link leads out of the folder, or about in it. What is not there leads nowhere. */
async function isReached(folder: string, file: string): Promise<boolean> {
  const [root, real] = await Promise.all([realpath(folder), realpath(file).catch(() => null)])
  return real === null || relative(root, real) === relative(folder, file)
}

function conflict(message: string): PalimpsestError {
  return new PalimpsestError('adapter_conflict', message, { param: 'id' })
}

function tooLarge(most: number): PalimpsestError {
  return new PalimpsestError('request_too_large', `The file is larger than the ${most} bytes allowed here.`, { param: 'file' })
}

const SHOWN = 5

function shown(since: readonly Disagreement[]): string {
  const some = since.slice(0, SHOWN).map(({ id, why }) => `${id} (${why})`)
  return `${some.join(', ')}${since.length > SHOWN ? ` and ${since.length - SHOWN} more` : ''}`
}
